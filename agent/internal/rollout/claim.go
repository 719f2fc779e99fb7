package rollout

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

const (
	// keptRollouts is how many rollouts of a service that led to another revision
	// stay recorded, and with them the revisions that one can return to.
	keptRollouts = 10
	// keptOthers is how many of the others do: scales, repairs, and what failed.
	keptOthers = 10
)

// claim plans once more on the state of the transaction and, in the same
// transaction, claims every service that changes and writes its rows. So two
// deploys cannot both begin, and nobody sees half of one.
func (d *Driver) claim(ctx context.Context, say *reporter, images plan.Images, planned func(plan.View) (plan.Plan, error), options plan.Options) ([]*drive, plan.Plan, error) {
	d.claiming.Lock()
	defer d.claiming.Unlock()
	var p plan.Plan
	var drives []*drive
	v, err := d.Store.Update(ctx, func(tx Tx) (err error) {
		drives = nil
		if p, err = planned(d.viewOf(tx.State(), images)); err != nil {
			return err
		}
		for _, sp := range p.Services {
			if sp.Change == plan.None {
				if err := d.busy(tx.State(), sp.Name(), sp.ID(), false); err != nil {
					return err
				}
				continue
			}
			dr, err := d.begin(tx, sp, !prunes(p))
			if err != nil {
				return err
			}
			if dr != nil {
				drives = append(drives, dr)
			}
		}
		return nil
	})
	if err != nil {
		return nil, p, err
	}
	for _, dr := range drives {
		dr.say, dr.images, dr.version, dr.options = say, images, v, options
		dr.options.All = dr.before != nil && dr.before.Wanted != dr.after.Wanted
		d.hold(dr.rollout.ID)
	}
	return drives, p, nil
}

// prunes tells whether a plan removes services. Then nothing new may begin before
// their containers are gone: a service that was renamed has the volumes of the
// one that goes.
func prunes(p plan.Plan) bool {
	return slices.ContainsFunc(p.Services, func(sp plan.ServicePlan) bool { return sp.Change == plan.Remove })
}

// begin writes the rows of one service's change, with those of replicas that it
// begins with if it may. A removal needs no drive.
func (d *Driver) begin(tx Tx, p plan.ServicePlan, replicas bool) (*drive, error) {
	if p.Change == plan.Remove {
		if err := removeRows(tx, *p.Before, nil); err != nil {
			return nil, err
		}
		return nil, d.event(tx, "service.removed", p.ID(), p.Name()+" was removed: its project does not have it any more")
	}
	from := ""
	if p.Before != nil {
		from = p.Before.Revision
	}
	if err := d.free(tx, p.Name(), p.ID(), from != p.After.Revision); err != nil {
		return nil, err
	}
	if err := addProject(tx, p.After.Project, d.Now()); err != nil {
		return nil, err
	}
	r, err := d.newRollout(p.ID(), from, p.After.Revision)
	if err != nil {
		return nil, err
	}
	dr := d.newDrive(r, p.Name())
	dr.before, dr.after, dr.level = p.Before, p.After, p.Level
	if p.Revision.ID == "" {
		return nil, faults.New(faults.NotReady, "revision %s of %s has not arrived here yet", p.After.Revision, p.Name()).
			WithHint("try again in a moment, or ask another machine")
	}
	if err := tx.Put(*p.After, p.Revision, r); err != nil {
		return nil, err
	}
	// What stands at the beginning of a rollout needs no transaction of its own:
	// twelve replicas of a new service are recorded with it.
	if p.Level == 0 && replicas {
		steps := onlyRows(p.Steps)
		dr.recorded(steps)
		if dr.planned, err = d.rows(tx, steps, p.After.Name, r.ID); err != nil {
			return nil, err
		}
	}
	return dr, nil
}

// onlyRows are the steps of a plan that change rows and stand before all others.
func onlyRows(steps []plan.Step) []plan.Step {
	steps = slices.DeleteFunc(slices.Clone(steps), func(s plan.Step) bool { return s.Kind == plan.KindRoute })
	if len(steps) == 0 {
		return nil
	}
	batch := next(steps, 1)
	switch batch[len(batch)-1].Kind {
	case plan.KindForget, plan.KindAdopt, plan.KindCreate:
		return batch
	}
	return nil
}

// busy refuses while a rollout of the service is under way. One that changes no
// revision, as a scale or a repair, gives way to one that does: what it was for
// is in the service's row, and the new one does that as well. So nobody has to
// wait for a repair that cannot succeed to deploy what would make it.
func (d *Driver) busy(s *spec.State, name, service string, changes bool) error {
	for _, r := range s.Rollouts {
		if r.Service != service || !active(r) || changes && r.From == r.To || !d.driven(s, r) {
			continue
		}
		return faults.New(faults.Busy, "a rollout of %s is under way, driven by %s since %s", name,
			s.MachineName(r.Driver), r.StartedAt.UTC().Format(time.TimeOnly)+" UTC").
			WithHint("wait for it; see where it is: uc inspect %s", name)
	}
	return nil
}

// free is busy, and ends the rollouts that give way and those whose driver is
// gone: the new one begins where they stopped.
func (d *Driver) free(tx Tx, name, service string, changes bool) error {
	state := tx.State()
	if err := d.busy(state, name, service, changes); err != nil {
		return err
	}
	for _, r := range state.Rollouts {
		if r.Service != service || !active(r) {
			continue
		}
		r.Stage, r.EndedAt, r.Error = spec.RolloutSuperseded, d.Now(), "another rollout began"
		if err := tx.Put(r); err != nil {
			return err
		}
	}
	return nil
}

