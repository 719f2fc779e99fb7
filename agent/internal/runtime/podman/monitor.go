package podman

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Podman learns of a container's end from conmon, the small process beside
// each container. When conmon dies, Podman goes on saying "running" for ever,
// without an event. So this package looks at conmon itself, and waits for its
// end with a pidfd: that also tells of every ordinary end, sooner than
// Podman's events do, and it lets an idle Podman service leave memory, which
// an open event stream would forbid.

// monitors knows the conmon of each running container and waits for their ends.
type monitors struct {
	log *slog.Logger

	mu      sync.Mutex
	known   map[string]monitor // by container id
	watched map[string]*pidfd  // by container id; nil map: nobody watches
	wake    func()
}

// monitor is the conmon of one run of a container.
type monitor struct {
	started int64 // Unix seconds of the run's start: a new run has a new conmon
	pid     int
}

func newMonitors(log *slog.Logger) *monitors {
	return &monitors{log: log, known: map[string]monitor{}}
}

// pid is the conmon of this run of a container, if it is known.
func (m *monitors) pid(id string, started int64) (int, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.known[id]
	return k.pid, ok && k.started == started
}

// learn notes the conmon of a run, and waits for its end if somebody watches.
func (m *monitors) learn(id string, started int64, pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[id] = monitor{started, pid}
	if m.watched != nil {
		m.follow(id, pid)
	}
}

// keep forgets the containers that are not in ids.
func (m *monitors) keep(ids map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.known {
		if !ids[id] {
			delete(m.known, id)
		}
	}
}

// watch calls wake at the end of each known conmon until ctx ends.
func (m *monitors) watch(ctx context.Context, wake func()) error {
	m.mu.Lock()
	if m.watched != nil {
		m.mu.Unlock()
		return fmt.Errorf("watch containers: somebody watches already")
	}
	m.watched, m.wake = map[string]*pidfd{}, wake
	for id, k := range m.known {
		m.follow(id, k.pid)
	}
	m.mu.Unlock()

	<-ctx.Done()

	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.watched {
		p.close()
	}
	m.watched = nil
	return nil
}

// follow waits for the end of a conmon in its own goroutine. The lock is held.
func (m *monitors) follow(id string, pid int) {
	if p := m.watched[id]; p != nil {
		if p.pid == pid {
			return
		}
		p.close()
	}
	p, err := openPidfd(pid)
	if err != nil {
		// It ended just now. The next look at the container shows that.
		m.log.Debug("container's monitor is gone", "container", id, "err", err)
		go m.wake()
		return
	}
	m.watched[id] = p
	go func(wake func()) {
		ended := p.wait()
		m.mu.Lock()
		if m.watched[id] == p {
			delete(m.watched, id)
		}
		m.mu.Unlock()
		p.close()
		if ended {
			wake()
		}
	}(m.wake)
}

// pidfd is a handle of a process that cannot come to mean another one.
type pidfd struct {
	pid  int
	file *os.File
}

func openPidfd(pid int) (*pidfd, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &pidfd{pid, os.NewFile(uintptr(fd), "pidfd")}, nil
}

// wait returns when the process has ended (true) or the handle was closed. It
// holds no thread: the Go poller watches the handle.
func (p *pidfd) wait() bool {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return false
	}
	ended := false
	err = raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(poll, 0) // an error is no end: the poller calls again
		ended = n > 0
		return ended
	})
	return err == nil && ended
}

// close ends a wait. Closing twice is harmless.
func (p *pidfd) close() { _ = p.file.Close() }

// isMonitor tells whether a process is the living conmon of a container: its
// arguments name the container, so a pid that was used again is not believed.
// The arguments of a zombie are empty.
func isMonitor(pid int, container string) bool {
	if pid <= 0 {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	args := bytes.Split(text, []byte{0})
	if filepath.Base(string(args[0])) != "conmon" {
		return false
	}
	for _, a := range args[1:] {
		if string(a) == container {
			return true
		}
	}
	return false
}
