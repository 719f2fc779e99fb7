package reconcile

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/spec"
)

const (
	self    = "mch_self"
	cluster = "cls_1"
)

var subnet = netip.MustParsePrefix("10.210.7.0/24")

// base is a state in which service web of project shop has one revision,
// rev_1, and one replica here, rep_1.
func base() *spec.State {
	rev := spec.Revision{ID: "rev_1", Service: "svc_web", Spec: spec.ServiceSpec{Name: "web", Container: spec.ContainerSpec{Image: "web:1"}}}
	return &spec.State{
		Machines:   map[string]spec.Machine{self: {ID: self, Subnet: subnet}},
		Services:   map[string]spec.Service{"svc_web": {ID: "svc_web", Project: "shop", Name: "web", Revision: "rev_1", Replicas: 1, Wanted: spec.WantRunning}},
		Revisions:  map[string]spec.Revision{"rev_1": rev},
		Replicas:   map[string]spec.Replica{"rep_1": {ID: "rep_1", Name: "web-1", Service: "svc_web", Revision: "rev_1", Machine: self, Wanted: spec.WantRunning}},
		Containers: map[string]spec.Container{},
	}
}

func hash(s *spec.State, revision string) string { return s.Revisions[revision].Spec.Container.Hash() }

// fitting is a container as rep_1 of base wants it.
func fitting(s *spec.State, state runtime.State) runtime.Container {
	return runtime.Container{
		ID: "c1", Cluster: cluster, Replica: "rep_1", Service: "svc_web", Project: "shop", Revision: "rev_1",
		Spec: hash(s, "rev_1"), Address: netip.MustParseAddr("10.210.7.2"), State: state,
	}
}

