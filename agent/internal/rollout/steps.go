package rollout

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// write does the steps that only change rows, in one transaction. A created
// replica is started by the step that asks to wait for it.
func (d *drive) write(ctx context.Context, steps []plan.Step) error {
	if len(steps) == 0 {
		return ctx.Err()
	}
	var made map[string]plan.Step
	_, err := d.update(ctx, func(tx Tx) (err error) {
		made, err = d.rows(tx, steps, d.serviceName(), d.rollout.ID)
		return err
	})
	if err == nil {
		d.remember(steps, made)
	}
	return err
}

// remember notes which step made which replica, and reports what is done.
func (d *drive) remember(steps []plan.Step, made map[string]plan.Step) {
	d.mu.Lock()
	for id, s := range made {
		d.planned[id] = s
	}
	d.recorded(steps)
	d.mu.Unlock()
	for _, s := range steps {
		if s.Kind != plan.KindCreate {
			d.say.send(Progress{Kind: ProgressDone, Step: &s})
		}
	}
}

// recorded notes the volumes that steps have written. It needs d.mu, where
// anybody else has the drive.
func (d *drive) recorded(steps []plan.Step) {
	for _, s := range steps {
		if s.Kind == plan.KindVolume {
			d.volumes[s.Volume.ID] = true
		}
	}
}

