package command

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
	"uncloud/internal/faults"
)

// shell is what runs where no command is given: bash where the image has it.
var shell = []string{"sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi"}

type exec struct {
	*app
	replica, user string
	env           []string
	machine       string
	noTTY         bool
}

type execStream = connect.BidiStreamForClient[uncloudv1.ExecRequest, uncloudv1.ExecResponse]

func newExec(a *app) *cobra.Command {
	e := &exec{app: a}
	cmd := &cobra.Command{
		Use: "exec [flags] SERVICE|REPLICA [--] [COMMAND...]", Short: "Run a command in a container of a service",
		Long: "Run a command in a container of a service: in a healthy replica, unless one is named. Without a command:\n" +
			"a shell. Standard input is passed on; the exit code is the command's.",
		Example: "  uc exec web\n  uc exec db -- pg_dump app > app.sql\n  uc exec --replica web-x7f2 web cat /etc/hostname",
		Args:    atLeast(1), RunE: e.run, ValidArgsFunction: a.completeServices,
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().SetInterspersed(false) // flags after the service are the command's
	cmd.Flags().StringVar(&e.replica, "replica", "", "replica to run in, by `name` or id")
	cmd.Flags().StringVarP(&e.user, "user", "u", "", "`user` to run as")
	cmd.Flags().StringArrayVarP(&e.env, "env", "e", nil, "environment variable as `NAME=value`; repeat for several")
	cmd.Flags().BoolVarP(&e.noTTY, "no-tty", "T", false, "no terminal, even where input and output are one")
	a.addMachine(cmd, &e.machine, "only replicas on this machine (`name` or id)")
	return cmd
}

func (e *exec) run(cmd *cobra.Command, args []string) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	start, err := e.start(args[1:])
	if err != nil {
		return err
	}
	replica, err := e.choose(ctx, args[0])
	if err != nil {
		return err
	}
	start.Replica = replica.GetId()
	if start.GetTty() {
		restore, err := e.rawTerminal(start)
		if err != nil {
			return err
		}
		defer restore()
	}
	return e.talk(ctx, e.client.Machine(replica.GetMachineId()).Exec(ctx), start)
}

func (e *exec) start(command []string) (*uncloudv1.ExecStart, error) {
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		command = shell
	}
	start := &uncloudv1.ExecStart{Command: command, User: e.user, Stdin: true, Env: map[string]string{}}
	for _, pair := range e.env {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, usage("%q is no environment variable", pair).hint("write -e NAME=value")
		}
		start.Env[name] = value
	}
	// A terminal on the far side would change what is written to a file here.
	start.Tty = !e.noTTY && term.IsTerminal(int(e.Stdin.Fd())) && e.ui.Out.Terminal()
	if name := e.Getenv("TERM"); start.GetTty() && name != "" && start.GetEnv()["TERM"] == "" {
		start.Env["TERM"] = name
	}
	return start, nil
}

// choose is the replica to run in: the one that is named, or the first by
// name among the healthy, then among those that run.
func (e *exec) choose(ctx context.Context, name string) (*uncloudv1.Replica, error) {
	replicas, err := e.replicas(ctx, []string{name})
	if err != nil {
		return nil, err
	}
	replicas = slices.DeleteFunc(replicas, func(r *uncloudv1.Replica) bool { return !e.allowed(r) })
	if len(replicas) == 0 {
		return nil, faults.New(faults.NotFound, "%s has no such replica", name).WithHint("uc ps %s", name)
	}
	running := slices.DeleteFunc(slices.Clone(replicas), func(r *uncloudv1.Replica) bool { return r.GetState() != "running" })
	if len(running) == 0 {
		return nil, faults.New(faults.NotFound, "no replica of %s runs: %s is %s", name, replicas[0].GetName(), replicas[0].GetState()).
			WithHint("see why: uc logs %s", name)
	}
	return slices.MinFunc(running, func(a, b *uncloudv1.Replica) int {
		if d := sickness(a) - sickness(b); d != 0 {
			return d
		}
		return strings.Compare(a.GetName(), b.GetName())
	}), nil
}

