package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"uncloud/internal/faults"
)

// notify tells the service manager how the agent is. Without one it does nothing.
func notify(state string) {
	daemon.SdNotify(false, state) //nolint:errcheck // there is nobody to tell when the manager is deaf
}

// storeStall is how long a turn of the store's writer may take. It takes
// milliseconds, on a poor disk seconds; one that takes longer will not end.
const storeStall = 30 * time.Second

// loopStall is how long any other loop may take for a turn. The slowest look
// waits half a minute for a container engine that is deaf, and as long for the
// store; one that takes longer will not end.
const loopStall = 2 * time.Minute

// watchdog tells the service manager that the agent lives, as long as the
// member's steering answers, and the store's writer and all other loops end
// their turns: a deadlock anywhere on their paths stops the messages, and the
// manager ends the agent, which says where it stands, and starts it anew.
// Containers and kernel tunnels go on meanwhile.
func (a *Agent) watchdog(ctx context.Context) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("watchdog: %w", err)
	}
	if interval == 0 {
		return nil
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if m := a.current(); m == nil || m.lives(ctx, interval/3) {
			notify("WATCHDOG=1")
		}
	}
}

// lives is false, and said in the log, if a part that all others wait for does
// not answer within so long.
func (m *member) lives(ctx context.Context, within time.Duration) bool {
	switch stalled := m.store.Stalled(); {
	case stalled > storeStall:
		m.log.Error("the store does not answer: the watchdog will end the agent", "took", stalled)
	case !m.answers(ctx, within):
		m.log.Error("steering does not answer: the watchdog will end the agent")
	default:
		return m.turns()
	}
	return false
}

// turns is false, and said in the log, if a loop does not end its turn.
func (m *member) turns() bool {
	all := true
	for name, stalled := range m.loops {
		if took := stalled(); took > loopStall {
			m.sub(name).Error("a loop does not end its turn: the watchdog will end the agent", "took", took)
			all = false
		}
	}
	return all
}

// socketGroup may use the API without being root, as with every container engine.
const socketGroup = "uncloud"

// listenSocket opens the local API: for root, and for the group where it exists.
func listenSocket(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make folder of the socket: %w", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close() //nolint:errcheck,gosec // it was only a question
		return nil, faults.New(faults.Conflict, "another agent answers at %s", path).WithHint("stop it: systemctl stop uncloud")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := openToGroup(path); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func openToGroup(path string) error {
	if err := os.Chmod(path, 0o660); err != nil { //nolint:gosec // the group is meant to write
		return err
	}
	g, err := user.LookupGroup(socketGroup)
	if err != nil {
		return nil //nolint:nilerr // no such group: the socket is root's alone
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("group %s: %w", socketGroup, err)
	}
	return os.Chown(path, -1, gid)
}