// rows writes what steps say about rows and returns the created replicas.
func (d *Driver) rows(tx Tx, steps []plan.Step, service, rollout string) (map[string]plan.Step, error) {
	made := map[string]plan.Step{}
	taken := replicaNames(tx.State())
	for _, s := range steps {
		var err error
		rep := tx.State().Replicas[s.Replica]
		switch s.Kind {
		case plan.KindForget:
			err = tx.Delete(rep.Table(), s.Replica)
		case plan.KindAdopt:
			if rep.ID != "" {
				rep.Revision, rep.Wanted = s.Revision, spec.WantRunning
				err = tx.Put(rep)
			}
		case plan.KindVolume:
			err = tx.Put(s.Volume)
		case plan.KindCreate:
			rep, err = d.newReplica(service, s, rollout, taken)
			if err == nil {
				s.Replica = rep.ID
				made[rep.ID] = s
				err = tx.Put(rep)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return made, nil
}

func replicaNames(s *spec.State) map[string]bool {
	taken := make(map[string]bool, len(s.Replicas))
	for _, r := range s.Replicas {
		taken[r.Name] = true
	}
	return taken
}

// newReplica is a row for a replica of the step's revision on its machine.
func (d *Driver) newReplica(service string, s plan.Step, rollout string, taken map[string]bool) (spec.Replica, error) {
	id, err := spec.NewID(spec.ReplicaPrefix, d.Random)
	if err != nil {
		return spec.Replica{}, fmt.Errorf("name a replica: %w", err)
	}
	// The name is a DNS label, so a long name of the service is cut.
	const suffix, longest = 4, 63 - 1 - 4
	digits := id[len(spec.ReplicaPrefix):]
	name := ""
	for i := 0; i+suffix <= len(digits) && (name == "" || taken[name]); i++ {
		name = service[:min(len(service), longest)] + "-" + digits[i:i+suffix]
	}
	taken[name] = true
	return spec.Replica{ID: id, Name: name, Service: s.Service, Revision: s.Revision, Machine: s.Machine,
		Wanted: spec.WantRunning, Rollout: rollout, CreatedAt: d.Now()}, nil
}

// start runs a replica whose row is there and waits for its verdict.
func (d *drive) start(ctx context.Context, s plan.Step) error {
	d.mu.Lock()
	if made, ok := d.planned[s.Replica]; ok {
		s = made // what the person was shown
	}
	d.mu.Unlock()
	return d.say.step(s, func() error {
		rep, ok := d.Store.State().Replicas[s.Replica]
		if !ok {
			return nil // the next look sees that it is gone
		}
		_, err := d.runs(ctx, rep)
		return err
	})
}

// runs runs a replica and remembers that it did come up.
func (d *drive) runs(ctx context.Context, rep spec.Replica) (Verdict, error) {
	verdict, err := d.run(ctx, rep, d.newest(), d.skipHealth)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.verified[rep.ID] = true
		if v := verdict.Version; v.Seq > d.seen[v.Site].Seq {
			d.seen[v.Site] = v
		}
	}
	d.deaf[rep.Machine] = isDeaf(err)
	return verdict, err
}

// isDeaf tells whether a machine's engine did not answer; what it said of a
// container is in a failure.
func isDeaf(err error) bool {
	_, said := errors.AsType[*failure](err)
	return !said && faults.CodeOf(err) == faults.Engine
}

// removeAll takes replicas out of traffic together, then ends them.
func (d *drive) removeAll(ctx context.Context, steps []plan.Step) error {
	if len(steps) == 0 {
		return nil
	}
	ids := make([]string, len(steps))
	for i, s := range steps {
		ids[i] = s.Replica
		d.say.send(Progress{Kind: ProgressStart, Step: &s})
	}
	if err := d.remove(ctx, ids...); err != nil {
		return err
	}
	for _, s := range steps {
		d.say.send(Progress{Kind: ProgressDone, Step: &s})
	}
	return nil
}

// remove drains replicas, ends their containers and deletes their rows.
func (d *drive) remove(ctx context.Context, ids ...string) error {
	if err := d.drain(ctx, ids...); err != nil {
		return err
	}
	d.retireAll(ctx, ids)
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := d.update(ctx, func(tx Tx) error {
		for _, id := range ids {
			if err := tx.Delete(spec.Replica{}.Table(), id); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// drain takes replicas out of traffic and waits until every living machine
// sends them none. Those that take none are left as they are.
func (d *drive) drain(ctx context.Context, ids ...string) error {
	leaving := 0
	_, err := d.update(ctx, func(tx Tx) error {
		leaving = 0
		for _, id := range ids {
			rep, ok := tx.State().Replicas[id]
			if !ok {
				continue
			}
			// One that drains already may have been left so by a driver that died
			// before the others had loaded it.
			if rep.Wanted == spec.WantDraining || spec.Eligible(tx.State(), d.Members.Alive(), rep) {
				leaving++
			}
			rep.Wanted = spec.WantDraining
			if err := tx.Put(rep); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || leaving == 0 {
		return err
	}
	d.awaitLoaded(ctx, d.newest())
	return ctx.Err()
}

func (d *drive) retireAll(ctx context.Context, ids []string) {
	var wg sync.WaitGroup
	for _, id := range ids {
		rep, ok := d.Store.State().Replicas[id]
		if !ok || !d.Members.Alive()[rep.Machine] {
			continue
		}
		wg.Go(func() {
			if err := d.retire(ctx, rep, d.newest()); err != nil && ctx.Err() == nil {
				d.Log.Warn("replica is left to its machine", "replica", id, "machine", rep.Machine, "err", err)
				d.say.note("%s ends %s by itself: %v", d.Store.State().MachineName(rep.Machine), rep.Name, err)
			}
		})
	}
	wg.Wait()
}

// replace brings a replica to the step's revision.
func (d *drive) replace(ctx context.Context, s plan.Step) error {
	return d.say.step(s, func() error {
		switch {
		case s.Order == spec.StartFirst:
			return d.startFirst(ctx, s)
		case s.Kind == plan.KindMove:
			return d.stopFirst(ctx, s)
		}
		return d.inPlace(ctx, s)
	})
}

// startFirst runs the new replica, and ends the old one when every machine
// sends traffic to the new and none to the old.
func (d *drive) startFirst(ctx context.Context, s plan.Step) error {
	rep, err := d.create(ctx, s)
	if err != nil {
		return err
	}
	verdict, err := d.runs(ctx, rep)
	if err != nil {
		return err
	}
	if err := d.awaitServing(ctx, rep, verdict); err != nil {
		return err
	}
	return d.remove(ctx, s.Replica)
}

// awaitServing waits until traffic may go to a replica that came up. The rows
// that say so are written by its machine, so it is that machine's version that
// the others must have loaded.
func (d *drive) awaitServing(ctx context.Context, rep spec.Replica, verdict Verdict) error {
	if verdict.Version != (Version{}) {
		d.awaitLoaded(ctx, verdict.Version)
		return ctx.Err()
	}
	if d.skipHealth {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, visibleWithin)
	defer cancel()
	err := d.until(wait, func(s *spec.State) bool {
		row, ok := s.Replicas[rep.ID]
		return !ok || spec.Eligible(s, d.Members.Alive(), row)
	})
	if err != nil && ctx.Err() == nil {
		d.say.note("%s is healthy, but this machine has not heard so from its store", rep.Name)
	}
	return ctx.Err()
}

// stopFirst ends the replica and then runs one elsewhere.
func (d *drive) stopFirst(ctx context.Context, s plan.Step) error {
	if err := d.remove(ctx, s.Replica); err != nil {
		return err
	}
	rep, err := d.create(ctx, s)
	if err != nil {
		return err
	}
	_, err = d.runs(ctx, rep)
	return err
}

// inPlace gives the replica's row the new revision. One row has at most one
// container, so whatever dies on the way, two never write to one volume.
func (d *drive) inPlace(ctx context.Context, s plan.Step) error {
	old := d.Store.State().Replicas[s.Replica]
	if err := d.drain(ctx, s.Replica); err != nil {
		return err
	}
	if spec.SameContainer(d.Store.State(), old.Revision, s.Revision) {
		d.retireAll(ctx, []string{s.Replica}) // or its machine would keep the container
	}
	_, err := d.update(ctx, func(tx Tx) error {
		rep, ok := tx.State().Replicas[s.Replica]
		if !ok {
			return nil
		}
		rep.Revision, rep.Wanted, rep.Rollout = s.Revision, spec.WantRunning, d.rollout.ID
		return tx.Put(rep)
	})
	if err != nil {
		return err
	}
	rep, ok := d.Store.State().Replicas[s.Replica]
	if !ok {
		return nil
	}
	_, err = d.runs(ctx, rep)
	return err
}

// create writes the row of the replica that a replacement begins with.
func (d *drive) create(ctx context.Context, s plan.Step) (spec.Replica, error) {
	var rep spec.Replica
	_, err := d.update(ctx, func(tx Tx) (err error) {
		rep, err = d.newReplica(d.serviceName(), s, d.rollout.ID, replicaNames(tx.State()))
		if err != nil {
			return err
		}
		return tx.Put(rep)
	})
	return rep, err
}
