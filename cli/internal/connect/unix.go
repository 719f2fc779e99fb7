package connect

import (
	"context"
	"errors"
	"io/fs"
	"net"

	"uncloud/internal/faults"
	"uncloud/internal/wire"
)

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, faults.New(faults.Unreachable, "there is no agent at %s", path).
			WithHint("on a machine: systemctl status uncloud; from elsewhere: uc --connect ssh://user@machine").Because(err)
	case errors.Is(err, fs.ErrPermission):
		return nil, faults.New(faults.Unreachable, "you may not use %s", path).
			WithHint("only root and the group uncloud may: sudo usermod -aG uncloud $USER, then log in again").Because(err)
	case wire.Refused(err):
		return nil, faults.New(faults.Unreachable, "the agent at %s does not run", path).
			WithHint("systemctl status uncloud").Because(err)
	}
	return nil, faults.New(faults.Unreachable, "connect to %s: %w", path, err).
		WithHint("see whether the agent runs: systemctl status uncloud")
}