func TestPlan(t *testing.T) {
	replica := func(s *spec.State, change func(*spec.Replica)) {
		r := s.Replicas["rep_1"]
		change(&r)
		s.Replicas["rep_1"] = r
	}
	for _, c := range []struct {
		name   string
		state  runtime.State // of the container; empty: there is none
		change func(s *spec.State, in *Input)
		want   string
	}{
		{"missing", "", nil, "run rep_1: replica web-1 has no container"},
		{"running", runtime.Running, nil, ""},
		{"paused by hand", runtime.Paused, nil, ""},
		{"between two states", runtime.Stopping, nil, ""},
		{"being removed", runtime.Removing, nil, "remove rep_1: the removal of a container of replica web-1 is not over"},
		{"created", runtime.Created, nil, "start rep_1: replica web-1 was never started"},
		{"exited", runtime.Exited, nil, "start rep_1: replica web-1 exited with code 0"},
		{"lost", runtime.Lost, nil, "start rep_1: replica web-1 ended with the machine's power"},
		{"monitor dead", runtime.Orphaned, nil, "cure rep_1: the monitor of replica web-1 is dead"},
		{"service stopped", runtime.Running, func(s *spec.State, _ *Input) {
			svc := s.Services["svc_web"]
			svc.Wanted = spec.WantStopped
			s.Services["svc_web"] = svc
		}, "stop rep_1: replica web-1 is wanted stopped"},
		{"replica stopped", runtime.Orphaned, func(s *spec.State, _ *Input) {
			replica(s, func(r *spec.Replica) { r.Wanted = spec.WantStopped })
		}, "stop rep_1: replica web-1 is wanted stopped"},
		{"stopped as wanted", runtime.Exited, func(s *spec.State, _ *Input) {
			replica(s, func(r *spec.Replica) { r.Wanted = spec.WantStopped })
		}, ""},
		{"stopped and never made", "", func(s *spec.State, _ *Input) {
			replica(s, func(r *spec.Replica) { r.Wanted = spec.WantStopped })
		}, ""},
		{"retired while stopped", runtime.Exited, func(s *spec.State, in *Input) {
			replica(s, func(r *spec.Replica) { r.Wanted = spec.WantStopped })
			in.Retiring = map[string]bool{"rep_1": true}
		}, "remove rep_1: replica web-1 is retired"},
		{"retired while draining", runtime.Running, func(s *spec.State, in *Input) {
			replica(s, func(r *spec.Replica) { r.Wanted = spec.WantDraining })
			in.Retiring = map[string]bool{"rep_1": true}
		}, "remove rep_1: replica web-1 is retired"},
		{"not retired while wanted", runtime.Running, func(_ *spec.State, in *Input) {
			in.Retiring = map[string]bool{"rep_1": true}
		}, ""},
		{"draining runs on", runtime.Running, func(s *spec.State, _ *Input) {
			replica(s, func(r *spec.Replica) { r.Wanted = spec.WantDraining })
		}, ""},
		{"draining that ended stays down", runtime.Exited, func(s *spec.State, _ *Input) {
			replica(s, func(r *spec.Replica) { r.Wanted = spec.WantDraining })
		}, ""},
		{"draining that was removed stays so", "", func(s *spec.State, _ *Input) {
			replica(s, func(r *spec.Replica) { r.Wanted = spec.WantDraining })
		}, ""},
		{"another container wanted", runtime.Running, func(s *spec.State, _ *Input) {
			s.Revisions["rev_2"] = spec.Revision{ID: "rev_2", Spec: spec.ServiceSpec{Container: spec.ContainerSpec{Image: "web:2"}}}
			replica(s, func(r *spec.Replica) { r.Revision = "rev_2" })
		}, "remove rep_1: replica web-1 wants another container: revision rev_2"},
		{"another revision, same container", runtime.Running, func(s *spec.State, _ *Input) {
			rev := s.Revisions["rev_1"]
			rev.ID, rev.Spec.Ports = "rev_2", []spec.Port{{Container: 80, Protocol: "http"}}
			s.Revisions["rev_2"] = rev
			replica(s, func(r *spec.Replica) { r.Revision = "rev_2" })
		}, ""},
		{"revision not here yet", runtime.Exited, func(s *spec.State, _ *Input) { delete(s.Revisions, "rev_1") }, ""},
		{"replica gone", runtime.Running, func(s *spec.State, _ *Input) { delete(s.Replicas, "rep_1") }, "remove rep_1: replica rep_1 is no more"},
		{"service gone", runtime.Running, func(s *spec.State, _ *Input) { delete(s.Services, "svc_web") }, "remove rep_1: the service of replica web-1 is no more"},
		{"moved away", runtime.Running, func(s *spec.State, _ *Input) {
			replica(s, func(r *spec.Replica) { r.Machine = "mch_other" })
		}, "remove rep_1: replica web-1 belongs to machine mch_other"},
		{"replica gone, but the state may be old", runtime.Running, func(s *spec.State, in *Input) {
			delete(s.Replicas, "rep_1")
			in.Ready = false
		}, ""},
		{"missing, though the state may be old", "", func(_ *spec.State, in *Input) { in.Ready = false }, "run rep_1: replica web-1 has no container"},
		{"of another cluster", runtime.Running, func(s *spec.State, in *Input) {
			delete(s.Replicas, "rep_1")
			in.Observed[0].Cluster = "cls_2"
		}, ""},
		{"of another cluster beside ours", runtime.Running, func(_ *spec.State, in *Input) {
			in.Observed[0].Cluster = "cls_2"
		}, "run rep_1: replica web-1 has no container"},
		{"renumbered", runtime.Running, func(s *spec.State, _ *Input) {
			s.Machines[self] = spec.Machine{ID: self, Subnet: netip.MustParsePrefix("10.210.9.0/24")}
			s.Replicas["rep_2"] = spec.Replica{ID: "rep_2", Name: "web-2", Service: "svc_web", Revision: "rev_1", Machine: self, Wanted: spec.WantRunning}
		}, "remove rep_1: address 10.210.7.2 of replica web-1 is outside of 10.210.9.0/24"},
		{"without subnet", "", func(s *spec.State, _ *Input) { delete(s.Machines, self) }, ""},
		{"without subnet, running", runtime.Running, func(s *spec.State, _ *Input) { delete(s.Machines, self) }, ""},
		{"made twice", runtime.Running, func(s *spec.State, in *Input) {
			second := in.Observed[0]
			second.ID, second.State = "c0", runtime.Created
			in.Observed = append(in.Observed, second)
		}, "remove rep_1: replica rep_1 has a second container"},
	} {
		s := base()
		in := Input{Self: self, Cluster: cluster, State: s, Ready: true}
		if c.state != "" {
			in.Observed = []runtime.Container{fitting(s, c.state)}
		}
		if c.change != nil {
			c.change(s, &in)
		}
		if got := strings.TrimSpace(Describe(Plan(in))); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestOfTwoContainersTheLivingOneStays(t *testing.T) {
	s := base()
	old, living := fitting(s, runtime.Exited), fitting(s, runtime.Running)
	old.ID, old.StartedAt = "newer", time.Unix(200, 0)
	living.ID, living.StartedAt = "living", time.Unix(100, 0)
	plan := Plan(Input{Self: self, Cluster: cluster, State: s, Ready: true, Observed: []runtime.Container{old, living}})
	if len(plan) != 1 || plan[0].Kind != Remove || plan[0].Container.ID != "newer" {
		t.Errorf("%+v", plan)
	}
}

func TestHoldsDelayOnlyTheirOwnAction(t *testing.T) {
	s := base()
	in := Input{Self: self, Cluster: cluster, State: s, Ready: true, Observed: []runtime.Container{fitting(s, runtime.Exited)}}
	first := Plan(in)[0]
	until := time.Unix(1000, 0)
	in.Holds = map[string]Hold{"rep_1": {Key: first.Key(), Until: until}}
	if got := Plan(in)[0].NotBefore; !got.Equal(until) {
		t.Errorf("repeated: not before %v", got)
	}
	in.Observed = nil // to create is the same as to start: both bring it up
	if got := Plan(in)[0].NotBefore; !got.Equal(until) {
		t.Errorf("created instead: not before %v", got)
	}
	rev := s.Revisions["rev_1"]
	rev.Spec.Container.Image = "web:2"
	s.Revisions["rev_1"] = rev
	if got := Plan(in)[0].NotBefore; !got.IsZero() {
		t.Errorf("changed: not before %v", got)
	}
}

// world draws a state and what an engine might show for it.
func world(t *rapid.T) Input {
	s := base()
	names := []string{"rep_1", "rep_2", "rep_3", "rep_4"}
	s.Revisions["rev_2"] = spec.Revision{ID: "rev_2", Spec: spec.ServiceSpec{Container: spec.ContainerSpec{Image: "web:2"}}}
	s.Replicas = map[string]spec.Replica{}
	wanted := rapid.SampledFrom([]spec.Wanted{spec.WantRunning, spec.WantStopped, spec.WantDraining})
	for _, id := range names {
		if rapid.Bool().Draw(t, id) {
			s.Replicas[id] = spec.Replica{
				ID: id, Name: id, Service: rapid.SampledFrom([]string{"svc_web", "svc_web", "svc_gone"}).Draw(t, "service"),
				Revision: rapid.SampledFrom([]string{"rev_1", "rev_2", "rev_absent"}).Draw(t, "revision"),
				Machine:  rapid.SampledFrom([]string{self, self, "mch_other"}).Draw(t, "machine"), Wanted: wanted.Draw(t, "wanted"),
			}
		}
	}
	in := Input{Self: self, Cluster: cluster, State: s, Ready: rapid.Bool().Draw(t, "ready")}
	states := []runtime.State{runtime.Created, runtime.Running, runtime.Exited, runtime.Lost, runtime.Orphaned, runtime.Paused}
	for i := range rapid.IntRange(0, 6).Draw(t, "containers") {
		in.Observed = append(in.Observed, runtime.Container{
			ID: string(rune('a' + i)), Replica: rapid.SampledFrom(names).Draw(t, "replica"),
			Cluster: rapid.SampledFrom([]string{cluster, cluster, cluster, "cls_2"}).Draw(t, "cluster"),
			Spec:    hash(s, rapid.SampledFrom([]string{"rev_1", "rev_2"}).Draw(t, "spec")),
			Address: rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("10.210.7.9"), netip.MustParseAddr("10.210.8.9")}).Draw(t, "address"),
			State:   rapid.SampledFrom(states).Draw(t, "state"),
		})
	}
	return in
}

