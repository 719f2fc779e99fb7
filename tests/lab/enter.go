package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

//go:embed boot.sh
var bootScript string

// dropped capabilities would let a machine harm its host: its clock, its
// kernel, its power. A machine is a test bed and no prison.
var dropped = []uintptr{unix.CAP_SYS_TIME, unix.CAP_SYS_MODULE, unix.CAP_SYS_BOOT, unix.CAP_SYS_RAWIO}

// boot makes the machine's network card, cgroup and namespaces, starts PID 1
// and waits until it has finished booting.
func (m *Machine) boot(ctx context.Context) error {
	if err := m.sweep(ctx); err != nil {
		return err
	}
	if err := m.plug(ctx); err != nil {
		return err
	}
	if err := m.makeCgroup(); err != nil {
		return err
	}
	if err := m.limitContainers(); err != nil {
		return err
	}
	if err := m.spawn(); err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	if err := os.MkdirAll(filepath.Join(m.cgroup(), execCgroup), 0o755); err != nil {
		return fmt.Errorf("boot %s: %w; its console ends with:\n%s", m.Name, err, lastLines(m.Console(), 10))
	}
	if err := m.awaitFile(ctx, "/run/lab-machine"); err != nil || m.n == outsideNumber {
		return err
	}
	return errors.Join(m.awaitFile(ctx, "/run/systemd/private"), m.awaitBooted(ctx))
}

// spawn starts what becomes the machine's PID 1 and leaves it alone: it lives
// on when this program ends.
func (m *Machine) spawn() error {
	console, err := os.OpenFile(filepath.Join(m.Disk(), "console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	init := []string{"/sbin/init", "--log-target=console", "--show-status=0"}
	if m.n == outsideNumber {
		init = []string{"/bin/sh", "-c", "while :; do sleep 3600; done"}
	}
	// The cgroup namespace is made last, by unshare(1): its root is the cgroup
	// that the caller is in, and clone(2) would take that of the parent.
	argv := append([]string{"unshare", "--cgroup", "sh", "-c", bootScript, "boot", m.lab.tree(), m.Disk(), m.lab.bin}, init...)
	cmd := exec.Command(argv[0], argv[1:]...) // it outlives this call, and this program
	cmd.Stdout, cmd.Stderr = console, console
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=lab"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if err := startIn(cmd, m.cgroup(), func() error { return joinNetwork(m.netns()) }); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // reaps it if it dies while this program lives
	return m.remember(cmd.Process.Pid)
}

// start begins cmd inside the running machine.
func (m *Machine) start(cmd *exec.Cmd) error {
	p, err := m.process()
	if err != nil {
		return err
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	return startIn(cmd, filepath.Join(m.cgroup(), execCgroup), p.join)
}

// startIn starts cmd from a thread that has gone where join leads, in a
// cgroup. The thread is never used again: the runtime ends it with its
// goroutine, because it is still locked.
func startIn(cmd *exec.Cmd, cgroup string, join func() error) error {
	dir, err := os.Open(cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	return onLostThread(func() error {
		if err := join(); err != nil {
			return err
		}
		for _, capability := range dropped {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d: %w", capability, err)
			}
		}
		return cmd.Start()
	})
}

// onLostThread runs f on an operating system thread of its own that ends with
// it. The first thread of a process cannot end: it would stay where f led it,
// and with it all that /proc/self tells. It is held while another is found.
func onLostThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onLostThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// join moves the calling thread, and what it starts, into the namespaces of p,
// all but that of cgroups.
func (p process) join() error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.pid, err)
	}
	defer unix.Close(fd)
	// Threads share root and working directory; a mount namespace cannot be entered so.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	// Not the cgroup namespace: where cgroup2 is mounted with nsdelegate, a
	// thread in it could not bring a child into it from outside. See Command.
	const most = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET
	if err := unix.Setns(fd, most); err != nil {
		return fmt.Errorf("enter namespaces of process %d: %w", p.pid, err)
	}
	return nil
}

func joinNetwork(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWNET)
}
