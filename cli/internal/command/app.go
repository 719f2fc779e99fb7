package command

import (
	"context"
	"errors"
	"os"
	"time"

	"uncloud/cli/internal/connect"
	"uncloud/cli/internal/render"
	"uncloud/internal/faults"
)

// Process is what surrounds a command: tests put their own in its place.
type Process struct {
	Args    []string // without the program's name
	Stdin   *os.File
	Stdout  *os.File
	Stderr  *os.File
	Getenv  func(string) string
	Environ func() []string
	Now     func() time.Time
	Version string
}

// ExitInterrupted is the exit code after Ctrl-C, as shells have it.
const ExitInterrupted = 130

// Other exit codes.
const (
	exitFault = 1
	exitUsage = 2
)

// app is what all verbs share: the process, how it looks, and the connection,
// which is made when a verb first asks for it.
type app struct {
	Process
	ui     *render.UI
	choice connect.Choice
	client *connect.Client
}

// Main runs one command line and is its exit code. Ending ctx is Ctrl-C.
func Main(ctx context.Context, p Process) int {
	a := &app{Process: p, ui: render.New(p.Stdout, p.Stderr, p.Getenv, p.Now)}
	defer a.close()
	root := newRoot(a)
	root.SetArgs(p.Args)
	return a.exitCode(ctx, root.ExecuteContext(ctx))
}

func (a *app) exitCode(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitStatus](err); ok {
		return int(code)
	}
	a.ui.Fail(err)
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if ctx.Err() != nil {
		return ExitInterrupted
	}
	return exitFault
}

// exitStatus ends the process with the code of a command that ran elsewhere,
// which has said what there is to say.
type exitStatus int

func (exitStatus) Error() string { return "the command ended with another code than 0" }

// usageError is a fault of the command line itself.
type usageError struct{ *faults.Fault }

func (e *usageError) Unwrap() error { return e.Fault }

func usage(format string, args ...any) *usageError {
	return &usageError{faults.New(faults.Invalid, format, args...)}
}

func (e *usageError) hint(format string, args ...any) *usageError {
	return &usageError{e.WithHint(format, args...)}
}

// connect is the API of the connected machine.
func (a *app) connect(ctx context.Context) (*connect.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	targets, err := a.choice.Targets()
	if err != nil {
		return nil, err
	}
	a.client, err = connect.Open(ctx, targets)
	return a.client, err
}

func (a *app) close() {
	if a.client != nil {
		a.client.Close()
	}
}
