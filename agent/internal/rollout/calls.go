package rollout

import (
	"context"
	"errors"
	"sync"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// errDown ends calls to a machine that gossip declares dead.
var errDown = errors.New("the machine went down")

// failure is a replica that did not come up, with its container's last words.
type failure struct {
	*faults.Fault
	logs []string
}

func (f *failure) Unwrap() error { return f.Fault }

func logsOf(err error) []string {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.logs
	}
	return nil
}

// run asks a machine to run a replica and waits for the verdict.
func (d *Driver) run(ctx context.Context, rep spec.Replica, v Version, skipHealth bool) (Verdict, error) {
	free, err := d.slots.take(ctx, rep.Machine)
	if err != nil {
		return Verdict{}, err
	}
	defer free()
	ctx, cancel := context.WithTimeout(ctx, runWithin)
	defer cancel()
	ctx, stop := d.whileAlive(ctx, rep.Machine)
	defer stop()
	var verdict Verdict
	err = retry(ctx, func() error {
		verdict, err = d.Peers.RunReplica(ctx, rep.Machine, rep.ID, v, skipHealth)
		if faults.CodeOf(verdict.Fault) == faults.NotReady {
			// A driver that died wrote the row. It reached this machine, and is on
			// its way to that one.
			return verdict.Fault
		}
		return err
	})
	name := d.Store.State().MachineName(rep.Machine)
	switch {
	case errors.Is(context.Cause(ctx), errDown):
		return verdict, faults.New(faults.MachineDown, "%s went down before %s ran", name, rep.Name).
			WithHint("see who lives: uc machine ls")
	case err != nil:
		return verdict, faults.New(faults.CodeOf(err), "run %s on %s: %w", rep.Name, name, err).WithHint("%s", faults.Of(err).Hint).On(name)
	case verdict.Fault != nil:
		f := faults.Of(verdict.Fault)
		return verdict, &failure{faults.New(f.Code, "on %s: %w", name, verdict.Fault).WithHint("%s", f.Hint).On(name), verdict.Logs}
	}
	return verdict, nil
}

// retire asks a machine to end a replica's container. That it does not answer
// is no failure: it ends the container by itself once the row is gone.
func (d *Driver) retire(ctx context.Context, rep spec.Replica, v Version) error {
	ctx, stop := d.whileAlive(ctx, rep.Machine)
	defer stop()
	return retry(ctx, func() error { return d.Peers.RetireReplica(ctx, rep.Machine, rep.ID, v) })
}

// whileAlive is ctx until gossip says that the machine is dead, and goes on
// saying so: one that was only too busy to answer loses nothing.
func (d *Driver) whileAlive(ctx context.Context, machine string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	wake, unsubscribe := d.Members.Subscribe()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer unsubscribe()
		if d.staysDown(ctx, machine, wake) {
			cancel(errDown)
		}
	})
	return ctx, func() { cancel(nil); wg.Wait() }
}

// staysDown returns true once a machine was dead for busyWithin, and false at
// the end of the context.
func (d *Driver) staysDown(ctx context.Context, machine string, wake <-chan struct{}) bool {
	for {
		var given <-chan time.Time
		if !d.Members.Alive()[machine] {
			given = time.After(busyWithin)
		}
		for alive := given == nil; alive == d.Members.Alive()[machine]; {
			select {
			case <-wake:
			case <-given:
				return true
			case <-ctx.Done():
				return false
			}
		}
	}
}

// retry repeats a call while the machine cannot be asked: its agent may be
// restarting, or has not received yet what the call is about.
func retry(ctx context.Context, call func() error) error {
	deadline, pause := time.Now().Add(reachWithin), 100*time.Millisecond
	for {
		err := call()
		switch faults.CodeOf(err) {
		case faults.Unreachable, faults.NotReady:
		default:
			return err
		}
		if time.Now().Add(pause).After(deadline) {
			return err
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 2*time.Second)
		case <-ctx.Done():
			return err
		}
	}
}

// awaitLoaded waits until every living machine's names and ingress use a state
// that has the version. A machine that does not say so in time is noted, and
// is not waited for as long again.
func (d *drive) awaitLoaded(ctx context.Context, v Version) {
	state := d.Store.State()
	var wg sync.WaitGroup
	for machine := range d.Members.Alive() {
		if _, member := state.Machines[machine]; member {
			wg.Go(func() { d.loaded(ctx, machine, v) })
		}
	}
	wg.Wait()
}

// loaded waits until one machine's names and ingress use a state that has the
// version.
func (d *drive) loaded(ctx context.Context, machine string, v Version) {
	within, before := loadedWithin, d.isBehind(machine)
	if before {
		within = behindWithin
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ctx, stop := d.whileAlive(ctx, machine)
	defer stop()
	err := d.Peers.AwaitLoaded(ctx, machine, v)
	late := err != nil && !errors.Is(context.Cause(ctx), errDown)
	d.setBehind(machine, late)
	if late && !before {
		d.Log.Warn("traffic is not known to follow", "machine", machine, "err", err)
		d.say.note("%s did not say that its traffic follows; the rollout goes on without it", d.Store.State().MachineName(machine))
	}
}

func (d *drive) isBehind(machine string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.behind[machine]
}

func (d *drive) setBehind(machine string, late bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.behind[machine] = late
}

// until waits for a condition of the state, or for the end of the context.
func (d *Driver) until(ctx context.Context, holds func(*spec.State) bool) error {
	wake, cancel := d.Store.Subscribe()
	defer cancel()
	alive, stop := d.Members.Subscribe()
	defer stop()
	for !holds(d.Store.State()) {
		select {
		case <-wake:
		case <-alive:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
