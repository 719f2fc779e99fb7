package reconcile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/spec"
)

// Input is all that a plan follows from.
type Input struct {
	Self     string // machine id
	Cluster  string // cluster id: containers of others are left alone
	State    *spec.State
	Ready    bool // the state has caught up: what it lacks is really gone
	Observed []runtime.Container
	Retiring map[string]bool // replicas whose container must go although they have a row
	Holds    map[string]Hold // by replica
}

// subnet is this machine's, or invalid while it is unknown.
func (in Input) subnet() netip.Prefix { return in.State.Machines[in.Self].Subnet }

// Plan says what to do: at most one action a replica, in the order in which to
// begin. It is empty when everything is as wanted. Equal inputs give equal plans.
func Plan(in Input) []Action {
	wishes := Wishes(in.State, in.Self)
	var actions []Action
	seen := map[string]bool{}
	for _, group := range byReplica(in.Observed, in.Cluster) {
		replica := group[0].Replica
		seen[replica] = true
		if a, ok := planGroup(in, wishes[replica], group); ok {
			actions = append(actions, a)
		}
	}
	if !strays(in) {
		actions = append(actions, planMissing(in, wishes, seen)...)
	}
	for i := range actions {
		a := &actions[i]
		if h := in.Holds[a.Replica]; h.Key == a.Key() {
			a.NotBefore = h.Until
		}
	}
	slices.SortStableFunc(actions, func(a, b Action) int {
		return cmp.Or(cmp.Compare(order[a.Kind], order[b.Kind]), cmp.Compare(a.Replica, b.Replica))
	})
	return actions
}

// Wishes are the replicas of a machine that its engine should have, by id. A
// replica whose revision has not arrived yet is a wish without Hash.
func Wishes(s *spec.State, machine string) map[string]*Wish {
	out := map[string]*Wish{}
	for id, r := range s.Replicas {
		svc, ok := s.Services[r.Service]
		if r.Machine != machine || !ok {
			continue
		}
		w := &Wish{Replica: r, Service: svc}
		w.Running = svc.Wanted != spec.WantStopped && r.Wanted != spec.WantStopped
		w.Draining = w.Running && (r.Wanted == spec.WantDraining || svc.Wanted == spec.WantDraining)
		if rev, ok := s.Revisions[r.Revision]; ok {
			w.Revision, w.Hash = rev, rev.Spec.Container.Hash()
		}
		out[id] = w
	}
	return out
}

// mayRetire tells whether the container may go while the replica has a row.
func (w *Wish) mayRetire() bool { return !w.Running || w.Draining }

// byReplica groups the cluster's containers by replica, in a fixed order. The
// first of a group is the one to keep: a living one before others, then the
// newest.
func byReplica(observed []runtime.Container, cluster string) [][]runtime.Container {
	groups := map[string][]runtime.Container{}
	for _, c := range observed {
		if c.Cluster == cluster && c.Replica != "" {
			groups[c.Replica] = append(groups[c.Replica], c)
		}
	}
	out := make([][]runtime.Container, 0, len(groups))
	for _, g := range groups {
		slices.SortFunc(g, func(a, b runtime.Container) int {
			return cmp.Or(compareBool(b.State.Alive(), a.State.Alive()), b.StartedAt.Compare(a.StartedAt), cmp.Compare(a.ID, b.ID))
		})
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b []runtime.Container) int { return cmp.Compare(a[0].Replica, b[0].Replica) })
	return out
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// strays tells whether a container has an address outside of the machine's
// subnet. The network cannot change under it, so nothing new runs until all
// of them are gone.
func strays(in Input) bool {
	return slices.ContainsFunc(in.Observed, func(c runtime.Container) bool {
		return c.Cluster == in.Cluster && !in.subnet().Contains(c.Address)
	})
}

func planMissing(in Input, wishes map[string]*Wish, seen map[string]bool) []Action {
	var out []Action
	for id, w := range wishes {
		if seen[id] || !w.Running || w.Draining || w.Hash == "" || in.Retiring[id] || !in.subnet().IsValid() {
			continue
		}
		out = append(out, Action{
			Kind: Run, Replica: id, Spec: w.Hash, Run: w,
			Reason: fmt.Sprintf("replica %s has no container", w.Replica.Name),
		})
	}
	return out
}

