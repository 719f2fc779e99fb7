package connect

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// endGrace is how long a program that closed its output may take to end.
const endGrace = 2 * time.Second

// stdioConn is a connection over the standard input and output of a program.
type stdioConn struct {
	in      *os.File // our end of its input
	out     *os.File // our end of its output
	said    *os.File // its standard error: a nameless file
	process *os.Process
	ended   chan struct{}
	status  int // valid after ended
	explain func(status int, said string) error
	closing sync.Once
}

// startStdio starts the program in a process group of its own, so that Ctrl-C
// reaches the command and not its connection. What the program says on its
// standard error goes to a file and not to a pipe: ssh leaves a master behind
// that holds it open, and a pipe would be read for ever.
func startStdio(cmd *exec.Cmd, explain func(int, string) error) (net.Conn, error) {
	c := &stdioConn{ended: make(chan struct{}), explain: explain}
	theirIn, theirOut, err := c.files()
	defer closeAll(theirIn, theirOut)
	if err != nil {
		closeAll(c.in, c.out, c.said)
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirIn, theirOut, c.said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		closeAll(c.in, c.out, c.said)
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	c.process = cmd.Process
	go func() {
		defer close(c.ended)
		_ = cmd.Wait() // the status is all that is asked for
		c.status = cmd.ProcessState.ExitCode()
	}()
	return c, nil
}

func (c *stdioConn) files() (theirIn, theirOut *os.File, err error) {
	if theirIn, c.in, err = os.Pipe(); err != nil {
		return theirIn, theirOut, err
	}
	if c.out, theirOut, err = os.Pipe(); err != nil {
		return theirIn, theirOut, err
	}
	if c.said, err = os.CreateTemp("", "uc-ssh-"); err != nil {
		return theirIn, theirOut, err
	}
	return theirIn, theirOut, os.Remove(c.said.Name())
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

func (c *stdioConn) Read(b []byte) (int, error) {
	n, err := c.out.Read(b)
	return n, c.reason(err)
}

func (c *stdioConn) Write(b []byte) (int, error) {
	n, err := c.in.Write(b)
	return n, c.reason(err)
}

// reason is why the program ended, for the error that this end noticed it by.
func (c *stdioConn) reason(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	select {
	case <-c.ended:
	case <-time.After(endGrace):
		return err
	}
	said, readErr := io.ReadAll(io.NewSectionReader(c.said, 0, 64<<10))
	if readErr != nil {
		return err
	}
	return c.explain(c.status, string(said))
}

// Close ends the program: closing its input asks, and the kill makes sure.
func (c *stdioConn) Close() error {
	c.closing.Do(func() {
		closeAll(c.in, c.out)
		go func() {
			select {
			case <-c.ended:
			case <-time.After(endGrace):
				_ = c.process.Kill() // it may have ended this moment
			}
			c.said.Close()
		}()
	})
	return nil
}

func (c *stdioConn) LocalAddr() net.Addr                { return stdioAddr{} }
func (c *stdioConn) RemoteAddr() net.Addr               { return stdioAddr{} }
func (c *stdioConn) SetReadDeadline(t time.Time) error  { return c.out.SetReadDeadline(t) }
func (c *stdioConn) SetWriteDeadline(t time.Time) error { return c.in.SetWriteDeadline(t) }

func (c *stdioConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

type stdioAddr struct{}

func (stdioAddr) Network() string { return "stdio" }
func (stdioAddr) String() string  { return "stdio" }
