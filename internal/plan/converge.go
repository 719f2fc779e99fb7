package plan

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"uncloud/internal/spec"
)

// Options say in which situation Converge is asked.
type Options struct {
	// Rollout is the one that asks. What it wrote has to run before it goes on.
	Rollout string
	// Verified are replicas that the rollout saw running and healthy, also
	// where the rows that say so have not arrived yet.
	Verified map[string]bool
	// MoveDead re-places replicas of machines that are down although the
	// service does not ask for failover: a person deploys, and wants them to run.
	MoveDead bool
	// All makes sure of every replica that stays, as when a service is started.
	All bool
	// Recreate replaces every replica that Rollout has not written.
	Recreate bool
	// Now is when a person asks. It stamps rows in drafts and is not part of any step.
	Now time.Time
}

// Converge is what makes the replicas of a service fit its row, in the order in
// which it has to be done; nothing when they do. An error is a fault: there is
// no place for a replica that is wanted.
//
// Replicas on machines that are down count as present and are left alone: a
// partition is no death, and those machines make theirs fit when they return.
// Only failover, which the service has to ask for, or MoveDead see it otherwise.
func Converge(v View, service string, o Options) ([]Step, error) {
	steps, _, err := converge(v, service, o)
	return steps, err
}

// converge also returns the state as it will be after the steps.
func converge(v View, service string, o Options) ([]Step, *spec.State, error) {
	svc, ok := v.State.Services[service]
	rev, known := v.State.Revisions[svc.Revision]
	if !ok || !known || svc.Wanted != spec.WantRunning {
		return nil, v.State, nil
	}
	c := &convergence{
		View: v, o: o, svc: svc, rev: rev, now: v.State,
		ask: Ask{Service: svc, Spec: rev.Spec, Images: v.Images},
	}
	// A spec that asks for the impossible was refused; if one got here all the
	// same, stop-first is what does no harm.
	c.order, c.orderWhy, _ = OrderOf(rev.Spec)
	fit := c.replicated
	if rev.Spec.Mode == spec.Global {
		fit = c.global
	}
	if err := fit(c.sorted()); err != nil {
		return nil, v.State, err
	}
	return c.steps(), c.State, nil
}

// convergence is one answer in the making. Its State becomes a draft with the
// first change, so that each placement sees those before it.
type convergence struct {
	View
	o        Options
	now      *spec.State // as it is
	svc      spec.Service
	rev      spec.Revision
	ask      Ask
	order    spec.Order
	orderWhy string
	names    machineNames
	made     int // replicas drafted

	forget, adopt, start, create, remove, replace []Step
	kept                                          []spec.Replica
	// touchesServing is set when a replica of another revision that takes
	// traffic has to go. The ones that stay must be seen healthy before.
	touchesServing bool
}

// fitness is how well a replica fits its service's row; more is worse.
type fitness int

const (
	right     fitness = iota
	adoptable         // another revision, but the container is the one wanted
	wrong             // another container, or a place where it may not be
)

// candidate is a replica that may stay.
type candidate struct {
	spec.Replica
	fitness fitness
	serving bool
	dead    bool
	misfit  string // why it may not stay on its machine
}

