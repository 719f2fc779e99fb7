package schedule

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// world is a random cluster with one service, in whatever state partitions,
// crashes and half-finished rollouts may have left it.
type world struct {
	s     *spec.State
	alive spec.Alive
	svc   string
	clock time.Time
	made  int
}

// drawWorld draws a world; narrow makes its specs those that a test is about.
func drawWorld(t *rapid.T, narrow ...func(*spec.ServiceSpec)) *world {
	s, alive, _ := cluster(rapid.IntRange(1, 5).Draw(t, "machines"))
	w := &world{s: s, alive: alive, svc: spec.ServiceID("shop", "web"), clock: epoch}
	ids := slices.Sorted(maps.Keys(s.Machines))
	for _, id := range ids {
		if rapid.IntRange(0, 4).Draw(t, "down") == 0 {
			delete(alive, id)
		}
		edit(s, id, func(m *spec.Machine) {
			m.Schedulable = rapid.IntRange(0, 5).Draw(t, "schedulable") > 0
			m.Labels = map[string]string{"disk": rapid.SampledFrom([]string{"ssd", "hdd"}).Draw(t, "disk")}
		})
	}
	var revs []string
	for _, image := range []string{"web:1", "web:2"} {
		sp := drawSpec(t, image)
		for _, n := range narrow {
			n(&sp)
		}
		revs = append(revs, w.revision(sp))
	}
	now := revs[rapid.IntRange(0, 1).Draw(t, "now")]
	s.Services[w.svc] = spec.Service{ID: w.svc, Project: "shop", Name: "web", Mode: s.Revisions[now].Spec.Mode, Revision: now,
		Replicas: rapid.IntRange(1, 5).Draw(t, "wanted"), Wanted: spec.WantRunning, CreatedAt: epoch}
	for range rapid.IntRange(0, 7).Draw(t, "replicas") {
		machine := rapid.SampledFrom(append(slices.Clone(ids), "mch_removed")).Draw(t, "machine")
		w.add(t, machine, rapid.SampledFrom(revs).Draw(t, "revision"))
	}
	return w
}

func drawSpec(t *rapid.T, image string) spec.ServiceSpec {
	sp := spec.ServiceSpec{Name: "web", Mode: rapid.SampledFrom([]spec.Mode{spec.Replicated, spec.Replicated, spec.Global}).Draw(t, "mode")}
	sp.Container.Image = rapid.SampledFrom([]string{image, "web:0"}).Draw(t, "image")
	sp.Caddy = image // so that two revisions differ even if their containers do not
	if rapid.IntRange(0, 2).Draw(t, "volume") == 0 {
		sp.Container.Mounts = mount("data")
		sp.Volumes = []spec.VolumeSpec{{Name: "data", Shared: rapid.Bool().Draw(t, "shared")}}
	}
	if rapid.IntRange(0, 3).Draw(t, "port") == 0 {
		sp.Ports = []spec.Port{web80}
	}
	if rapid.IntRange(0, 3).Draw(t, "constraint") == 0 {
		sp.Placement.Constraints = []string{"label.disk==ssd"}
	}
	sp.Placement.Failover = rapid.Bool().Draw(t, "failover")
	if len(sp.Container.Mounts) == 0 {
		sp.Update.Order = rapid.SampledFrom([]spec.Order{"", spec.StartFirst, spec.StopFirst}).Draw(t, "order")
	}
	return sp
}

// pinned has a volume with one writer, on one machine.
func pinned(sp *spec.ServiceSpec) {
	sp.Mode, sp.Container.Mounts, sp.Update.Order = spec.Replicated, mount("data"), ""
	sp.Volumes = []spec.VolumeSpec{{Name: "data"}}
}

// startFirst never stops before it starts.
func startFirst(sp *spec.ServiceSpec) {
	sp.Mode, sp.Container.Mounts, sp.Volumes, sp.Update.Order = spec.Replicated, nil, nil, spec.StartFirst
}

func (w *world) revision(sp spec.ServiceSpec) string {
	id := sp.RevisionID(w.svc)
	w.s.Revisions[id] = spec.Revision{ID: id, Service: w.svc, Spec: sp}
	return id
}

