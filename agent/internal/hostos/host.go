package hostos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"
)

// Machine is the operating system of this machine. Every call may be repeated.
type Machine interface {
	Seen(ctx context.Context) (Seen, error)
	// Lock is a reference of a flake with what it is now in it, so that every
	// machine which builds it builds the same; empty where there is no such thing.
	Lock(ctx context.Context, flake string) (locked string, err error)
	// Stage builds or fetches a system, keeps it from the garbage collector,
	// and returns its store path. A system that the machine could not come back
	// from is refused.
	Stage(ctx context.Context, t Target) (system string, err error)
	// Release lets the garbage collector have what Stage kept.
	Release(ctx context.Context) error
	// Try runs a system now. It does not become the default. Where it is broken
	// off, anything between the two systems may run.
	Try(ctx context.Context, system string) error
	// MakeDefault makes a system what the machine boots, as this generation of
	// the profile, or as a new one for number 0, and where the boot loader no
	// longer has that one. What failed made is deleted before the boot loader is
	// told, which has room for few; it stays where the boot loader cannot be told,
	// which may boot it then.
	MakeDefault(ctx context.Context, g Generation, failed Made) error
	// Restart begins a restart and returns, or tells why there is none.
	Restart(ctx context.Context) error
}

// Options of a Host.
type Options struct {
	Dir     string // DefaultDir
	Machine Machine
	Log     *slog.Logger
	// RestartWithin bounds how long a restart that was begun may take to end
	// this process; 0 is five minutes.
	RestartWithin time.Duration
	// StageWithin bounds how long a system may take to be built or fetched; 0 is
	// twelve hours. A small machine that builds a kernel needs some of them, and
	// one whose download hangs would hold up all machines after it.
	StageWithin time.Duration
}

// Host carries attempts out. It is the one process that changes generations.
type Host struct {
	Options
	files desk
}

// desk is where agent and host process leave each other their papers.
type desk interface {
	attempt() (Attempt, error)
	saveAttempt(a Attempt) error
	saveOrder(o Order) error
	// orderOf is what is ordered of an attempt.
	orderOf(id string) (o Order, known bool, err error)
	// nextOrder is the one to be carried out next; the zero Order is none.
	nextOrder() (Order, error)
	removeOrder(id string) error
	// watch sends on wake at the beginning and after changes, until ctx ends.
	watch(ctx context.Context, wake chan<- struct{}) error
}

// New makes a Host.
func New(o Options) *Host {
	if o.RestartWithin == 0 {
		o.RestartWithin = 5 * time.Minute
	}
	if o.StageWithin == 0 {
		o.StageWithin = 12 * time.Hour
	}
	return &Host{Options: o, files: files{o.Dir}}
}

// errLater is returned by step when there is nothing to do before a wake.
var errLater = errors.New("later")

// safetyNet is how often an attempt that waits is looked at without a wake.
const safetyNet = 10 * time.Second

