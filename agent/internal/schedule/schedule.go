// Package schedule chooses machines for replicas. It owns placement: which
// machines a service may run on, which of them is best, and a sentence for
// each machine that is not chosen.
//
// It is pure and deterministic: the same state, liveness and request give the
// same machine on every machine of the cluster. It refuses to move what runs:
// a healthy replica is never taken away for the sake of balance.
package schedule

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// Scheduler is the plan.Scheduler of the product. Its zero value is ready.
type Scheduler struct{}

var _ plan.Scheduler = Scheduler{}

// Place is the machine for one more replica: of those that may run it the one
// with the fewest replicas of the service, then with the fewest of all, then by
// a hash that spreads services. A volume that exists decides alone.
//
// Errors are faults: MachineDown when the volume or every machine that is asked
// for is down, Conflict when only taken ports stand in the way, NoImage when
// only the image is missing, otherwise NoPlace with a reason for each machine.
func (Scheduler) Place(s *spec.State, alive spec.Alive, ask plan.Ask) (plan.Place, error) {
	r, err := newRequest(s, alive, ask)
	if err != nil {
		return plan.Place{}, err
	}
	var fit []string
	for _, m := range r.machines {
		if r.refusal(m).none() {
			fit = append(fit, m.ID)
		}
	}
	if len(fit) == 0 {
		return plan.Place{}, r.noPlace()
	}
	best := slices.MinFunc(fit, r.compare)
	return plan.Place{Machine: best, Reason: r.reason(best, fit)}, nil
}

// Everywhere is every machine that may run the service now, sorted by name.
// None is no error: a global service runs where it can.
func (Scheduler) Everywhere(s *spec.State, alive spec.Alive, ask plan.Ask) ([]plan.Place, error) {
	ask.Spec.Mode = spec.Global
	r, err := newRequest(s, alive, ask)
	if err != nil {
		return nil, err
	}
	var places []plan.Place
	for _, m := range r.machines {
		// Ports of the service itself do not count: there is one replica a machine.
		if r.refusal(m).none() {
			places = append(places, plan.Place{Machine: m.ID, Reason: "the service is global"})
		}
	}
	return places, nil
}

// Stays is why a replica may not stay on a machine. A machine that takes no new
// replicas keeps those it has.
func (Scheduler) Stays(s *spec.State, ask plan.Ask, machine string) string {
	r, err := newRequest(s, nil, ask)
	if err != nil {
		return "" // what is asked for cannot be judged, so nothing moves
	}
	i := slices.IndexFunc(r.machines, func(m spec.Machine) bool { return m.ID == machine })
	if i < 0 {
		return "its machine is no member"
	}
	if why := r.rule(r.machines[i]); !why.none() || !r.leaves(machine) {
		return why.text
	}
	return r.names[machine] + " is about to be upgraded"
}

// leaves tells whether a replica moves away for an upgrade of its machine. One
// with a volume there cannot, and one of a global service has nowhere to go.
func (r *request) leaves(machine string) bool {
	return r.state.Drained(machine) && r.ask.Spec.Mode != spec.Global && len(r.homes) == 0
}

// HomeOf is the machine that holds a volume which only lives there, or empty.
func (Scheduler) HomeOf(s *spec.State, ask plan.Ask) string {
	if homes := homes(s, ask); len(homes) > 0 {
		return homes[0].Machine
	}
	return ""
}

// request is one question with everything that answers it.
type request struct {
	ask      plan.Ask
	state    *spec.State
	alive    spec.Alive
	names    map[string]string
	machines []spec.Machine // by name
	only     map[string]bool
	rules    []constraint
	homes    []spec.Volume
	own, all map[string]int // replicas by machine
}

func newRequest(s *spec.State, alive spec.Alive, ask plan.Ask) (*request, error) {
	r := &request{ask: ask, state: s, alive: alive, names: s.MachineNames(),
		own: map[string]int{}, all: map[string]int{}}
	for _, m := range s.Machines {
		r.machines = append(r.machines, m)
	}
	slices.SortFunc(r.machines, func(a, b spec.Machine) int {
		return cmp.Or(cmp.Compare(r.names[a.ID], r.names[b.ID]), cmp.Compare(a.ID, b.ID))
	})
	if err := r.readPlacement(); err != nil {
		return nil, err
	}
	if ask.Spec.Mode != spec.Global {
		r.homes = homes(s, ask)
	}
	for _, rep := range s.Replicas {
		r.all[rep.Machine]++
		if rep.Service == ask.Service.ID {
			r.own[rep.Machine]++
		}
	}
	return r, nil
}

