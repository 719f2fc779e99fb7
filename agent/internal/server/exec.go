package server

import (
	"context"
	"errors"
	"io"
	"sync"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

type execStream = connect.BidiStream[uncloudv1.ExecRequest, uncloudv1.ExecResponse]

// Exec runs a command in a replica's container. The last message carries the
// exit code; a client that goes away ends the command's streams.
func (s machineService) Exec(ctx context.Context, stream *execStream) error {
	m, err := s.host.Member()
	if err != nil {
		return err
	}
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil || len(start.GetCommand()) == 0 {
		return faults.New(faults.Invalid, "the first message of an exec must name a replica and a command").WithHint(otherVersion)
	}
	r, err := findReplica(m.State(), start.GetReplica())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := &execOutput{stream: stream}
	streams := ExecStreams{Stdout: out.pipe(false), Stderr: out.pipe(true)}
	streams.Stdin, streams.Resize = receiveInput(ctx, stream, start.GetStdin())
	code, err := m.Engine.Exec(ctx, r.ID, ExecOptions{
		Command: start.GetCommand(), User: start.GetUser(), Env: start.GetEnv(), TTY: start.GetTty(), Size: size(start.GetSize()),
	}, streams)
	if err != nil {
		return err
	}
	return out.send(&uncloudv1.ExecResponse{Exited: true, ExitCode: int32(code)}) //nolint:gosec // 0-255
}

func size(m *uncloudv1.TerminalSize) TerminalSize {
	return TerminalSize{Rows: uint16(min(m.GetRows(), 1<<15)), Columns: uint16(min(m.GetColumns(), 1<<15))} //nolint:gosec // bounded
}

// receiveInput turns the client's messages into a reader and resizes. It ends
// with the stream or the context.
func receiveInput(ctx context.Context, stream *execStream, wantStdin bool) (io.Reader, <-chan TerminalSize) {
	resize := make(chan TerminalSize, 1)
	pr, pw := io.Pipe()
	context.AfterFunc(ctx, func() { pw.CloseWithError(ctx.Err()) })
	go func() {
		for {
			msg, err := stream.Receive()
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = io.EOF
				}
				pw.CloseWithError(err)
				return
			}
			if sz := msg.GetResize(); sz != nil {
				offer(resize, size(sz))
			}
			if len(msg.GetStdin()) > 0 && wantStdin {
				if _, err := pw.Write(msg.GetStdin()); err != nil {
					return
				}
			}
			if msg.GetStdinClosed() {
				pw.Close() //nolint:errcheck,gosec // never fails
			}
		}
	}()
	if !wantStdin {
		return nil, resize
	}
	return pr, resize
}

// offer puts the newest size in a channel of one, in place of an older one.
func offer(c chan TerminalSize, sz TerminalSize) {
	select {
	case <-c:
	default:
	}
	c <- sz
}

// execOutput sends both outputs on one stream.
type execOutput struct {
	mu     sync.Mutex
	stream *execStream
}

func (o *execOutput) send(m *uncloudv1.ExecResponse) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stream.Send(m)
}

func (o *execOutput) pipe(stderr bool) io.Writer { return execPipe{o, stderr} }

type execPipe struct {
	out    *execOutput
	stderr bool
}

func (p execPipe) Write(b []byte) (int, error) {
	m := &uncloudv1.ExecResponse{Stdout: b}
	if p.stderr {
		m = &uncloudv1.ExecResponse{Stderr: b}
	}
	if err := p.out.send(m); err != nil {
		return 0, err
	}
	return len(b), nil
}
