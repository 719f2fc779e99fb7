package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Machine is one machine of a lab, running or not. It is a name, not a
// resource: any number of handles on one machine may be used at once.
type Machine struct {
	Name string
	lab  *Lab
	n    int
}

const (
	outsideName   = "outside"
	outsideNumber = 254

	bootTimeout     = 60 * time.Second
	shutdownTimeout = 30 * time.Second
)

// Address is the machine's own address on the underlay: 192.0.2.N.
func (m *Machine) Address() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(m.n)}) }

// Disk is where the host keeps what the machine wrote. "up" below it is the
// difference to the shared root tree, "containers" is /var/lib/containers.
func (m *Machine) Disk() string { return filepath.Join(m.lab.dir, m.Name) }

// Running tells whether the machine has power.
func (m *Machine) Running() bool {
	_, err := m.process()
	return err == nil
}

// create gives the machine a new disk and boots it.
func (m *Machine) create(ctx context.Context) error {
	if err := m.format(); err != nil {
		return fmt.Errorf("make disk of %s: %w", m.Name, err)
	}
	return m.boot(ctx)
}

// format writes a disk: what makes this machine differ from the shared tree,
// and the product, installed as its package would.
func (m *Machine) format() error {
	for _, dir := range []string{"up", "work", "root", "containers"} {
		if err := os.MkdirAll(filepath.Join(m.Disk(), dir), 0o755); err != nil {
			return err
		}
	}
	id := make([]byte, 16)
	rand.Read(id)
	files := map[string]string{
		"etc/hostname":   m.Name + "\n",
		"etc/hosts":      "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 " + m.Name + "\n",
		"etc/machine-id": hex.EncodeToString(id) + "\n",
	}
	if err := m.writeFiles(files, 0o644); err != nil {
		return err
	}
	if m.n == outsideNumber {
		return m.installKey()
	}
	return errors.Join(m.installKey(), m.install())
}

// writeFiles puts files on the disk of a machine that has not booted yet.
func (m *Machine) writeFiles(files map[string]string, mode os.FileMode) error {
	for path, content := range files {
		path = filepath.Join(m.Disk(), "up", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			return err
		}
	}
	return nil
}

// Start boots a machine from its disk and waits until systemd has finished.
func (m *Machine) Start(ctx context.Context) error {
	if _, err := os.Stat(m.Disk()); err != nil {
		return fmt.Errorf("%s has no disk: %w", m.Name, err)
	}
	if m.Running() {
		return nil
	}
	if err := m.lab.makeUnderlay(ctx); err != nil {
		return err
	}
	return m.boot(ctx)
}

// Kill cuts the power: everything in the machine dies at once, its network
// card goes, its disk stays. No error when it was off.
func (m *Machine) Kill(ctx context.Context) error {
	if p, err := m.process(); err == nil {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
		if err := p.await(ctx, shutdownTimeout); err != nil {
			return fmt.Errorf("kill %s: %w", m.Name, err)
		}
	}
	return m.sweep(ctx)
}

// Stop shuts the machine down in order, as its power button would.
func (m *Machine) Stop(ctx context.Context) error {
	p, err := m.process()
	if err != nil {
		return m.sweep(ctx)
	}
	const poweroff = syscall.Signal(34 + 4) // SIGRTMIN+4, see systemd(1)
	_ = syscall.Kill(p.pid, poweroff)
	if err := p.await(ctx, shutdownTimeout); err != nil {
		m.lab.log.Warn("orderly shutdown takes too long, cutting the power", "machine", m.Name, "err", err)
	}
	return m.Kill(ctx)
}

// Reboot shuts the machine down in order and boots it again.
func (m *Machine) Reboot(ctx context.Context) error {
	if err := m.Stop(ctx); err != nil {
		return err
	}
	return m.Start(ctx)
}

// sweep removes what a dead machine left on the host, but not its disk.
func (m *Machine) sweep(ctx context.Context) error {
	_ = os.Remove(m.pidFile())
	return errors.Join(removeCgroup(m.cgroup()), m.unplug(ctx))
}

func (m *Machine) destroy(ctx context.Context) error {
	return errors.Join(m.Kill(ctx), os.RemoveAll(m.Disk()))
}

// Console is what the machine's PID 1 has said.
func (m *Machine) Console() string {
	b, _ := os.ReadFile(filepath.Join(m.Disk(), "console"))
	return string(b)
}

// awaitBooted waits until systemd has done all that booting means.
func (m *Machine) awaitBooted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	for {
		var out, errs bytes.Buffer
		cmd := m.Command(ctx, "systemctl", "is-system-running", "--wait")
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		switch state := strings.TrimSpace(out.String()); {
		case state == "running":
			return nil
		case state == "degraded":
			failed, _ := m.Output(ctx, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
			m.lab.log.Warn("a unit failed at boot", "machine", m.Name, "units", strings.TrimSpace(failed))
			return nil
		case !m.Running():
			return fmt.Errorf("%s died while booting: %w; its console ends with:\n%s", m.Name, err, lastLines(m.Console(), 10))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not finish booting: %s%s (%w); its console ends with:\n%s", m.Name, &out, &errs, err, lastLines(m.Console(), 10))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Path is a path of the running machine as the host can open it, sockets too.
// Absolute symbolic links on the way would lead to the host's own files.
func (m *Machine) Path(path string) (string, error) {
	p, err := m.process()
	return fmt.Sprintf("/proc/%d/root%s", p.pid, path), err
}
