package podman

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/containers/podman/v5/pkg/bindings"
	"github.com/containers/podman/v5/pkg/errorhandling"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
)

// What Podman says in words only: all of these come as HTTP 500, so neither
// the code nor a type tells them apart.
var conditions = []struct {
	text string
	is   error
}{
	{"that name is already in use", runtime.ErrNameTaken},
	{"is already allocated to container", runtime.ErrAddressTaken},
	{"the bridge must already exist", runtime.ErrNoBridge},
	{"network is being used", runtime.ErrNetworkBusy},
	{"has associated containers", runtime.ErrNetworkBusy},
	{"no such container", runtime.ErrNoContainer},
	{"no container with", runtime.ErrNoContainer},
}

// explain turns an error of Podman into one for people, with what was being
// done: "create container web-1".
func (e *Engine) explain(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return faults.New(faults.Engine, "podman: %s: %w", doing, err).
			WithHint("see whether it is stuck: systemctl status podman.socket podman.service")
	case isConnection(err):
		return e.notRunning(err)
	}
	text := briefly(err)
	if isDiskFull(err.Error()) {
		return faults.New(faults.DiskFull, "%s: no space left on the disk", doing).
			WithHint("df -h /var/lib/containers; podman image prune").Because(err)
	}
	fault := faults.New(faults.Engine, "podman: %s: %s", doing, text).
		WithHint("see what it wrote: journalctl -u podman -u uncloud")
	for _, c := range conditions {
		if strings.Contains(err.Error(), c.text) {
			return fault.Because(errors.Join(c.is, err))
		}
	}
	return fault.Because(err)
}

// What Podman appends to what its runtime said: its guess of the kind of
// error, which is wrong as often as not.
var guesses = []string{
	": OCI runtime error", ": OCI permission denied", ": OCI runtime attempted to invoke a command that was not found",
}

// briefly is what Podman says, without guesses. Some of its messages hold a
// dump of a whole request: then the cause alone is said.
func briefly(err error) string {
	const most = 300
	text := strings.TrimSpace(err.Error())
	for _, g := range guesses {
		text = strings.TrimSuffix(text, g)
	}
	if m, ok := errors.AsType[*errorhandling.ErrorModel](err); ok && len(text) > most && m.Because != "" {
		text = m.Because
	}
	if len(text) > most {
		text = "... " + text[len(text)-most:]
	}
	return strings.ToValidUTF8(text, "")
}

// notRunning is the fault of a service that does not answer.
func (e *Engine) notRunning(err error) error {
	return faults.New(faults.Engine, "Podman does not answer on %s", e.socketPath()).
		WithHint("systemctl start podman.socket").Because(err)
}

// noImage is the fault of an image that is not here and was not fetched.
func noImage(name string, err error) error {
	return faults.New(faults.NoImage, "image %s is not on this machine", name).
		WithHint("uc image push %s", name).Because(err)
}

// isConnection tells whether an error is of the connection to the service and
// not of the service.
func isConnection(err error) bool {
	if _, ok := errors.AsType[bindings.ConnectError](err); ok {
		return true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

func isDiskFull(text string) bool {
	return strings.Contains(text, "no space left on device") || strings.Contains(text, "disk quota exceeded")
}

// isNotFound tells whether the service answered 404.
func isNotFound(err error) bool {
	m, ok := errors.AsType[*errorhandling.ErrorModel](err)
	return ok && m.ResponseCode == http.StatusNotFound
}
