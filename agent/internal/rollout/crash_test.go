package rollout

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"uncloud/internal/spec"
)

// TestDriverDiesAtEveryPoint kills the driver's machine before and after each
// call that it makes during an update, and looks whether the others finish.
func TestDriverDiesAtEveryPoint(t *testing.T) {
	noPrev := func(*simWorld) {}
	scenarios := []struct {
		name    string
		before  []spec.ServiceSpec
		after   []spec.ServiceSpec
		prepare func(*simWorld)
		watch   func(*simWorld)
	}{
		{"first deploy", nil, []spec.ServiceSpec{web("web:1", 3)}, noPrev, noPrev},
		{"failing first deploy", nil, []spec.ServiceSpec{web("web:1", 3)},
			func(w *simWorld) { w.becomes("web:1", exits) }, noPrev},
		{"start-first", []spec.ServiceSpec{web("web:1", 3)}, []spec.ServiceSpec{web("web:2", 3)}, noPrev,
			func(w *simWorld) { w.neverFewer("web", 3); w.loadAll() }},
		{"start-first, more replicas", []spec.ServiceSpec{web("web:1", 2)}, []spec.ServiceSpec{web("web:2", 4)}, noPrev,
			func(w *simWorld) { w.neverFewer("web", 2) }},
		{"stop-first", []spec.ServiceSpec{db("db:1")}, []spec.ServiceSpec{db("db:2")}, noPrev,
			func(w *simWorld) { w.neverTwoWriters() }},
		{"failing update", []spec.ServiceSpec{web("web:1", 3)}, []spec.ServiceSpec{web("web:2", 3)},
			func(w *simWorld) { w.becomes("web:2", neverHealthy) },
			func(w *simWorld) { w.neverFewer("web:1", 3) }},
		{"failing update of a volume", []spec.ServiceSpec{db("db:1")}, []spec.ServiceSpec{db("db:2")},
			func(w *simWorld) { w.becomes("db:2", exits) },
			func(w *simWorld) { w.neverTwoWriters() }},
		{"moved by a constraint", []spec.ServiceSpec{web("web:1", 2)}, []spec.ServiceSpec{elsewhere(web("web:2", 2))}, noPrev,
			func(w *simWorld) { w.neverFewer("web", 2) }},
	}
	for _, sc := range scenarios {
		for _, restarts := range []bool{false, true} {
			for _, driver := range []string{"a", "b"} {
				t.Run(fmt.Sprintf("%s/%s/restarts=%v", sc.name, driver, restarts), func(t *testing.T) {
					points := 0
					for at := 1; ; at++ {
						reached := false
						t.Run(fmt.Sprint(at), func(t *testing.T) {
							inWorld(t, three, func(t *testing.T, w *simWorld) {
								if sc.before != nil {
									must(t, w.m("c").deploy(sc.before...))
									w.settled("c")
								}
								sc.prepare(w)
								sc.watch(w)
								m := w.m(driver)
								w.mu.Lock()
								m.crashAt = at
								w.mu.Unlock()
								m.deploy(sc.after...) //nolint:errcheck // how it ends for the one who died does not matter
								w.mu.Lock()
								reached = !m.up
								m.crashAt = 0
								w.mu.Unlock()
								afterCrash(t, w, m, driver, reached, restarts)
							})
						})
						if t.Failed() || !reached {
							break
						}
						points++
					}
					if points < 4 {
						t.Errorf("only %d points to die at", points)
					}
				})
			}
		}
	}
}

func elsewhere(sp spec.ServiceSpec) spec.ServiceSpec {
	sp.Placement.Machines = []string{"c", "a"}
	return sp
}

// afterCrash waits for the others, and for the dead machine when it returns,
// and looks whether all of them show one finished state.
func afterCrash(t *testing.T, w *simWorld, m *simMachine, name string, crashed, restarts bool) {
	t.Helper()
	other := "c"
	if crashed && restarts {
		time.Sleep(time.Second)
		m.boot()
	}
	w.settled(other)
	if crashed && !restarts {
		m.boot()
	}
	s := w.settled(name)
	for id, svc := range s.Services {
		for _, r := range s.ReplicasOf(id) {
			if r.Revision != svc.Revision {
				t.Errorf("%s has revision %s, the service %s", r.Name, r.Revision, svc.Revision)
			}
		}
		if n := len(s.ReplicasOf(id)); n != svc.Replicas {
			t.Errorf("%d replicas of %d", n, svc.Replicas)
		}
	}
}