func (r *request) readPlacement() error {
	for _, text := range r.ask.Spec.Placement.Constraints {
		c, err := parseConstraint(text)
		if err != nil {
			return err
		}
		r.rules = append(r.rules, c)
	}
	// A name that means nothing, because its machine was removed since, allows
	// nothing. A deploy refuses it before anything is placed.
	for _, ref := range r.ask.Spec.Placement.Machines {
		if r.only == nil {
			r.only = map[string]bool{}
		}
		if m, ok := r.state.MachineByRef(ref); ok {
			r.only[m.ID] = true
		}
	}
	return nil
}

// homes are the volumes that pin a replicated service: of each name the oldest
// row, since two partitions may have made one each. A shared volume pins
// nothing. An external one may be a volume of any project, by its name in the
// engine; where no row has that name, nothing is known of where it is.
func homes(s *spec.State, ask plan.Ask) []spec.Volume {
	if ask.Spec.Mode == spec.Global {
		return nil
	}
	declared := map[string]spec.VolumeSpec{}
	for _, v := range ask.Spec.Volumes {
		declared[v.Name] = v
	}
	var found []spec.Volume
	for _, m := range ask.Spec.Container.Mounts {
		if m.Type != spec.MountVolume || m.Source == "" || declared[m.Source].Shared {
			continue
		}
		want := spec.EngineVolume(ask.Service.Project, spec.VolumeSpec{Name: m.Source, External: declared[m.Source].External})
		if v, ok := oldest(s, want); ok {
			found = append(found, v)
		}
	}
	return found
}

// oldest is the oldest row of a member's volume with this name in the engine.
func oldest(s *spec.State, name string) (spec.Volume, bool) {
	var best spec.Volume
	for _, v := range s.Volumes {
		if _, member := s.Machines[v.Machine]; !member || spec.EngineVolume(v.Project, spec.VolumeSpec{Name: v.Name}) != name {
			continue
		}
		if best.ID == "" || cmp.Or(v.CreatedAt.Compare(best.CreatedAt), cmp.Compare(v.ID, best.ID)) < 0 {
			best = v
		}
	}
	return best, best.ID != ""
}

// compare puts the better of two machines first.
func (r *request) compare(a, b string) int {
	return cmp.Or(cmp.Compare(r.own[a], r.own[b]), cmp.Compare(r.all[a], r.all[b]),
		cmp.Compare(r.hash(a), r.hash(b)), cmp.Compare(a, b))
}

// hash spreads services over machines that are equally good, the same way on
// every machine.
func (r *request) hash(machine string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(r.ask.Service.ID + "\x00" + machine)) //nolint:errcheck,gosec // a hash takes everything
	return h.Sum64()
}

func (r *request) reason(best string, fit []string) string {
	for _, v := range r.homes {
		if v.Machine == best {
			return fmt.Sprintf("volume %s is there", v.Name)
		}
	}
	if len(fit) == 1 && len(r.machines) > 1 {
		return "no other machine fits"
	}
	return fmt.Sprintf("%d of %s and %d in all run there", r.own[best], r.ask.Spec.Name, r.all[best])
}

// noPlace says for each machine why not.
func (r *request) noPlace() error {
	var lines []string
	codes := map[faults.Code]int{}
	for _, m := range r.machines {
		why := r.refusal(m)
		codes[why.code]++
		lines = append(lines, why.text)
	}
	for _, v := range r.homes {
		if !r.alive[v.Machine] {
			return faults.New(faults.MachineDown, "volume %s of %s is on %s, which is down", v.Name, r.ask.Spec.Name, r.names[v.Machine]).
				WithHint("start the machine, then try again; see: uc machine ls")
		}
	}
	code, hint := faults.NoPlace, "see machines and labels: uc machine ls"
	switch {
	case len(r.only) > 0 && codes[faults.MachineDown] == len(r.only):
		code = faults.MachineDown
	case codes[faults.Conflict] > 0 && codes[faults.Conflict]+codes[faults.MachineDown] == len(r.machines):
		code, hint = faults.Conflict, "see who has the port: uc ls"
	case codes[faults.NoImage] > 0 && codes[faults.NoImage]+codes[faults.MachineDown] == len(r.machines):
		code, hint = faults.NoImage, plan.PushHint(r.ask.Spec.Container.Image)
	}
	if len(lines) == 0 {
		lines = []string{"the cluster has no machine"}
	}
	return faults.New(code, "no machine can run %s: %s", r.ask.Spec.Name, strings.Join(lines, "; ")).WithHint("%s", hint)
}