// driven tells whether a machine is at work on a rollout. Of its own rollouts
// the machine knows better: those that an earlier process began have nobody.
func (d *Driver) driven(s *spec.State, r spec.Rollout) bool {
	if r.Driver == d.Self {
		return d.holding(r.ID)
	}
	_, member := s.Machines[r.Driver]
	return member && d.Members.Alive()[r.Driver]
}

func (d *Driver) hold(rollout string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.driving[rollout] = true
}

func (d *Driver) release(rollout string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.driving, rollout)
}

func (d *Driver) holding(rollout string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.driving[rollout]
}

func (d *Driver) newRollout(service, from, to string) (spec.Rollout, error) {
	id, err := spec.NewID(spec.RolloutPrefix, d.Random)
	if err != nil {
		return spec.Rollout{}, fmt.Errorf("name a rollout: %w", err)
	}
	return spec.Rollout{ID: id, Service: service, From: from, To: to, Stage: spec.RolloutRunning,
		Driver: d.Self, StartedAt: d.Now()}, nil
}

func (d *Driver) newDrive(r spec.Rollout, name string) *drive {
	return &drive{
		Driver: d, rollout: r, name: name, verified: map[string]bool{}, planned: map[string]plan.Step{}, seen: map[string]Version{},
		volumes: map[string]bool{}, deaf: map[string]bool{}, behind: map[string]bool{},
	}
}

func addProject(tx Tx, name string, now time.Time) error {
	id := spec.ProjectID(name)
	if _, ok := tx.State().Projects[id]; ok {
		return nil
	}
	return tx.Put(spec.Project{ID: id, Name: name, CreatedAt: now})
}

// finish ends a rollout's row and tells what happened.
func (d *drive) finish(ctx context.Context, stage spec.RolloutStage, why string) error {
	_, err := d.update(ctx, func(tx Tx) error {
		r := tx.State().Rollouts[d.rollout.ID]
		r.Stage, r.Error, r.EndedAt = stage, why, d.Now()
		if err := tx.Put(r); err != nil {
			return err
		}
		text := "revision " + plan.RevisionName(r.To) + " of " + d.name + " runs"
		switch {
		case stage != spec.RolloutDone:
			text = "rollout of " + d.name + ": " + why
		case r.From == r.To:
			text = d.name + " runs as wanted"
		}
		if err := d.event(tx, "rollout."+string(stage), d.rollout.Service, text); err != nil {
			return err
		}
		return trim(tx, r)
	})
	return err
}

// history tells whether a rollout is one that led to a revision and is done.
func history(r spec.Rollout) bool { return r.Stage == spec.RolloutDone && r.From != r.To }

// surplus are the ended rollouts of a service that are not kept. Neither what
// made its present revision nor what made the one before it is among them.
func surplus(s *spec.State, last spec.Rollout) []spec.Rollout {
	ended := []spec.Rollout{last}
	for _, r := range s.Rollouts {
		if r.Service == last.Service && r.ID != last.ID && !active(r) {
			ended = append(ended, r)
		}
	}
	slices.SortFunc(ended, func(a, b spec.Rollout) int {
		return cmp.Or(b.EndedAt.Compare(a.EndedAt), cmp.Compare(a.ID, b.ID))
	})
	keep := map[string]bool{last.ID: true}
	for revision := range 2 {
		to := s.Services[last.Service].Revision
		if revision == 1 {
			to = plan.Former(s, s.Services[last.Service])
		}
		if i := slices.IndexFunc(ended, func(r spec.Rollout) bool { return history(r) && r.To == to }); i >= 0 {
			keep[ended[i].ID] = true
		}
	}
	room := map[bool]int{true: keptRollouts, false: keptOthers}
	return slices.DeleteFunc(ended, func(r spec.Rollout) bool {
		room[history(r)]--
		return keep[r.ID] || room[history(r)] >= 0
	})
}

// trim forgets the oldest ended rollouts of a service and the revisions that
// nothing names any more. last is the row that this transaction ends.
func trim(tx Tx, last spec.Rollout) error {
	s := tx.State()
	old := surplus(s, last)
	forget := map[string]bool{}
	for _, r := range old {
		forget[r.ID] = true
	}
	used := map[string]bool{s.Services[last.Service].Revision: true}
	for _, r := range s.Rollouts {
		if !forget[r.ID] {
			used[r.From], used[r.To] = true, true
		}
	}
	for _, r := range s.ReplicasOf(last.Service) {
		used[r.Revision], used[s.Containers[r.ID].Revision] = true, true
	}
	for _, r := range old {
		if err := tx.Delete(r.Table(), r.ID); err != nil {
			return err
		}
	}
	for _, rev := range s.Revisions {
		if rev.Service == last.Service && !used[rev.ID] {
			if err := tx.Delete(rev.Table(), rev.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeRows deletes a service and all that belongs to it. Its machines end
// the containers when they see it.
func removeRows(tx Tx, svc spec.Service, volumes []spec.Volume) error {
	s := tx.State()
	rows := []spec.Row{svc}
	for _, r := range s.Replicas {
		if r.Service == svc.ID {
			rows = append(rows, r)
		}
	}
	for _, r := range s.Rollouts {
		if r.Service == svc.ID {
			rows = append(rows, r)
		}
	}
	for _, r := range s.Revisions {
		if r.Service == svc.ID {
			rows = append(rows, r)
		}
	}
	for _, v := range volumes {
		rows = append(rows, v)
	}
	for _, row := range rows {
		if err := tx.Delete(row.Table(), row.Key()); err != nil {
			return err
		}
	}
	return nil
}
