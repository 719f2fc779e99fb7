package plan

import (
	"fmt"

	"uncloud/internal/spec"
)

// The methods of this file each add a step and draft its result.

func (c *convergence) step(s Step) Step {
	s.Service = c.svc.ID
	if s.Revision == "" {
		s.Revision = c.rev.ID
	}
	return s.keyed()
}

func (c *convergence) forgets(x candidate, why string) {
	c.forget = append(c.forget, c.step(Step{Kind: KindForget, Replica: x.ID, Machine: x.Machine,
		Text: "forget " + x.Name, Reason: why}))
	delete(c.draft().Replicas, x.ID)
}

func (c *convergence) adopts(x candidate) {
	why := "it was about to leave and is wanted again"
	if x.fitness == adoptable {
		why = c.change(x.Revision) + ": the container stays as it is"
	}
	c.adopt = append(c.adopt, c.step(Step{Kind: KindAdopt, Replica: x.ID, Machine: x.Machine,
		Text: "keep " + x.Name + " on " + c.name(x.Machine), Reason: why}))
}

// retire removes a replica. One whose machine is down stays recorded: it may
// serve the other side of a partition, and when its machine returns it is seen
// what is surplus then.
func (c *convergence) retire(x candidate, why string) {
	if x.dead {
		return
	}
	c.touch(x)
	c.remove = append(c.remove, c.step(Step{Kind: KindRemove, Replica: x.ID, Machine: x.Machine, Revision: x.Revision,
		Text: fmt.Sprintf("remove %s from %s", x.Name, c.name(x.Machine)), Reason: why}))
	delete(c.draft().Replicas, x.ID)
}

func (c *convergence) touch(x candidate) {
	c.touchesServing = c.touchesServing || x.fitness != right && x.serving
}

func (c *convergence) run(p Place) {
	c.create = c.volumes(c.create, p.Machine)
	s := c.step(Step{Kind: KindCreate, Machine: p.Machine,
		Text: fmt.Sprintf("run %s on %s", c.svc.Name, c.name(p.Machine)), Reason: p.Reason})
	s.Key = fmt.Sprintf("%s/%d", s.Key, c.made) // several may go to one machine
	c.create = append(c.create, s)
	c.drafts(p.Machine)
}

// replaces brings a replica to the wanted revision: where it is if it may stay
// there, elsewhere if not.
func (c *convergence) replaces(x candidate) error {
	c.touch(x)
	s := Step{Kind: KindReplace, Replica: x.ID, Machine: x.Machine, Order: c.order, Reason: c.change(x.Revision)}
	if c.order == spec.StopFirst {
		delete(c.draft().Replicas, x.ID)
	}
	// Two replicas cannot hold one port of the host, so start-first needs another machine.
	if x.misfit != "" || c.order == spec.StartFirst && hostPort(c.rev.Spec) {
		p, err := c.Scheduler.Place(c.State, c.Alive, c.ask)
		if err != nil {
			return err
		}
		if p.Machine != x.Machine {
			s.Kind, s.From, s.Machine = KindMove, x.Machine, p.Machine
		}
		s.Reason = p.Reason
		if x.misfit != "" {
			s.Reason = x.misfit
		}
	}
	s.Text = fmt.Sprintf("%s %s on %s, %s", s.Kind, x.Name, c.name(s.Machine), c.order)
	if s.Kind == KindMove {
		s.Text = fmt.Sprintf("move %s from %s to %s, %s", x.Name, c.name(s.From), c.name(s.Machine), c.order)
	}
	if c.orderWhy != "" {
		s.Text += " because " + c.orderWhy
	}
	c.replace = c.volumes(c.replace, s.Machine)
	c.replace = append(c.replace, c.step(s))
	delete(c.draft().Replicas, x.ID)
	c.drafts(s.Machine)
	return nil
}

// volumes adds steps for the volumes that a replica on the machine needs and
// that are not recorded there.
func (c *convergence) volumes(to []Step, machine string) []Step {
	for _, v := range namedVolumes(c.rev.Spec) {
		id := spec.VolumeID(c.svc.Project, v.Name, machine)
		if _, ok := c.State.Volumes[id]; ok {
			continue
		}
		row := spec.Volume{ID: id, Project: c.svc.Project, Name: v.Name, Machine: machine, Spec: v, CreatedAt: c.o.Now}
		to = append(to, c.step(Step{Kind: KindVolume, Machine: machine, Volume: row,
			Text: fmt.Sprintf("create volume %s on %s", v.Name, c.name(machine)), Reason: c.svc.Name + " mounts it"}))
		c.draft().Volumes[id] = row
	}
	return to
}

// drafts notes that a replica will be on the machine.
func (c *convergence) drafts(machine string) {
	c.made++
	id := fmt.Sprintf("new/%s/%d", c.svc.ID, c.made)
	c.draft().Replicas[id] = spec.Replica{ID: id, Name: c.svc.Name, Service: c.svc.ID, Revision: c.rev.ID,
		Machine: machine, Wanted: spec.WantRunning, Rollout: c.o.Rollout, CreatedAt: c.o.Now}
}

func (c *convergence) draft() *spec.State {
	if c.State == c.now {
		c.State = draft(c.now)
	}
	return c.State
}

// change says in a few words what leads from a revision to the wanted one.
func (c *convergence) change(from string) string {
	old, ok := c.now.Revisions[from]
	if !ok {
		return "its revision " + RevisionName(from) + " is unknown here"
	}
	if from == c.rev.ID {
		return "recreation was asked for"
	}
	diff := Differences(old.Spec, c.rev.Spec)
	switch len(diff) {
	case 0:
		return RevisionName(from) + " -> " + RevisionName(c.rev.ID)
	case 1:
		return diff[0]
	}
	return fmt.Sprintf("%s and %d more", diff[0], len(diff)-1)
}
