package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// allowLocalnet lets packets from 127.0.0.0/8 leave by the bridge, so that a
// published port answers on localhost. Only the bridge gets the switch, and
// only when the rules are loaded that keep everybody else off 127.0.0.0/8.
// Without a bridge there is nothing to do yet; it is for whoever makes the
// bridge to apply the policy afterwards.
func allowLocalnet(bridge string) error {
	path := "/proc/sys/net/ipv4/conf/" + bridge + "/route_localnet"
	now, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || string(bytes.TrimSpace(now)) == "1" {
		return nil
	}
	if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
		return fmt.Errorf("publish ports on localhost: %w", err)
	}
	return nil
}
