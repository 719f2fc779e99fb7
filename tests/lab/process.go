package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is PID 1 of a machine, as the host sees it. Its start time keeps a
// process id that was used again from being taken for it.
type process struct {
	pid     int
	started string // clock ticks since the host booted
}

func (m *Machine) pidFile() string { return filepath.Join(m.Disk(), "pid") }

// process finds the machine's PID 1 if it lives.
func (m *Machine) process() (process, error) {
	b, err := os.ReadFile(m.pidFile())
	if err != nil {
		return process{}, fmt.Errorf("%s is off; start it: ./dev lab start %s", m.Name, m.Name)
	}
	var p process
	var boot string
	if _, err := fmt.Sscan(string(b), &p.pid, &p.started, &boot); err != nil {
		return process{}, fmt.Errorf("read %s: %w", m.pidFile(), err)
	}
	if boot != bootID() || startTime(p.pid) != p.started {
		return process{}, fmt.Errorf("%s is off; start it: ./dev lab start %s", m.Name, m.Name)
	}
	return p, nil
}

func (m *Machine) remember(pid int) error {
	text := fmt.Sprintln(pid, startTime(pid), bootID())
	return os.WriteFile(m.pidFile(), []byte(text), 0o644)
}

// await returns when the process is gone, or with an error after limit.
func (p process) await(ctx context.Context, limit time.Duration) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil || startTime(p.pid) != p.started {
		return nil
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if n > 0 && err == nil {
			return nil
		}
	}
	return fmt.Errorf("process %d still lives after %s", p.pid, limit)
}

// startTime is field 22 of /proc/PID/stat; empty for a process that is gone or
// a zombie. The fields are counted after the name, which may hold anything.
func startTime(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
