package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"uncloud/agent/internal/hostos"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

const (
	// askWithin bounds one round of questions to the witnesses.
	askWithin = 10 * time.Second
	// settleFor is how long all must be well: what a new system breaks, as the
	// network of containers, shows at the next probe.
	settleFor = 10 * time.Second
)

// confirm asks the witnesses once, and orders to keep the new generation when
// enough of them say that all is well. Why they do not is kept in the turn.
func (f *Fleet) confirm(ctx context.Context, turn spec.Turn, o hostos.Order) {
	err := f.judge(ctx, turn)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		f.wellSince = time.Time{}
		turn.Error = err.Error()
		if err := f.record(ctx, turn); err != nil && ctx.Err() == nil {
			f.Log.Warn("note what is missing for a confirmation", "upgrade", turn.Upgrade, "err", err)
		}
		return
	}
	if f.wellSince.IsZero() {
		f.wellSince = f.Now()
	}
	if f.Now().Sub(f.wellSince) < settleFor {
		return
	}
	f.wellSince = time.Time{}
	f.Log.Info("the new generation is confirmed", "upgrade", turn.Upgrade)
	o.Want = hostos.WantKeep
	if err := f.Host.Order(o); err != nil {
		f.Log.Warn("order to the host", "upgrade", turn.Upgrade, "err", err)
	}
}

// judge is nil when this machine is as well as before its switch, by its own
// view and by that of at least half of the machines that lived then.
func (f *Fleet) judge(ctx context.Context, turn spec.Turn) error {
	state := f.Store.State()
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	if err := f.ensure(ctx, state, turn); err != nil {
		return err
	}
	if err := well(f.Store.State(), f.Members.Alive(), turn); err != nil {
		return err
	}
	witnesses := slices.DeleteFunc(slices.Clone(turn.Witnesses), func(id string) bool {
		_, member := state.Machines[id]
		return !member
	})
	if len(witnesses) == 0 {
		return nil // there is nobody to ask
	}
	votes, doubt := f.ask(ctx, turn, witnesses)
	if votes < (len(witnesses)+1)/2 {
		return fmt.Errorf("%d of %d machines confirm it; %w", votes, len(witnesses), doubt)
	}
	return nil
}

// ensure asks the engine for the replicas that have to be well.
func (f *Fleet) ensure(ctx context.Context, s *spec.State, turn spec.Turn) error {
	errs := make([]error, len(turn.Healthy))
	var wg sync.WaitGroup
	for i, id := range turn.Healthy {
		if r, wanted := wantedStill(s, turn, id); wanted {
			wg.Go(func() {
				err := f.Ensure(ctx, id)
				if ctx.Err() != nil {
					err = errors.New("it is still starting")
				}
				if err != nil {
					errs[i] = faults.New(faults.Unhealthy, "%s is not healthy again: %w", r.Name, err).WithHint("uc logs %s", r.Name)
				}
			})
		}
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// ask asks all at once. The doubt is that of the first machine by id that has one.
func (f *Fleet) ask(ctx context.Context, turn spec.Turn, witnesses []string) (votes int, doubt error) {
	head := f.Store.Head()
	errs := make([]error, len(witnesses))
	var wg sync.WaitGroup
	for i, id := range witnesses {
		wg.Go(func() {
			theirs, err := f.Witness(ctx, id, turn.Upgrade, head)
			if err == nil {
				err = f.Store.WaitFor(ctx, theirs)
			}
			if err != nil {
				errs[i] = fmt.Errorf("%s: %w", f.Store.State().MachineName(id), err)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err == nil {
			votes++
		} else if doubt == nil {
			doubt = err
		}
	}
	return votes, doubt
}

// Confirm is the answer of this machine to another that asks for its turn to be
// confirmed: its newest commit, or what is not well. The version that the
// question is about must be here.
func (f *Fleet) Confirm(machine, upgrade string) (Version, error) {
	state, alive := f.Store.State(), f.Members.Alive()
	name := state.MachineName(machine)
	turn, ok := state.TurnIn(upgrade, machine)
	if !ok || turn.Stage != spec.TurnWatching {
		return Version{}, faults.New(faults.NotReady, "nothing is known here of a new generation of %s", name).
			WithHint("see how far the upgrade is: uc machine upgrade --watch")
	}
	if !alive[machine] {
		return Version{}, faults.New(faults.MachineDown, "%s is not seen alive", name).WithHint("see the tunnels: uc wg show")
	}
	if err := well(state, alive, turn); err != nil {
		return Version{}, err
	}
	return f.Store.Head(), nil
}

// well tells what is not as it was before the switch: replicas that took
// traffic, are still wanted, and do not take it again.
func well(s *spec.State, alive spec.Alive, turn spec.Turn) error {
	for _, id := range turn.Healthy {
		if r, wanted := wantedStill(s, turn, id); wanted && !spec.Eligible(s, alive, r) {
			return faults.New(faults.Unhealthy, "%s is not healthy again", r.Name).WithHint("uc logs %s", r.Name)
		}
	}
	return nil
}

// wantedStill tells whether a replica that was healthy before the switch should
// run on the machine yet.
func wantedStill(s *spec.State, turn spec.Turn, id string) (r spec.Replica, wanted bool) {
	r, ok := s.Replicas[id]
	svc, exists := s.Services[r.Service]
	return r, ok && exists && r.Machine == turn.Machine && r.Wanted == spec.WantRunning && svc.Wanted == spec.WantRunning
}