// add puts a replica somewhere, running or not. The volumes it mounts are there.
func (w *world) add(t *rapid.T, machine, rev string) {
	id := fmt.Sprintf("rep_%02d", rapid.IntRange(0, 99).Filter(func(n int) bool {
		_, taken := w.s.Replicas[fmt.Sprintf("rep_%02d", n)]
		return !taken
	}).Draw(t, "id"))
	w.s.Replicas[id] = spec.Replica{ID: id, Name: id, Service: w.svc, Revision: rev, Machine: machine,
		Wanted:    rapid.SampledFrom([]spec.Wanted{spec.WantRunning, spec.WantRunning, spec.WantDraining}).Draw(t, "replica wanted"),
		CreatedAt: epoch.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "age")) * time.Minute)}
	if rapid.IntRange(0, 3).Draw(t, "container") > 0 {
		w.s.Containers[id] = spec.Container{Replica: id, Machine: machine, Revision: rev, State: spec.ContainerRunning,
			Health: rapid.SampledFrom([]spec.Health{spec.HealthHealthy, spec.HealthHealthy, spec.HealthUnhealthy}).Draw(t, "health")}
	}
	if _, ok := w.s.Machines[machine]; ok && len(w.s.Revisions[rev].Spec.Container.Mounts) > 0 {
		volume(w.s, "shop", "data", machine, 0)
	}
}

func (w *world) view() plan.View {
	return plan.View{State: w.s, Alive: w.alive, Scheduler: Scheduler{}}
}

func (w *world) serving() (n int) {
	for _, r := range w.s.Replicas {
		if spec.Eligible(w.s, w.alive, r) {
			n++
		}
	}
	return n
}

// writers is how many replicas of the living have the service's volume of one
// machine in their hands, at most.
func (w *world) writers() (most int) {
	by := map[string]int{}
	for id, c := range w.s.Containers {
		if r := w.s.Replicas[id]; w.alive[c.Machine] && len(w.s.Revisions[r.Revision].Spec.Container.Mounts) > 0 {
			by[c.Machine]++
			most = max(most, by[c.Machine])
		}
	}
	return most
}

func (w *world) run(id string) {
	r := w.s.Replicas[id]
	w.s.Containers[id] = spec.Container{Replica: id, Machine: r.Machine, Revision: r.Revision, State: spec.ContainerRunning, Health: spec.HealthHealthy}
}

func (w *world) create(s plan.Step) {
	w.made++
	w.clock = w.clock.Add(time.Hour)
	id := fmt.Sprintf("rep_new%d", w.made)
	w.s.Replicas[id] = spec.Replica{ID: id, Name: id, Service: s.Service, Revision: s.Revision, Machine: s.Machine,
		Wanted: spec.WantRunning, CreatedAt: w.clock}
	w.run(id)
}

func (w *world) remove(id string) {
	delete(w.s.Replicas, id)
	delete(w.s.Containers, id)
}

// do does a step as the rollout driver would, with a look after each part.
func (w *world) do(s plan.Step, look func()) {
	defer look()
	switch s.Kind {
	case plan.KindForget, plan.KindRemove:
		w.remove(s.Replica)
	case plan.KindVolume:
		w.s.Volumes[s.Volume.ID] = s.Volume
	case plan.KindAdopt:
		r := w.s.Replicas[s.Replica]
		r.Revision, r.Wanted = s.Revision, spec.WantRunning
		w.s.Replicas[s.Replica] = r
	case plan.KindStart:
		w.run(s.Replica)
	case plan.KindCreate:
		w.create(s)
	case plan.KindReplace, plan.KindMove:
		if s.Order == spec.StopFirst {
			w.remove(s.Replica)
			look()
			w.create(s)
			return
		}
		w.create(s)
		look()
		w.remove(s.Replica)
	}
}

// converge does all steps, and asks again until there are none.
func (w *world) converge(t *rapid.T, look func()) error {
	for range 4 {
		steps, err := plan.Converge(w.view(), w.svc, plan.Options{})
		if err != nil || len(steps) == 0 {
			return err
		}
		for _, s := range steps {
			w.do(s, look)
		}
	}
	steps, err := plan.Converge(w.view(), w.svc, plan.Options{})
	if len(steps) > 0 {
		t.Fatalf("does not come to rest: %+v", steps)
	}
	return err
}

func TestConvergeComesToRestWithWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		svc := w.s.Services[w.svc]
		sp := w.s.Revisions[svc.Revision].Spec
		err := w.converge(t, func() {})
		if err != nil {
			if c := faults.CodeOf(err); c != faults.NoPlace && c != faults.MachineDown && c != faults.Conflict {
				t.Fatalf("error %v", err)
			}
			return
		}
		living, perMachine := 0, map[string]int{}
		for _, r := range w.s.Replicas {
			if !w.alive[r.Machine] {
				continue
			}
			living++
			perMachine[r.Machine]++
			if r.Revision != svc.Revision || r.Wanted != spec.WantRunning {
				t.Errorf("%+v does not fit", r)
			}
			if why := (Scheduler{}).Stays(w.s, plan.Ask{Service: svc, Spec: sp}, r.Machine); why != "" {
				t.Errorf("%s may not be on %s: %s", r.ID, r.Machine, why)
			}
		}
		if sp.Mode == spec.Global {
			for machine, n := range perMachine {
				if n > 1 {
					t.Errorf("%d on %s", n, machine)
				}
			}
			return
		}
		if living > svc.Replicas {
			t.Errorf("%d live, %d are wanted", living, svc.Replicas)
		}
		home := (Scheduler{}).HomeOf(w.s, plan.Ask{Service: svc, Spec: sp})
		if sp.Placement.Failover && home == "" && living != svc.Replicas {
			t.Errorf("%d live, %d are wanted with failover", living, svc.Replicas)
		}
		if len(w.s.Replicas) < svc.Replicas {
			t.Errorf("%d replicas of %d", len(w.s.Replicas), svc.Replicas)
		}
	})
}

func TestConvergeIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		first, firstErr := plan.Converge(w.view(), w.svc, plan.Options{Rollout: "rol_x", MoveDead: true})
		for range 3 {
			// A copy has its maps in another order.
			c := *w.s
			c.Machines, c.Replicas, c.Containers = maps.Clone(c.Machines), maps.Clone(c.Replicas), maps.Clone(c.Containers)
			again, err := plan.Converge(plan.View{State: &c, Alive: maps.Clone(w.alive), Scheduler: Scheduler{}}, w.svc,
				plan.Options{Rollout: "rol_x", MoveDead: true})
			if !reflect.DeepEqual(first, again) || fmt.Sprint(firstErr) != fmt.Sprint(err) {
				t.Fatalf("once %+v %v\nthen %+v %v", first, firstErr, again, err)
			}
		}
	})
}

func TestConvergeChangesNothingItWasGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := string(spec.Canonical(w.s))
		plan.Converge(w.view(), w.svc, plan.Options{MoveDead: true, Recreate: true}) //nolint:errcheck,gosec // only what it does to its input matters
		if after := string(spec.Canonical(w.s)); after != before {
			t.Fatalf("the state was changed\n%s\n%s", before, after)
		}
	})
}

func TestConvergeKeepsServing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, startFirst)
		least := min(w.serving(), w.s.Services[w.svc].Replicas)
		w.converge(t, func() { //nolint:errcheck,gosec // whether there is place for all does not matter
			if n := w.serving(); n < least {
				t.Fatalf("%d serve, %d did", n, least)
			}
		})
	})
}

func TestConvergeNeverAddsASecondWriter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, pinned)
		svc := w.s.Services[w.svc]
		svc.Replicas = 1
		w.s.Services[w.svc] = svc
		most := max(w.writers(), 1)
		w.converge(t, func() { //nolint:errcheck,gosec // whether there is place for all does not matter
			if n := w.writers(); n > most {
				t.Fatalf("%d write to one volume", n)
			}
		})
	})
}

// TestVolumeIsNeverMadeAnewWhileItExists is the worst thing an orchestrator can
// do: an empty database, because the machine with the full one is away.
func TestVolumeIsNeverMadeAnewWhileItExists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, pinned)
		volume(w.s, "shop", "data", rapid.SampledFrom(slices.Sorted(maps.Keys(w.s.Machines))).Draw(t, "home"), time.Hour)
		for _, o := range []plan.Options{{}, {MoveDead: true}, {Recreate: true}} {
			steps, _ := plan.Converge(w.view(), w.svc, o)
			for _, s := range steps {
				if s.Kind == plan.KindVolume {
					t.Fatalf("makes another volume: %+v", s)
				}
			}
		}
	})
}
