package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// carry drives a claimed rollout to its end: the service fits its row, or it is
// what it was before and the error says why.
func (d *drive) carry(ctx context.Context) error {
	defer d.nudge()
	defer d.release(d.rollout.ID)
	log := d.Log.With("service", d.name, "rollout", d.rollout.ID, "revision", d.rollout.To)
	log.Info("rollout begins", "from", d.rollout.From)
	began := time.Now()
	held, letGo := d.whileHeld(ctx)
	err := d.settle(held)
	if lost := context.Cause(held); errors.Is(lost, errSuperseded) {
		err = lost
	}
	letGo()
	if err == nil {
		d.awaitTraffic(ctx)
		done, cancel := detached(ctx, loadedWithin)
		defer cancel()
		err = d.finish(done, endStage(d.rollout), d.rollout.Error)
	}
	if err == nil {
		log.Info("rollout ended", "took", time.Since(began))
		return nil
	}
	if d.resumable && ctx.Err() != nil {
		return ctx.Err()
	}
	log.Warn("rollout fails", "err", err)
	return d.fail(ctx, err)
}

// endStage is what a rollout is when its service fits: a return that another
// driver began ends as the failure that it is.
func endStage(r spec.Rollout) spec.RolloutStage {
	if r.Stage == spec.RolloutReturning {
		return spec.RolloutFailed
	}
	return spec.RolloutDone
}

// detached is a context that outlives the caller's, for what must not be left
// half done when a person presses Ctrl-C.
func detached(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), d)
}

// awaitTraffic waits until this machine and every ingress send traffic to what
// came up, so that the next command of a script finds the service.
func (d *drive) awaitTraffic(ctx context.Context) {
	state, alive := d.Store.State(), d.Members.Alive()
	var wg sync.WaitGroup
	for id, m := range state.Machines {
		if !alive[id] || id != d.Self && !serves(m) {
			continue
		}
		for _, v := range d.seen {
			wg.Go(func() { d.loaded(ctx, id, v) })
		}
	}
	wg.Wait()
}

func serves(m spec.Machine) bool {
	for _, r := range m.Roles {
		if r == spec.RoleIngress {
			return true
		}
	}
	return false
}

// fail ends a rollout that did not reach its goal and returns the error for people.
func (d *drive) fail(ctx context.Context, cause error) error {
	if ctx.Err() != nil && !errors.Is(cause, errSuperseded) {
		cause = faults.New(faults.Interrupted, "the rollout of %s was interrupted", d.name)
	}
	ctx, cancel := detached(ctx, returnWithin)
	defer cancel()
	if errors.Is(cause, errSuperseded) {
		return d.yield(ctx, cause)
	}
	outcome, err := d.undo(ctx, cause)
	if errors.Is(err, errSuperseded) {
		return d.yield(ctx, err)
	}
	if err != nil {
		d.Log.Error("service is not back where it was", "service", d.name, "rollout", d.rollout.ID, "err", err)
		outcome = fmt.Sprintf("and it could not be returned (%v); the machines keep trying", err)
	}
	f := faults.Of(cause)
	hint := f.Hint
	switch {
	case d.rollout.From == "" && f.Code == faults.Unhealthy:
		hint = "its last lines are above; mend it and deploy again: uc deploy"
	case hint == "":
		hint = fmt.Sprintf("see why: uc inspect %s, uc logs %s", d.name, d.name)
	}
	if outcome != "" {
		outcome = "; " + outcome
	}
	return &failure{faults.New(f.Code, "%s: %w%s", d.name, cause, outcome).WithHint("%s", hint), logsOf(cause)}
}

// yield marks the rollout as superseded, unless somebody else wrote its end.
func (d *drive) yield(ctx context.Context, cause error) error {
	_, err := d.Store.Update(ctx, func(tx Tx) error {
		r, ok := tx.State().Rollouts[d.rollout.ID]
		if !ok || !active(r) || r.Driver != d.Self {
			return nil
		}
		r.Stage, r.Error, r.EndedAt = spec.RolloutSuperseded, cause.Error(), d.Now()
		if err := tx.Put(r); err != nil {
			return err
		}
		return d.event(tx, "rollout.superseded", r.Service, cause.Error())
	})
	if err != nil {
		return fmt.Errorf("end the rollout of %s: %w", d.name, err)
	}
	return faults.New(faults.Conflict, "%w", cause).WithHint("see what runs now: uc inspect %s", d.name)
}