// partitioned is a world that deployed web:1 and was then cut: a and b on one
// side, c on the other.
func partitioned(t *testing.T, w *simWorld, sp spec.ServiceSpec) {
	t.Helper()
	must(t, w.m("a").deploy(sp))
	w.settled("a")
	w.cut("c")
	time.Sleep(5 * time.Second)
}

func healed(t *testing.T, w *simWorld) *spec.State {
	t.Helper()
	w.heal()
	return w.settled("a")
}

func TestPartitionDeployHereScaleThere(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		partitioned(t, w, web("web:1", 3))
		must(t, w.m("a").deploy(web("web:2", 3)))
		must(t, w.m("c").driver.Scale(w.ctx, webID, 5, "", nil))
		w.settled("a")
		w.settled("c")
		s := healed(t, w)
		wantImages(t, s, webID, slices.Repeat([]string{"web:2"}, 5)...)
	})
}

func TestPartitionBothSidesDeploy(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		partitioned(t, w, web("web:1", 3))
		must(t, w.m("a").deploy(web("web:2", 3)))
		must(t, w.m("c").deploy(web("web:3", 3)))
		w.add("d", w.m("c").replica(), 1)
		w.add("e", w.m("a").replica(), 0)
		w.settled("a")
		w.settled("c")
		w.neverFewer("web", 3)
		s := healed(t, w)
		// Both columns had one more edit, so the later deploy is the one that holds.
		wantImages(t, s, webID, "web:3", "web:3", "web:3")
		for _, r := range s.Rollouts {
			if active(r) {
				t.Errorf("unfinished: %+v", r)
			}
		}
	})
}

func TestPartitionInTheMiddleOfADeploy(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("a").deploy(web("web:1", 3)))
		w.settled("a")
		time.AfterFunc(2*(simStart+simHealth), func() { w.cut("c") })
		w.m("a").deploy(web("web:2", 3)) //nolint:errcheck // whether it needs c when c goes is up to chance
		time.Sleep(time.Minute)
		s := healed(t, w)
		if got := images(s, webID); len(got) != 3 || got[0] != got[2] {
			t.Fatalf("replicas run %v", got)
		}
	})
}

func TestDriverCutOffAndBothSidesGoOn(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("a").deploy(web("web:1", 3)))
		w.settled("a")
		// c drives and is cut off: a takes the rollout over while c goes on with it.
		time.AfterFunc(simStart, func() { w.cut("c") })
		w.m("c").deploy(web("web:2", 3)) //nolint:errcheck // see above
		w.settled("a")
		w.settled("c")
		s := healed(t, w)
		if got := images(s, webID); len(got) != 3 || got[0] != got[2] {
			t.Fatalf("replicas run %v", got)
		}
	})
}

func TestPartitionFirstDeployOnBothSides(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		w.cut("c")
		time.Sleep(5 * time.Second)
		w.neverTwoWriters()
		must(t, w.m("a").deploy(db("db:1")))
		must(t, w.m("c").deploy(db("db:2")))
		s := healed(t, w)
		if n := len(s.ReplicasOf(dbID)); n != 1 {
			t.Fatalf("%d replicas", n)
		}
		home := s.ReplicasOf(dbID)[0].Machine
		if home != "mch_a" && home != "mch_b" {
			t.Errorf("the older volume is not on %s", home)
		}
	})
}

func TestRemovalBeatsDeployOfTheOtherSide(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		partitioned(t, w, web("web:1", 3))
		must(t, w.m("a").driver.Remove(w.ctx, []string{webID}, false, "", nil))
		must(t, w.m("c").deploy(web("web:2", 3)))
		time.Sleep(2 * orphanAge)
		s := healed(t, w)
		if len(s.Services)+len(s.Replicas)+len(s.Rollouts)+len(s.Revisions) > 0 {
			t.Fatal(w.dump("a"))
		}
	})
}

func TestDeadMachineIsNoReasonToMove(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("a").deploy(web("web:1", 3)))
		before := w.settled("a").Replicas
		w.m("b").crash()
		time.Sleep(2 * time.Minute)
		if now := w.m("a").replica().State().Replicas; len(now) != len(before) {
			t.Fatalf("replicas %v", now)
		}
		w.m("b").boot()
		w.settled("a")
	})
}

