package firewall

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"sync/atomic"
	"time"

	"uncloud/internal/faults"
)

// Options are what a Firewall needs to know of its surroundings.
type Options struct {
	Nft string // the program; empty means "nft" of the PATH
	Log *slog.Logger
}

// Firewall keeps the compiled policy in the kernel. Run does the work; Apply
// and Remove hand it over and wait.
type Firewall struct {
	nft      string
	log      *slog.Logger
	requests chan request
	running  atomic.Bool
	status   atomic.Pointer[Status]
}

// Status is what is in the kernel now.
type Status struct {
	Hash string // of the loaded Ruleset; empty: nothing is loaded
	Can  Capabilities
}

type request struct {
	want *Ruleset // nil: remove the table
	done chan error
}

// applyTimeout bounds one transaction: nft takes milliseconds, so one that
// takes longer hangs, and gets a new child.
const applyTimeout = 20 * time.Second

// retryAfter is the pause between two attempts to put the rules back.
const retryAfter = 2 * time.Second

// New makes a Firewall that has not touched the machine yet.
func New(o Options) *Firewall {
	if o.Nft == "" {
		o.Nft = "nft"
	}
	return &Firewall{nft: o.Nft, log: o.Log, requests: make(chan request)}
}

// Run owns the table until ctx ends, and then leaves it in force: containers
// run on while an agent is replaced. It returns nil when ctx ends.
func (f *Firewall) Run(ctx context.Context) error {
	f.running.Store(true)
	defer f.running.Store(false)
	k := &keeper{nft: f.nft, log: f.log, report: func(s Status) { f.status.Store(&s) }}
	defer k.stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-f.requests:
			r.done <- k.set(ctx, r.want)
		case <-k.died():
			k.adopt(ctx)
		case <-k.removed():
			k.check(ctx)
		case <-k.retry:
			k.restore(ctx, "the process that owned them died, or the last attempt was refused")
		}
	}
}

// Apply makes policy the rules in force. It waits until Run has loaded them,
// and does nothing when they are loaded already. On an error the rules that
// were in force stay.
func (f *Firewall) Apply(ctx context.Context, policy Policy) error {
	r, err := Compile(policy)
	if err != nil {
		return err
	}
	if err := f.ask(ctx, &r); err != nil {
		return err
	}
	return allowLocalnet(policy.Bridge)
}

// Remove takes the table away. It works with and without Run: a table whose
// owner has gone belongs to nobody.
func (f *Firewall) Remove(ctx context.Context) error {
	if f.running.Load() {
		return f.ask(ctx, nil)
	}
	if err := f.installed(); err != nil {
		return err
	}
	tables, err := run(ctx, f.nft, "list", "tables", "inet")
	if err != nil || !hasTable(tables) {
		return err
	}
	_, err = run(ctx, f.nft, "delete", "table", "inet", Table)
	return err
}

// Status is what Run has loaded last.
func (f *Firewall) Status() Status {
	if s := f.status.Load(); s != nil {
		return *s
	}
	return Status{}
}

func (f *Firewall) ask(ctx context.Context, want *Ruleset) error {
	if err := f.installed(); err != nil {
		return err
	}
	r := request{want: want, done: make(chan error, 1)}
	select {
	case f.requests <- r:
	case <-ctx.Done():
		return fmt.Errorf("wait for the firewall: %w", ctx.Err())
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the firewall: %w", ctx.Err())
	}
}

func (f *Firewall) installed() error {
	if _, err := exec.LookPath(f.nft); err != nil {
		return faults.New(faults.Internal, "this machine has no nft, so its containers cannot be connected").
			WithHint("install the package nftables").Because(err)
	}
	return nil
}
