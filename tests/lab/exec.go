package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cmd is a command in a machine. Its fields and methods are those of
// exec.Cmd, but it starts inside. The child is the command itself: its exit
// code and the signals sent to it pass unchanged.
type Cmd struct {
	*exec.Cmd
	machine *Machine // nil: on the host
}

// Command prepares a command in the machine: as root, in /root, with HOME,
// PATH and TERM set, found by the machine's own PATH.
func (m *Machine) Command(ctx context.Context, argv ...string) *Cmd {
	// nsenter(1) enters what the parent cannot, and becomes the command.
	cmd := exec.CommandContext(ctx, "/usr/bin/nsenter", append([]string{"--cgroup=/proc/1/ns/cgroup", "--"}, argv...)...)
	term := os.Getenv("TERM")
	if term == "" {
		term = "dumb"
	}
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=" + term,
	}
	cmd.Dir = "/root"
	return &Cmd{Cmd: cmd, machine: m}
}

// Start begins the command in the machine.
func (c *Cmd) Start() error {
	if c.machine == nil {
		return c.Cmd.Start()
	}
	return c.machine.start(c.Cmd)
}

// Run begins the command and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Result is what a finished command left.
type Result struct {
	Stdout, Stderr string
	Code           int // exit code, or 128 + signal
}

// Exec runs a command to its end. A non-zero exit is no error: see Result.Code.
func (m *Machine) Exec(ctx context.Context, argv ...string) (Result, error) {
	var out, errs bytes.Buffer
	cmd := m.Command(ctx, argv...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r := Result{Stdout: out.String(), Stderr: errs.String()}
	if _, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		r.Code = ExitCode(err)
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("on %s: %s: %w", m.Name, strings.Join(argv, " "), err)
	}
	return r, nil
}

// Output runs a command that must succeed and gives its standard output.
func (m *Machine) Output(ctx context.Context, argv ...string) (string, error) {
	r, err := m.Exec(ctx, argv...)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("on %s: %s: exit code %d: %s", m.Name, strings.Join(argv, " "), r.Code, lastLines(r.Stderr+r.Stdout, 20))
	}
	return r.Stdout, err
}

// Shell runs a script that must succeed and gives its standard output.
func (m *Machine) Shell(ctx context.Context, script string) (string, error) {
	return m.Output(ctx, "bash", "-euo", "pipefail", "-c", script)
}

// ExitCode is the exit code that err, of Cmd.Run or Wait, stands for: 128 +
// signal for a command that a signal ended, 125 for one that never ran.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return 125
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

// WriteFile puts content into a file of the machine, and makes its directory.
func (m *Machine) WriteFile(ctx context.Context, path, content string) error {
	cmd := m.Command(ctx, "sh", "-c", `mkdir -p "$(dirname "$1")" && cat > "$1"`, "sh", path)
	cmd.Stdin = strings.NewReader(content)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("on %s: write %s: %w: %s", m.Name, path, err, strings.TrimSpace(errs.String()))
	}
	return nil
}

// Dial connects from the machine's network to an address that needs no name lookup.
func (m *Machine) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = m.inNetwork(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// ListenPacket listens in the machine's network.
func (m *Machine) ListenPacket(ctx context.Context, network, address string) (conn net.PacketConn, err error) {
	err = m.inNetwork(func() error {
		conn, err = (&net.ListenConfig{}).ListenPacket(ctx, network, address)
		return err
	})
	return conn, err
}

// inNetwork opens a socket in the machine's network, where it stays.
func (m *Machine) inNetwork(open func() error) error {
	p, err := m.process()
	if err != nil {
		return err
	}
	return onLostThread(func() error {
		fd, err := unix.PidfdOpen(p.pid, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network of %s: %w", m.Name, err)
		}
		return open()
	})
}

// HTTP is a client in the machine's network. It asks anew each time: no
// connection is kept, and no redirect is followed.
func (m *Machine) HTTP() *http.Client {
	return &http.Client{
		Timeout:       5 * time.Second,
		Transport:     &http.Transport{DialContext: m.Dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Get asks an ingress or any HTTP server at address (host:port) for a path of
// a host name, and gives the body of a 200 answer.
func (m *Machine) Get(ctx context.Context, address, host, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return "", err
	}
	request.Host = host
	response, err := m.HTTP().Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s of %s at %s: %s: %s", path, host, address, response.Status, lastLines(string(body), 3))
	}
	return string(body), err
}

// awaitFile waits until a path exists in the machine.
func (m *Machine) awaitFile(ctx context.Context, path string) error {
	deadline := time.Now().Add(bootTimeout)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		p, err := m.process()
		if err != nil {
			return fmt.Errorf("%w; its console ends with:\n%s", err, lastLines(m.Console(), 10))
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", p.pid, path)); err == nil {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("%s has no %s yet", m.Name, path)
}