func (e *exec) allowed(r *uncloudv1.Replica) bool {
	fits := e.replica == "" || r.GetName() == e.replica || r.GetId() == e.replica
	return fits && (e.machine == "" || r.GetMachine() == e.machine || r.GetMachineId() == e.machine)
}

func sickness(r *uncloudv1.Replica) int {
	switch {
	case r.GetWanted() == "draining":
		return 2
	case r.GetHealth() == "healthy" || r.GetHealth() == "none" || r.GetHealth() == "":
		return 0
	}
	return 1
}

// rawTerminal hands every key to the far side, and is how to undo that.
func (e *exec) rawTerminal(start *uncloudv1.ExecStart) (restore func(), err error) {
	fd := int(e.Stdin.Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, faults.New(faults.Internal, "set the terminal: %w", err).WithHint("go without one: uc exec -T")
	}
	start.Size = terminalSize(fd)
	return func() { _ = term.Restore(fd, before) }, nil // the process ends next
}

func terminalSize(fd int) *uncloudv1.TerminalSize {
	columns, rows, err := term.GetSize(fd)
	if err != nil {
		return nil
	}
	return &uncloudv1.TerminalSize{Rows: uint32(rows), Columns: uint32(columns)}
}

// talk passes both directions on until the command ended.
func (e *exec) talk(ctx context.Context, stream *execStream, start *uncloudv1.ExecStart) error {
	defer stream.CloseResponse()
	sender := &execSender{stream: stream}
	// What a send fails with is told better by the receiving side.
	_ = sender.send(&uncloudv1.ExecRequest{Start: start})
	go sender.input(e.Stdin)
	if start.GetTty() {
		go sender.resizes(ctx, int(e.Stdin.Fd()))
	}
	return e.output(ctx, stream)
}

func (e *exec) output(ctx context.Context, stream *execStream) error {
	for {
		message, err := stream.Receive()
		switch {
		case ctx.Err() != nil:
			return faults.New(faults.Interrupted, "interrupted").Because(ctx.Err())
		case errors.Is(err, io.EOF):
			return faults.New(faults.Unreachable, "the connection ended before the command did").
				WithHint("the machine ends the command; see whether the replica still runs: uc ps")
		case err != nil:
			return err
		}
		if err := e.write(message); err != nil {
			return err
		}
		if message.GetExited() {
			if code := message.GetExitCode(); code != 0 {
				return exitStatus(code)
			}
			return nil
		}
	}
}

// write ends the command where nobody reads its output any more.
func (e *exec) write(message *uncloudv1.ExecResponse) error {
	for _, part := range []struct {
		to   render.Stream
		data []byte
	}{{e.ui.Out, message.GetStdout()}, {e.ui.Err, message.GetStderr()}} {
		if len(part.data) == 0 {
			continue
		}
		if _, err := part.to.Write(part.data); err != nil {
			return faults.New(faults.Interrupted, "write output: %w", err)
		}
	}
	return nil
}

// execSender sends for the two that have something to say: a stream takes one
// message at a time.
type execSender struct {
	mu     sync.Mutex
	stream *execStream
}

func (s *execSender) send(m *uncloudv1.ExecRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(m)
}

func (s *execSender) input(from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && s.send(&uncloudv1.ExecRequest{Stdin: slices.Clone(buffer[:n])}) != nil {
			return
		}
		if err != nil {
			_ = s.send(&uncloudv1.ExecRequest{StdinClosed: true}) // a command that ended needs no word of it
			return
		}
	}
}

func (s *execSender) resizes(ctx context.Context, fd int) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			if size := terminalSize(fd); size == nil || s.send(&uncloudv1.ExecRequest{Resize: size}) != nil {
				return
			}
		}
	}
}