// sorted are the service's replicas as candidates, those first that should stay
// when there are too many. Read from the end it is the order in which surplus
// retires: wrong revision, unhealthy, newest, highest id. Those of machines that
// are down come last of all, because they only count for what the living leave
// open: a replica that serves, whatever its revision, never goes for one that may
// not be there.
func (c *convergence) sorted() []candidate {
	var all []candidate
	for _, r := range c.now.ReplicasOf(c.svc.ID) {
		all = append(all, c.judge(r))
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(falseFirst(a.dead, b.dead), cmp.Compare(a.fitness, b.fitness), falseFirst(b.serving, a.serving),
			a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return all
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (c *convergence) judge(r spec.Replica) candidate {
	x := candidate{Replica: r, dead: !c.Alive[r.Machine], serving: spec.Eligible(c.now, c.Alive, r)}
	if _, member := c.now.Machines[r.Machine]; member {
		x.misfit = c.Scheduler.Stays(c.now, c.ask, r.Machine)
	}
	old := c.o.Recreate && (c.o.Rollout == "" || r.Rollout != c.o.Rollout)
	switch {
	case x.misfit != "" || old:
		x.fitness = wrong
	case r.Revision == c.rev.ID:
		x.fitness = right
	case adopts(c.now, r.Revision, c.rev.ID):
		x.fitness = adoptable
	default:
		x.fitness = wrong
	}
	return x
}

// adopts tells whether a replica of one revision becomes one of another
// without touching its container. With another health check it does not: the
// new check is proven on a new container, while the old one serves.
func adopts(s *spec.State, from, to string) bool {
	return spec.SameContainer(s, from, to) &&
		bytes.Equal(spec.Canonical(s.Revisions[from].Spec.Health), spec.Canonical(s.Revisions[to].Spec.Health))
}

func (c *convergence) replicated(all []candidate) error {
	var present []candidate
	for _, x := range all {
		if c.counts(x) {
			present = append(present, x)
		}
	}
	stay := min(len(present), max(c.svc.Replicas, 0))
	for _, x := range present[stay:] {
		c.retire(x, count(c.svc.Replicas, "replica")+" are wanted")
	}
	if err := c.keep(present[:stay]); err != nil {
		return err
	}
	for n := stay; n < c.svc.Replicas; n++ {
		p, err := c.Scheduler.Place(c.State, c.Alive, c.ask)
		if err != nil {
			return err
		}
		c.run(p)
	}
	return nil
}

// counts tells whether a replica is one of those that are wanted. One on a
// machine that is no member is forgotten here, and so is one that a person
// wants to run elsewhere. One that failed over is neither: it stays recorded,
// so that when its machine returns the copy retires and not the original.
func (c *convergence) counts(x candidate) bool {
	_, member := c.now.Machines[x.Machine]
	switch {
	case !member:
		c.forgets(x, "its machine was removed")
		return false
	case !x.dead || c.Scheduler.HomeOf(c.now, c.ask) != "":
		return true
	case c.rev.Spec.Placement.Failover:
		return false
	case c.o.MoveDead:
		c.forgets(x, c.name(x.Machine)+" is down: its copy ends when it returns")
		return false
	}
	return true
}

// global keeps one replica on each machine that should have one. Machines that
// are down are left alone.
func (c *convergence) global(all []candidate) error {
	places, err := c.Scheduler.Everywhere(c.now, c.Alive, c.ask)
	if err != nil {
		return err
	}
	var stay []candidate
	has := map[string]bool{}
	for _, x := range all {
		_, member := c.now.Machines[x.Machine]
		switch {
		case !member:
			c.forgets(x, "its machine was removed")
		case x.dead:
		case x.misfit != "":
			c.retire(x, x.misfit)
		case has[x.Machine]:
			c.retire(x, "one replica on each machine is wanted")
		default:
			has[x.Machine] = true
			stay = append(stay, x)
		}
	}
	if err := c.keep(stay); err != nil {
		return err
	}
	for _, p := range places {
		if !has[p.Machine] {
			c.run(p)
		}
	}
	return nil
}

// keep makes the replicas that stay fit.
func (c *convergence) keep(stay []candidate) error {
	for _, x := range stay {
		switch {
		case x.dead:
		case x.fitness == wrong:
			if err := c.replaces(x); err != nil {
				return err
			}
		default:
			c.kept = append(c.kept, x.Replica)
			if x.fitness == adoptable || x.Wanted != spec.WantRunning {
				c.adopts(x)
			}
		}
	}
	return nil
}

// steps puts everything in order. Start-first adds before it takes away, and
// makes sure of what stays before the last that serves goes; stop-first is the
// other way round, because two side by side are what it is there to prevent.
func (c *convergence) steps() []Step {
	first := c.order == spec.StartFirst
	for _, r := range c.kept {
		mine := c.o.Rollout != "" && r.Rollout == c.o.Rollout
		sure := mine || c.o.All || c.touchesServing && first
		if sure && !c.o.Verified[r.ID] && !spec.Eligible(c.now, c.Alive, r) {
			c.start = append(c.start, c.step(Step{Kind: KindStart, Replica: r.ID, Machine: r.Machine,
				Text: fmt.Sprintf("wait for %s on %s", r.Name, c.name(r.Machine))}))
		}
	}
	if first {
		return slices.Concat(c.forget, c.adopt, c.create, c.start, c.remove, c.replace)
	}
	return slices.Concat(c.forget, c.remove, c.adopt, c.create, c.start, c.replace)
}

func (c *convergence) name(machine string) string {
	if c.names == nil {
		c.names = c.now.MachineNames()
	}
	return c.names.of(machine)
}
