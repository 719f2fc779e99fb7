package podman

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/containers/podman/v5/pkg/api/handlers"
	"github.com/containers/podman/v5/pkg/bindings/containers"

	"uncloud/agent/internal/runtime"
)

// Exit codes that a shell, too, gives for a command that cannot be run.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// Exec implements runtime.Engine.
func (e *Engine) Exec(ctx context.Context, id string, r runtime.ExecRequest) (int, error) {
	call, err := e.call(ctx)
	if err != nil {
		return 0, err
	}
	session, err := containers.ExecCreate(call, id, execConfig(r))
	if err != nil {
		return 0, e.explain("exec", err)
	}
	ended := false
	defer func() {
		if ended {
			e.endExec(ctx, session, false)
			return
		}
		go e.endExec(ctx, session, true) // takes as long as the command resists
	}()

	conn, err := e.startExec(ctx, session, r)
	if code, ok := cannotRun(err); ok {
		fmt.Fprintln(orDiscard(r.Stderr), err)
		return code, nil
	}
	if err != nil {
		return 0, e.explain("exec", err)
	}
	if err := e.attach(ctx, session, conn, r); err != nil {
		return 0, e.explain("exec", err)
	}
	state, err := containers.ExecInspect(call, session, nil)
	if err != nil {
		return 0, e.explain("exec", err)
	}
	ended = true
	return state.ExitCode, nil
}

func execConfig(r runtime.ExecRequest) *handlers.ExecCreateConfig {
	c := &handlers.ExecCreateConfig{}
	c.Cmd, c.User, c.Tty = r.Command, r.User, r.TTY
	c.AttachStdin, c.AttachStdout, c.AttachStderr = r.Stdin != nil, true, true
	for k, v := range r.Env {
		c.Env = append(c.Env, k+"="+v)
	}
	return c
}

// startExec starts a session; the connection then belongs to its streams.
func (e *Engine) startExec(ctx context.Context, session string, r runtime.ExecRequest) (io.ReadWriteCloser, error) {
	body, err := json.Marshal(map[string]any{
		"Detach": false, "Tty": r.TTY, "h": r.Size.Rows, "w": r.Size.Columns,
	})
	if err != nil {
		return nil, err
	}
	header := http.Header{
		"Content-Type": {"application/json"}, "Connection": {"Upgrade"}, "Upgrade": {"tcp"},
	}
	res, err := e.stream(ctx, http.MethodPost, "/exec/"+session+"/start", nil, header, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	conn, ok := res.Body.(io.ReadWriteCloser)
	if res.StatusCode != http.StatusSwitchingProtocols || !ok {
		res.Body.Close()
		return nil, fmt.Errorf("podman answered %s to an exec", res.Status)
	}
	return conn, nil
}

// attach carries the streams until the command has ended.
func (e *Engine) attach(ctx context.Context, session string, conn io.ReadWriteCloser, r runtime.ExecRequest) error {
	defer conn.Close()
	over, cancel := context.WithCancel(ctx)
	defer cancel()
	// Reads of an upgraded connection know no context.
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	if r.Stdin != nil {
		go sendInput(conn, r.Stdin)
	}
	if r.TTY && r.Resize != nil {
		go e.resize(over, session, r.Resize)
	}
	err := receive(conn, r)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// sendInput copies input until its end, or until the connection is closed.
func sendInput(conn io.Writer, input io.Reader) {
	if _, err := io.Copy(conn, input); err != nil {
		return // the command ended, or its client went away: nobody is left to tell
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // as above
	}
}

func (e *Engine) resize(ctx context.Context, session string, sizes <-chan runtime.TerminalSize) {
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-sizes:
			if !ok {
				return
			}
			call, err := e.call(ctx)
			if err != nil {
				return
			}
			rows, columns := int(s.Rows), int(s.Columns)
			err = containers.ResizeExecTTY(call, session, &containers.ResizeExecTTYOptions{Height: &rows, Width: &columns})
			if err != nil {
				e.log.Debug("resize terminal", "err", err) // a wrong size is no reason to end the session
			}
		}
	}
}

// receive copies output until the command has ended.
func receive(conn io.Reader, r runtime.ExecRequest) error {
	stdout, stderr := orDiscard(r.Stdout), orDiscard(r.Stderr)
	if r.TTY { // a terminal has one stream, and no frames
		_, err := io.Copy(stdout, conn)
		return err
	}
	for {
		stream, content, err := readFrame(conn)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		out := stdout
		if stream == streamStderr {
			out = stderr
		}
		if _, err := out.Write(content); err != nil {
			return err
		}
	}
}

// endExec forgets a session. With kill, its command may still run: nothing
// else in Podman's API ends one.
func (e *Engine) endExec(ctx context.Context, session string, kill bool) {
	const patience = time.Minute
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	call, err := e.call(ctx)
	if err != nil {
		return
	}
	if err := containers.ExecRemove(call, session, &containers.ExecRemoveOptions{Force: &kill}); err != nil {
		e.log.Debug("remove exec session", "err", err) // it goes with its container
	}
}

// cannotRun tells the exit code of a command that could not be started.
func cannotRun(err error) (int, bool) {
	if err == nil {
		return 0, false
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "executable file"), strings.Contains(text, "no such file or directory"):
		return exitNotFound, true
	case strings.Contains(text, "ermission denied"):
		return exitNotExecutable, true
	}
	return 0, false
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