// planGroup is what to do about the containers of one replica.
func planGroup(in Input, w *Wish, group []runtime.Container) (Action, bool) {
	c := group[0]
	if len(group) > 1 && w != nil {
		return removal(group[1], w, "replica "+c.Replica+" has a second container"), true
	}
	if why := unwanted(in, w, c); why != "" {
		if w == nil && !in.Ready {
			return Action{}, false // its row may still be on its way here
		}
		return removal(c, w, why), true
	}
	if w == nil || w.Hash == "" {
		return Action{}, false
	}
	if !w.Running {
		return planStop(w, c)
	}
	return planUp(w, c)
}

// unwanted says why a container should not exist, or nothing.
func unwanted(in Input, w *Wish, c runtime.Container) string {
	switch {
	case w == nil:
		return gone(in, c)
	case in.Retiring[c.Replica] && w.mayRetire():
		return fmt.Sprintf("replica %s is retired", w.Replica.Name)
	case c.State == runtime.Removing:
		// Whoever began it may have been kept from ending it, by a full disk say.
		// To remove it again waits for them, or ends it.
		return fmt.Sprintf("the removal of a container of replica %s is not over", w.Replica.Name)
	case !in.subnet().IsValid():
		return "" // this machine's own row is not here yet
	case !in.subnet().Contains(c.Address):
		return fmt.Sprintf("address %s of replica %s is outside of %s", c.Address, w.Replica.Name, in.subnet())
	case w.Hash != "" && c.Spec != w.Hash:
		return fmt.Sprintf("replica %s wants another container: revision %s", w.Replica.Name, w.Replica.Revision)
	}
	return ""
}

func gone(in Input, c runtime.Container) string {
	r, ok := in.State.Replicas[c.Replica]
	switch {
	case !ok:
		return fmt.Sprintf("replica %s is no more", c.Replica)
	case r.Machine != in.Self:
		return fmt.Sprintf("replica %s belongs to machine %s", r.Name, r.Machine)
	}
	return fmt.Sprintf("the service of replica %s is no more", r.Name)
}

func planStop(w *Wish, c runtime.Container) (Action, bool) {
	if !c.State.Alive() || c.State == runtime.Stopping {
		return Action{}, false
	}
	return Action{
		Kind: Stop, Replica: c.Replica, Container: c, Grace: grace(w), Spec: w.Hash,
		Reason: fmt.Sprintf("replica %s is wanted stopped", w.Replica.Name),
	}, true
}

func planUp(w *Wish, c runtime.Container) (Action, bool) {
	a := Action{Kind: Start, Replica: c.Replica, Container: c, Grace: grace(w), Spec: w.Hash}
	switch c.State {
	case runtime.Orphaned:
		a.Kind, a.Reason = Cure, fmt.Sprintf("the monitor of replica %s is dead", w.Replica.Name)
	case runtime.Created:
		a.Reason = fmt.Sprintf("replica %s was never started", w.Replica.Name)
	case runtime.Lost:
		a.Reason = fmt.Sprintf("replica %s ended with the machine's power", w.Replica.Name)
	case runtime.Exited:
		a.Reason = fmt.Sprintf("replica %s exited with code %d", w.Replica.Name, c.ExitCode)
	default: // running, paused by hand, or between two states
		return Action{}, false
	}
	// A draining replica that ended has done what it was asked for.
	return a, !w.Draining || a.Kind == Cure
}

func removal(c runtime.Container, w *Wish, why string) Action {
	a := Action{Kind: Remove, Replica: c.Replica, Container: c, Grace: grace(w), Reason: why}
	if w != nil {
		a.Spec = w.Hash
	}
	return a
}

// grace is how long the replica may take to stop. Where its rows are gone, as
// they are when a service is removed, its container still knows.
func grace(w *Wish) time.Duration {
	if w == nil || w.Hash == "" {
		return runtime.OwnGrace
	}
	return w.Revision.Spec.Container.StopGrace.Or(spec.DefaultStopGrace)
}

// Describe is a plan as text, a line an action: for logs and golden tests.
func Describe(actions []Action) string {
	var b strings.Builder
	for _, a := range actions {
		fmt.Fprintf(&b, "%s %s: %s\n", a.Kind, a.Replica, a.Reason)
	}
	return b.String()
}
