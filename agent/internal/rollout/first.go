package rollout

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// This file is what becomes of a service whose first rollout failed. Both sides
// of a partition may deploy one service for the first time, and write the same
// row, since its id follows from its name. Removal beats everything, so a side
// where it failed may delete the row only if nobody can run the service.

// erase takes back a service that never ran, and tells people what is left. It
// removes what this rollout made; the service's own row goes too, unless it may
// run where this machine does not see.
func (d *drive) erase(ctx context.Context, cause error) (outcome string, err error) {
	var gone []spec.Replica
	_, err = d.update(ctx, func(tx Tx) error {
		s := tx.State()
		svc := s.Services[d.rollout.Service]
		unused := d.unusedVolumes(s, svc)
		outcome = "nothing of it was kept"
		if keepsVolumes(s, svc, unused) {
			outcome += ", except volumes"
		}
		if err := d.event(tx, "rollout.failed", svc.ID, "first rollout of "+d.name+": "+cause.Error()); err != nil {
			return err
		}
		why := d.mayRunElsewhere(s)
		if why == "" {
			gone = s.ReplicasOf(svc.ID)
			return removeRows(tx, svc, unused)
		}
		outcome = "its containers were removed; it stays listed, because " + why
		gone = slices.DeleteFunc(s.ReplicasOf(svc.ID), func(r spec.Replica) bool { return r.Rollout != d.rollout.ID })
		return d.retract(tx, gone, unused, cause)
	})
	if err != nil {
		return "", err
	}
	d.awaitGone(ctx, d.endable(gone), goneWithin+spec.DefaultStopGrace, d.say)
	return outcome, nil
}

// mayRunElsewhere is why the row of a service has to stay although its first
// rollout failed here; empty when it need not.
func (d *drive) mayRunElsewhere(s *spec.State) string {
	for _, r := range s.Rollouts {
		if r.Service == d.rollout.Service && r.ID != d.rollout.ID && (active(r) || r.Stage == spec.RolloutDone) {
			return "another rollout of it began"
		}
	}
	if down := d.down(s); len(down) > 0 {
		return strings.Join(down, ", ") + " may run it, and cannot be asked"
	}
	return ""
}

// down are the names of the members that do not live.
func (d *Driver) down(s *spec.State) (names []string) {
	alive := d.Members.Alive()
	for id := range s.Machines {
		if !alive[id] {
			names = append(names, s.MachineName(id))
		}
	}
	slices.Sort(names)
	return names
}

// retract deletes what the rollout made and ends it. The service's row is not
// touched, so that a merge finds it as the other side wrote it.
func (d *drive) retract(tx Tx, replicas []spec.Replica, volumes []spec.Volume, cause error) error {
	var rows []spec.Row
	for _, r := range replicas {
		rows = append(rows, r)
	}
	for _, v := range volumes {
		rows = append(rows, v)
	}
	for _, row := range rows {
		if err := tx.Delete(row.Table(), row.Key()); err != nil {
			return err
		}
	}
	r := tx.State().Rollouts[d.rollout.ID]
	r.Stage, r.Error, r.EndedAt = spec.RolloutFailed, cause.Error(), d.Now()
	return tx.Put(r)
}

// unusedVolumes are those that this rollout recorded and that no container was
// made with: kept, they would pin the service to a machine for nothing.
func (d *drive) unusedVolumes(s *spec.State, svc spec.Service) (unused []spec.Volume) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(d.volumes)) {
		v, ok := s.Volumes[id]
		if ok && len(plan.Users(s, v, svc.ID)) == 0 && neverMade(s, svc.ID, v.Machine) {
			unused = append(unused, v)
		}
	}
	return unused
}

// neverMade tells whether a machine says of each replica of a service that it
// could not make a container. Where it says nothing it may be making one.
func neverMade(s *spec.State, service, machine string) bool {
	failed := false
	for _, r := range s.ReplicasOf(service) {
		if r.Machine != machine {
			continue
		}
		if c := s.Containers[r.ID]; c.State != spec.ContainerFailed || c.EngineID != "" {
			return false
		}
		failed = true
	}
	return failed
}

// keepsVolumes tells whether the project has volumes of the service beside those.
func keepsVolumes(s *spec.State, svc spec.Service, unused []spec.Volume) bool {
	for _, v := range s.Volumes {
		if v.Project == svc.Project && plan.Mounts(s.Revisions[svc.Revision].Spec, svc.Project, v) &&
			!slices.ContainsFunc(unused, func(u spec.Volume) bool { return u.ID == v.ID }) {
			return true
		}
	}
	return false
}

// otherFirst is the revision that a service runs where its own, which won when
// two sides of a partition merged, never came up; empty when there is no such.
func otherFirst(s *spec.State, svc spec.Service) (revision string) {
	failed := false
	var best spec.Rollout
	for _, r := range s.Rollouts {
		switch {
		case r.Service != svc.ID:
		case active(r), r.From == svc.Revision, r.To == svc.Revision && r.Stage == spec.RolloutDone:
			return ""
		case r.To == svc.Revision:
			failed = failed || r.From == "" && r.Stage == spec.RolloutFailed
		case r.Stage == spec.RolloutDone && s.Revisions[r.To].ID != "" &&
			(r.EndedAt.After(best.EndedAt) || r.EndedAt.Equal(best.EndedAt) && r.ID > best.ID):
			best = r
		}
	}
	if !failed {
		return ""
	}
	return best.To
}

// settleFirst brings the service's row to the revision that runs, if there is one
// and the row names one that never came up. It tells whether that was so.
func (d *Driver) settleFirst(ctx context.Context, s *spec.State, service string) (bool, error) {
	if otherFirst(s, s.Services[service]) == "" {
		return false, nil
	}
	_, err := d.Store.Update(ctx, func(tx Tx) error {
		svc := tx.State().Services[service]
		to := otherFirst(tx.State(), svc)
		if to == "" {
			return nil
		}
		lost := plan.RevisionName(svc.Revision)
		svc.Revision, svc.Mode = to, tx.State().Revisions[to].Spec.Mode
		if err := tx.Put(svc); err != nil {
			return err
		}
		return d.event(tx, "service.settled", service, fmt.Sprintf("%s/%s stays at revision %s: %s never ran where it was deployed",
			svc.Project, svc.Name, plan.RevisionName(to), lost))
	})
	return true, err
}

// forgetFirsts removes the services that never ran anywhere. It is for when every
// machine has lived for long enough to have said otherwise.
func (d *Driver) forgetFirsts(ctx context.Context) error {
	if len(d.Store.State().NeverRan()) == 0 {
		return nil
	}
	_, err := d.Store.Update(ctx, func(tx Tx) error {
		for _, id := range slices.Sorted(maps.Keys(tx.State().NeverRan())) {
			svc, ok := tx.State().Services[id]
			if !ok {
				continue // its other rows are orphans
			}
			if err := removeRows(tx, svc, nil); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// together tells whether every member has lived for orphanAge, by what Supervise
// has seen. Only Supervise calls it.
func (d *Driver) together(s *spec.State) bool {
	now := d.Now()
	switch {
	case len(d.down(s)) > 0:
		d.whole = now
	case d.whole.IsZero():
		d.whole = now
	}
	return len(d.down(s)) == 0 && now.Sub(d.whole) >= orphanAge
}