func TestFailoverAndReturn(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		sp := web("web:1", 3)
		sp.Placement.Failover = true
		must(t, w.m("a").deploy(sp))
		before := w.settled("a").Replicas
		w.m("c").crash()
		s := w.settled("a")
		if len(s.Replicas) != 4 {
			t.Fatalf("%d rows after failover", len(s.Replicas))
		}
		w.m("c").boot()
		s = w.settled("a")
		for id := range before {
			if _, ok := s.Replicas[id]; !ok {
				t.Errorf("%s was retired instead of its copy", id)
			}
		}
		if len(s.Replicas) != 3 {
			t.Errorf("%d replicas", len(s.Replicas))
		}
	})
}

func TestVolumeNeverFailsOver(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		w.neverTwoWriters()
		sp := db("db:1")
		sp.Placement.Failover = true
		must(t, w.m("a").deploy(sp))
		r := only(t, w.settled("a").Replicas)
		w.machines[r.Machine].crash()
		time.Sleep(time.Minute)
		for _, name := range three {
			if m := w.m(name); m.id != r.Machine {
				only(t, m.replica().State().Volumes)
				sp.Container.Image = "db:2"
				wantCode(t, m.deploy(sp), "machine-down")
			}
		}
	})
}

func TestGlobalFollowsMachines(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		sp := web("web:1", 0)
		sp.Mode = spec.Global
		must(t, w.m("a").deploy(sp))
		w.settled("a")
		w.add("d", w.m("a").replica(), 0)
		s := w.settled("a")
		if n := len(s.ReplicasOf(webID)); n != 4 {
			t.Fatalf("%d replicas on 4 machines", n)
		}
		w.m("d").crash()
		_, err := w.m("a").replica().Update(w.ctx, func(tx Tx) error { return tx.Delete("machines", "mch_d") })
		must(t, err)
		s = w.settled("a")
		if n := len(s.ReplicasOf(webID)); n != 3 {
			t.Fatalf("%d replicas on 3 machines", n)
		}
	})
}

// TestHopelessRepairRests looks that a service for which there is no place
// neither spins nor writes.
func TestHopelessRepairRests(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		sp := web("web:1", 2)
		sp.Placement.Constraints = []string{"label.disk==ssd"}
		label := func(labels map[string]string) {
			_, err := w.m("a").replica().Update(w.ctx, func(tx Tx) error {
				for _, m := range tx.State().Machines {
					m.Labels = labels
					if err := tx.Put(m); err != nil {
						return err
					}
				}
				return nil
			})
			must(t, err)
		}
		label(map[string]string{"disk": "ssd"})
		must(t, w.m("a").deploy(sp))
		w.settled("a")
		label(nil)
		time.Sleep(time.Minute)
		if notes := w.m("a").driver.Notes(); len(notes) != 1 || notes[0].Code != "no-place" {
			t.Fatalf("notes %v", notes)
		}
		store := w.m("a").replica()
		before := store.seq
		time.Sleep(time.Hour)
		if store.seq != before {
			t.Errorf("%d commits in an hour", store.seq-before)
		}
		if n := w.serving("web"); n != 2 {
			t.Errorf("%d serve: nothing may go before there is a place", n)
		}
		label(map[string]string{"disk": "ssd"})
		w.settled("a")
		if notes := w.m("a").driver.Notes(); len(notes) != 0 {
			t.Errorf("notes %v", notes)
		}
	})
}

func TestIdleSupervisionWritesNothing(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("a").deploy(web("web:1", 3), db("db:1")))
		w.settled("a")
		before, calls := w.m("a").replica().seq, len(w.m("a").calls)
		time.Sleep(24 * time.Hour)
		if now := w.m("a").replica().seq; now != before || len(w.m("a").calls) != calls {
			t.Errorf("%d commits, %d calls in an idle day", now-before, len(w.m("a").calls)-calls)
		}
	})
}

// slowly updates one replica every ten seconds.
func slowly(sp spec.ServiceSpec) spec.ServiceSpec {
	sp.Update.Delay = spec.Duration(10 * time.Second)
	return sp
}