// undo brings the service back to where it was. It returns what people are to
// know about that.
func (d *drive) undo(ctx context.Context, cause error) (outcome string, err error) {
	switch {
	case d.rollout.From == "":
		d.say.note("%s never ran: removing it", d.name)
		return d.erase(ctx, cause)
	case d.stays || d.rollout.Stage == spec.RolloutReturning || d.before == nil && d.rollout.From == d.rollout.To:
		return "", d.finish(ctx, spec.RolloutFailed, cause.Error())
	}
	d.say.note("%s returns to revision %s", d.name, plan.RevisionName(d.rollout.From))
	err = d.turnBack(ctx, cause)
	if err == nil {
		err = d.settle(ctx)
	}
	if err != nil {
		// Left unfinished, it would be taken up again, and fail again, for ever.
		if !errors.Is(err, errSuperseded) {
			err = errors.Join(err, d.finish(ctx, spec.RolloutFailed, cause.Error()+"; on the way back: "+err.Error()))
		}
		return "", err
	}
	if err := d.finish(ctx, spec.RolloutFailed, cause.Error()); err != nil {
		return "", err
	}
	if d.rollout.From == d.rollout.To {
		return "it is as it was before", nil
	}
	return "it runs revision " + plan.RevisionName(d.rollout.From) + " as before", nil
}

// turnBack makes the former revision the wanted one again. What the command
// changed beside it goes back too, unless somebody has changed it since.
func (d *drive) turnBack(ctx context.Context, cause error) error {
	_, err := d.update(ctx, func(tx Tx) error {
		old, ok := tx.State().Revisions[d.rollout.From]
		if !ok {
			return fmt.Errorf("revision %s is not known any more", d.rollout.From)
		}
		if err := tx.Put(d.formerRow(tx.State().Services[d.rollout.Service], old)); err != nil {
			return err
		}
		r := tx.State().Rollouts[d.rollout.ID]
		r.Stage, r.Error = spec.RolloutReturning, cause.Error()
		return tx.Put(r)
	})
	if err != nil {
		return err
	}
	d.rollout.Stage, d.rollout.Error = spec.RolloutReturning, cause.Error()
	d.mu.Lock()
	d.verified, d.planned = map[string]bool{}, map[string]plan.Step{}
	d.mu.Unlock()
	d.options, d.skipHealth = plan.Options{}, false
	return nil
}

// formerRow is the service's row as it was before this rollout.
func (d *drive) formerRow(now spec.Service, old spec.Revision) spec.Service {
	now.Revision, now.Mode = old.ID, old.Spec.Mode
	if d.before == nil || d.after == nil {
		return now
	}
	if now.Mode = d.before.Mode; now.Replicas == d.after.Replicas {
		now.Replicas = d.before.Replicas
	}
	if now.Wanted == d.after.Wanted {
		now.Wanted = d.before.Wanted
	}
	return now
}

// endable leaves out the replicas of machines whose engine does not answer:
// they cannot say that a container is gone, nor has one been made.
func (d *drive) endable(replicas []spec.Replica) []spec.Replica {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(replicas, func(r spec.Replica) bool { return d.deaf[r.Machine] })
}

// unbegin takes back the rows of a service whose turn did not come, because one
// that it depends on failed. Nothing of it ran.
func (d *drive) unbegin(ctx context.Context, cause error) error {
	defer d.release(d.rollout.ID)
	ctx, cancel := detached(ctx, loadedWithin)
	defer cancel()
	if d.rollout.From == "" {
		_, err := d.erase(ctx, cause)
		return err
	}
	_, err := d.update(ctx, func(tx Tx) error {
		old, ok := tx.State().Revisions[d.rollout.From]
		if !ok {
			return nil
		}
		r := tx.State().Rollouts[d.rollout.ID]
		r.Stage, r.Error, r.EndedAt = spec.RolloutFailed, "not begun: "+cause.Error(), d.Now()
		if err := tx.Put(d.formerRow(tx.State().Services[d.rollout.Service], old)); err != nil {
			return err
		}
		return tx.Put(r)
	})
	return err
}

// awaitGone waits until the living machines say that the replicas' containers
// are gone, and tells of those that do not.
func (d *Driver) awaitGone(ctx context.Context, replicas []spec.Replica, within time.Duration, say *reporter) {
	d.awaitContainers(ctx, replicas, within, say, func(c spec.Container, exists bool) bool { return !exists })
}

func (d *Driver) awaitContainers(ctx context.Context, replicas []spec.Replica, within time.Duration, say *reporter, ended func(spec.Container, bool) bool) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	open := func(s *spec.State) (names []string) {
		for _, r := range replicas {
			c, exists := s.Containers[r.ID]
			if d.Members.Alive()[r.Machine] && !ended(c, exists) {
				names = append(names, r.Name+" on "+s.MachineName(r.Machine))
			}
		}
		return names
	}
	if d.until(ctx, func(s *spec.State) bool { return len(open(s)) == 0 }) != nil {
		for _, name := range open(d.Store.State()) {
			say.note("%s has not ended yet", name)
		}
	}
	state := d.Store.State()
	for _, r := range replicas {
		if _, exists := state.Containers[r.ID]; exists && !d.Members.Alive()[r.Machine] {
			say.note("%s is down: %s ends when it returns", state.MachineName(r.Machine), r.Name)
		}
	}
}