// Run carries out what is ordered, and returns nil when nothing is: the unit is
// started again with the next order. It goes on where a former process stopped.
func (h *Host) Run(ctx context.Context) error {
	var watcher sync.WaitGroup
	defer watcher.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wake := make(chan struct{}, 1)
	watching := make(chan error, 1)
	watcher.Go(func() { watching <- h.files.watch(ctx, wake) })
	for {
		idle, err := h.step(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && !idle {
			continue
		}
		if !errors.Is(err, errLater) {
			return err
		}
		timer := time.NewTimer(h.patience(ctx))
		select {
		case <-ctx.Done():
			return nil
		case err := <-watching:
			return err
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// patience is how long to wait for a wake: to the deadline, or the safety net.
func (h *Host) patience(ctx context.Context) time.Duration {
	a, err := h.files.attempt()
	if err != nil || a.Step != Watching {
		return safetyNet
	}
	s, err := h.Machine.Seen(ctx)
	if err != nil {
		return safetyNet
	}
	return max(min(a.Deadline-s.Uptime, safetyNet), 0)
}

// step does one thing. idle tells that nothing is ordered.
func (h *Host) step(ctx context.Context) (idle bool, err error) {
	a, o, err := h.load(ctx)
	if err != nil {
		return false, err
	}
	s, err := h.Machine.Seen(ctx)
	if err != nil {
		return false, fmt.Errorf("look at the machine: %w", err)
	}
	if a.ID == "" || a.Ended() {
		if o.ID == "" {
			return true, nil
		}
		a = Begin(o, s.Boot)
	}
	next, act := Next(a, o, s)
	if err := h.save(a, next); err != nil {
		return false, err
	}
	switch act {
	case Wait:
		return false, errLater
	case Nothing:
		return false, nil
	}
	return false, h.do(ctx, next, act)
}

// load is the attempt that is not finished, or an ended one with the order that
// comes next, if there is any.
func (h *Host) load(ctx context.Context) (Attempt, Order, error) {
	a, err := h.files.attempt()
	if err != nil {
		return a, Order{}, err
	}
	if a.Ended() {
		if a.ID != "" {
			if err := h.putAway(ctx, a); err != nil {
				return a, Order{}, err
			}
		}
		o, err := h.files.nextOrder()
		return a, o, err
	}
	o, err := h.wanted(a.ID)
	return a, o, err
}

// wanted is what is ordered of an attempt that is under way.
func (h *Host) wanted(id string) (Order, error) {
	o, known, err := h.files.orderOf(id)
	if err == nil && !known {
		// Somebody removed it. Nobody will confirm what nobody ordered.
		o = Order{ID: id, Want: WantStop, Reason: "its order was removed"}
	}
	return o, err
}

// putAway removes what an attempt that has ended needed. A system that could
// not be released takes room and no more, so nothing waits for it.
func (h *Host) putAway(ctx context.Context, a Attempt) error {
	if err := h.Machine.Release(ctx); err != nil {
		h.Log.Warn("the system of an attempt is kept from the garbage collector", "upgrade", a.ID, "err", err)
	}
	return h.files.removeOrder(a.ID)
}

// save makes the journal durable before what it says is done.
func (h *Host) save(old, next Attempt) error {
	if reflect.DeepEqual(old, next) && next.Step != Staging {
		return nil
	}
	if old.Step != next.Step {
		h.Log.Info("attempt goes on", "upgrade", next.ID, "step", next.Step, "reason", next.Error)
	}
	return h.files.saveAttempt(next)
}

func (h *Host) do(ctx context.Context, a Attempt, act Action) error {
	// What changes the machine is not broken off when the process is told to
	// end; the machine may be about to go down, and half a switch is worse.
	whole := context.WithoutCancel(ctx)
	var system string
	var err error
	switch act {
	case Stage:
		a, system, err = h.stage(ctx, a)
	case Try:
		err = h.try(whole, a)
	case MakeDefault:
		err = h.Machine.MakeDefault(whole, Generation{Number: a.Target.Generation, System: a.New}, Made{})
	case Return:
		err = h.giveBack(whole, a)
	case Restart:
		err = h.restart(ctx, a)
	}
	if ctx.Err() != nil && (act == Stage || act == Restart) {
		return nil // broken off, and repeated or found out by the next process
	}
	s, seeing := h.Machine.Seen(whole)
	if seeing != nil {
		return fmt.Errorf("look at the machine: %w", seeing)
	}
	if err != nil {
		h.Log.Warn("step fails", "upgrade", a.ID, "step", a.Step, "err", err)
	}
	return h.save(a, After(a, act, system, err, s))
}

// stage is broken off when the order is to give up, and when it takes too long.
func (h *Host) stage(ctx context.Context, a Attempt) (_ Attempt, system string, err error) {
	err = h.bounded(ctx, a.ID, h.StageWithin, tooLong(h.StageWithin), func(ctx context.Context) (err error) {
		target := a.Target
		if target.Flake != "" {
			if a.Locked, err = h.Machine.Lock(ctx, target.Flake); err != nil {
				return err
			}
			target.Flake = cmp.Or(a.Locked, target.Flake)
		}
		system, err = h.Machine.Stage(ctx, target)
		return err
	})
	return a, system, err
}

// leastSwitch is how long a switch may take at least. Whoever gives the others a
// short time to confirm a system means their answers.
const leastSwitch = 5 * time.Minute

// try is broken off when the order is to give up, and when the switch takes
// longer than a system may take to be confirmed: a unit that never ends starting
// keeps it for ever. What a switch was broken off in, the way back mends.
func (h *Host) try(ctx context.Context, a Attempt) error {
	within := max(a.Within, leastSwitch)
	return h.bounded(ctx, a.ID, within, neverEnds(a.New, within), func(ctx context.Context) error { return h.Machine.Try(ctx, a.New) })
}

// bounded does what is broken off when it takes longer than within, with an
// error for that, and when the attempt is ordered to give up.
func (h *Host) bounded(ctx context.Context, id string, within time.Duration, late error, do func(context.Context) error) error {
	var watchers sync.WaitGroup
	defer watchers.Wait()
	ctx, stop := context.WithTimeoutCause(ctx, within, late)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wake := make(chan struct{}, 1)
	watchers.Go(func() {
		_ = h.files.watch(ctx, wake) // without it only the time breaks it off
	})
	watchers.Go(func() { h.awaitStop(ctx, id, wake, cancel) })
	err := do(ctx)
	if err != nil && ctx.Err() != nil {
		return &programError{sentence: context.Cause(ctx).Error(), lines: linesOf(err)}
	}
	return err
}

// awaitStop cancels with the reason when an attempt is ordered to give up.
func (h *Host) awaitStop(ctx context.Context, id string, wake <-chan struct{}, cancel context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		if o, err := h.wanted(id); err == nil && o.Want == WantStop {
			cancel(errors.New(o.reason()))
		}
	}
}

func tooLong(within time.Duration) error {
	return fmt.Errorf("it was not built or fetched within %s; what is there so far is kept for the next upgrade: "+
		"see journalctl -u uncloud-host for what took so long, or build it elsewhere", short(within))
}

func neverEnds(system string, within time.Duration) error {
	return fmt.Errorf("the switch to %s did not end within %s: a unit of it may never end starting; see systemctl list-jobs, and journalctl -u uncloud-host",
		Name(system), short(within))
}

// giveBack makes the former generation the default again and runs the former
// system. Each part is tried, whatever becomes of the other.
func (h *Host) giveBack(ctx context.Context, a Attempt) error {
	var errs []error
	if a.Armed {
		errs = append(errs, h.Machine.MakeDefault(ctx, a.Default, Made{a.New, a.Newest}))
	}
	s, err := h.Machine.Seen(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	bootedNew := a.Restart && s.Booted == a.New && !a.WentBack
	if s.Current != a.Former && !bootedNew && !a.ByHand && !a.activated(s) {
		errs = append(errs, h.tryFormer(ctx, a))
	}
	return errors.Join(errs...)
}

// tryFormer is bounded as well: a restart is left then. The order to give up,
// which may be why it returns, does not break it off.
func (h *Host) tryFormer(ctx context.Context, a Attempt) error {
	within := max(a.Within, leastSwitch)
	ctx, stop := context.WithTimeoutCause(ctx, within, neverEnds(a.Former, within))
	defer stop()
	err := h.Machine.Try(ctx, a.Former)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// restart returns only when there was none.
func (h *Host) restart(ctx context.Context, a Attempt) error {
	if err := h.Machine.Restart(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(h.RestartWithin):
		return &programError{sentence: "the machine did not restart within " + short(h.RestartWithin), lines: a.Lines}
	}
}