// TestHealDuringTwoRollouts lets both sides roll out another revision, and
// heals in the middle: one goes on, the other one ends and says so.
func TestHealDuringTwoRollouts(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		partitioned(t, w, web("web:1", 6))
		ended := make(chan error, 1)
		go func() { ended <- w.m("a").deploy(slowly(web("web:2", 6))) }()
		time.Sleep(time.Second)
		other := make(chan error, 1)
		go func() { other <- w.m("c").deploy(slowly(web("web:3", 6))) }()
		time.Sleep(12 * time.Second)
		w.neverFewer("web", 6)
		w.heal()
		time.Sleep(11 * time.Second)
		select {
		case err := <-ended:
			wantCode(t, err, "conflict")
		default:
			t.Fatal("the rollout of the revision that lost goes on")
		}
		must(t, <-other)
		s := w.settled("a")
		wantImages(t, s, webID, slices.Repeat([]string{"web:3"}, 6)...)
		superseded := 0
		for _, r := range s.Rollouts {
			if r.Stage == spec.RolloutSuperseded {
				superseded++
			}
		}
		if superseded != 1 {
			t.Errorf("%d rollouts are superseded", superseded)
		}
	})
}

// TestHealDuringTwoRolloutsToOneRevision is the same with equal content: both
// want what the service is to be, and still only one may drive.
func TestHealDuringTwoRolloutsToOneRevision(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		partitioned(t, w, web("web:1", 6))
		ended := make(chan error, 2)
		go func() { ended <- w.m("a").deploy(slowly(web("web:2", 6))) }()
		time.Sleep(time.Second)
		go func() { ended <- w.m("c").deploy(slowly(web("web:2", 6))) }()
		time.Sleep(12 * time.Second)
		w.heal()
		wantCode(t, <-ended, "conflict")
		time.Sleep(time.Second)
		driving := 0
		for _, r := range w.m("a").replica().State().Rollouts {
			if active(r) {
				driving++
			}
		}
		if driving != 1 {
			t.Errorf("%d drive", driving)
		}
		must(t, <-ended)
		wantImages(t, w.settled("a"), webID, slices.Repeat([]string{"web:2"}, 6)...)
	})
}

// TestAgentStopsDuringARepair looks that a repair stops where it is when its
// agent is told to end, and is taken up again: it is no failed deploy.
func TestAgentStopsDuringARepair(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("b").deploy(web("web:1", 6)))
		go w.m("b").deploy(slowly(web("web:2", 6))) //nolint:errcheck // its machine is gone before it ends
		time.Sleep(12 * time.Second)
		w.m("b").crash()
		time.Sleep(12 * time.Second) // a took over
		w.m("a").stop()              // as systemd does: the context ends, calls still work
		time.Sleep(time.Second)
		s := w.m("c").replica().State()
		for _, r := range s.Rollouts {
			if r.Stage == spec.RolloutReturning || r.Stage == spec.RolloutFailed {
				t.Errorf("rollout %+v", r)
			}
		}
		w.m("a").crash()
		w.m("a").boot()
		w.m("b").boot()
		wantImages(t, w.settled("c"), webID, slices.Repeat([]string{"web:2"}, 6)...)
	})
}

// TestDeployDoesNotWaitForAHopelessRepair makes a repair hang, and deploys what
// would have made it succeed.
func TestDeployDoesNotWaitForAHopelessRepair(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		sp := web("web:1", 0)
		sp.Mode = spec.Global
		must(t, w.m("a").deploy(sp))
		w.settled("a")
		w.becomes("web:1", hangs)
		w.add("d", w.m("a").replica(), 0)
		time.Sleep(time.Minute)
		driving := func() (n int) {
			for _, r := range w.m("a").replica().State().Rollouts {
				if active(r) {
					n++
				}
			}
			return n
		}
		if driving() != 1 {
			t.Fatal("no repair is under way")
		}
		// What changes no revision has to wait.
		wantCode(t, w.m("b").deploy(sp), "busy")
		sp.Container.Image = "web:2"
		began := time.Now()
		must(t, w.m("b").deploy(sp))
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %s", took)
		}
		time.Sleep(time.Second)
		driver := w.m("a").driver
		driver.mu.Lock()
		defer driver.mu.Unlock()
		if len(driver.driving) != 0 {
			t.Error("the repair's driver still waits")
		}
		wantImages(t, w.m("a").replica().State(), webID, slices.Repeat([]string{"web:2"}, 4)...)
	})
}