func TestPlanNeverTouchesWhatIsNotOurs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := world(t)
		seen := map[string]bool{}
		for _, a := range Plan(in) {
			if seen[a.Replica] {
				t.Fatalf("two actions for %s", a.Replica)
			}
			seen[a.Replica] = true
			if a.Kind != Run && a.Container.Cluster != cluster {
				t.Fatalf("%s of another cluster's container", a.Kind)
			}
			r, known := in.State.Replicas[a.Replica]
			ours := known && r.Machine == self && r.Service == "svc_web"
			if a.Kind == Remove && !ours && !in.Ready {
				t.Fatalf("removal while the state may be old: %s", a.Reason)
			}
			if (a.Kind == Run || a.Kind == Start || a.Kind == Cure) && (!ours || r.Wanted == spec.WantStopped) {
				t.Fatalf("%s of what should not run", a.Kind)
			}
		}
	})
}

// Doing what is planned, again and again, ends; and then nothing is missing.
func TestPlanConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := world(t)
		in.Ready = true
		const enough = 40
		for i := 0; ; i++ {
			plan := Plan(in)
			if len(plan) == 0 {
				break
			}
			if i == enough {
				t.Fatalf("still planned:\n%s", Describe(plan))
			}
			in.Observed = apply(in, plan[0])
		}
		for id, w := range Wishes(in.State, self) {
			if w.Running && !w.Draining && w.Hash != "" {
				assertRuns(t, in, id, w)
			}
		}
	})
}

func assertRuns(t *rapid.T, in Input, id string, w *Wish) {
	n := 0
	for _, c := range in.Observed {
		if c.Replica == id && c.Cluster == cluster {
			n++
			if !c.State.Alive() || c.Spec != w.Hash || !subnet.Contains(c.Address) {
				t.Fatalf("%s: %+v", id, c)
			}
		}
	}
	if n != 1 {
		t.Fatalf("%s has %d containers", id, n)
	}
}

// apply is the engine of TestPlanConverges.
func apply(in Input, a Action) []runtime.Container {
	var out []runtime.Container
	for _, c := range in.Observed {
		if c.ID == a.Container.ID && a.Kind != Run {
			switch a.Kind {
			case Remove:
				continue
			case Stop:
				c.State = runtime.Exited
			default:
				c.State = runtime.Running
			}
		}
		out = append(out, c)
	}
	if a.Kind == Run {
		out = append(out, runtime.Container{
			ID: "new " + a.Replica, Replica: a.Replica, Cluster: cluster, Spec: a.Spec,
			Address: netip.MustParseAddr("10.210.7.77"), State: runtime.Running,
		})
	}
	return out
}
