package fleet

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"uncloud/agent/internal/hostos"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

var four = []string{"a", "b", "c", "d"}

func TestAFleetGoesOneMachineAtATime(t *testing.T) {
	for _, restart := range []bool{false, true} {
		inWorld(t, four, func(w *world) {
			u := w.end(w.begin("b", Request{All: true, System: newSystem, Restart: restart}))
			if u.Stage != spec.UpgradeDone || strings.Join(u.Machines, "") != "acdb" {
				t.Fatalf("%+v", u)
			}
			for _, id := range four {
				if w.runs(id) != newSystem || (w.machines[id].twin.Boots() == 2) != restart {
					t.Errorf("%s runs %s after %d boots", id, w.runs(id), w.machines[id].twin.Boots())
				}
			}
		})
	}
}

// The machine that was asked is gone for good a moment later.
func TestNobodyIsNeededToCarryItOn(t *testing.T) {
	inWorld(t, four, func(w *world) {
		id := w.begin("a", Request{All: true, System: newSystem})
		w.machines["a"].cut()
		u := w.end(id)
		if u.Stage != spec.UpgradeFailed || u.Error != "a has been down for 2m0s" {
			t.Fatalf("%+v", u)
		}
		for _, id := range []string{"b", "c", "d"} {
			if w.runs(id) != newSystem {
				t.Errorf("%s runs %s", id, w.runs(id))
			}
		}
	})
}

// A machine that runs but is not well returns, and those after it are left alone.
func TestTheFirstFailureEndsIt(t *testing.T) {
	inWorld(t, four, func(w *world) {
		w.place("web-1", "c")
		w.machines["c"].twin.OnMoment(func(moment string) {
			switch moment {
			case "after try " + newSystem:
				w.health("web-1", "c", spec.HealthUnhealthy)
				w.machines["c"].restartAgent()
			case "after try " + oldSystem:
				w.health("web-1", "c", spec.HealthHealthy)
			}
		})
		u := w.end(w.begin("d", Request{All: true, System: newSystem}))
		if u.Stage != spec.UpgradeFailed || u.Error != "c: nobody confirmed it within 5m: web-1 is not healthy again: no" {
			t.Fatalf("%+v", u)
		}
		for id, want := range map[string]string{"a": newSystem, "b": newSystem, "c": oldSystem, "d": oldSystem} {
			if w.runs(id) != want {
				t.Errorf("%s runs %s", id, w.runs(id))
			}
		}
	})
}

// Rows that an earlier boot wrote are no evidence.
func TestTheEngineIsAskedAndNotTheRows(t *testing.T) {
	inWorld(t, four, func(w *world) {
		w.place("web-1", "b")
		w.machines["b"].twin.OnMoment(func(moment string) {
			if moment == "before loader "+newSystem {
				w.store.differ("web-1", spec.HealthUnhealthy)
			}
		})
		u := w.end(w.begin("a", Request{Machines: []string{"b"}, System: newSystem, Restart: true}))
		if u.Stage != spec.UpgradeFailed || u.Error != "b: nobody confirmed it within 5m: web-1 is not healthy again: no" || w.runs("b") != oldSystem {
			t.Errorf("%+v", u)
		}
	})
}

// What breaks a moment later is found as well.
func TestAllMustBeWellForAWhile(t *testing.T) {
	inWorld(t, four, func(w *world) {
		w.place("web-1", "b")
		id := w.begin("a", Request{Machines: []string{"b"}, System: newSystem})
		time.Sleep(7 * time.Second)
		w.health("web-1", "b", spec.HealthUnhealthy)
		if u := w.end(id); u.Stage != spec.UpgradeFailed || w.runs("b") != oldSystem {
			t.Errorf("%+v", u)
		}
	})
}

func TestASystemThatCannotBeHadChangesNothing(t *testing.T) {
	inWorld(t, four, func(w *world) {
		attribute := `x#nixosConfigurations."a".config.system.build.toplevel`
		w.machines["a"].twin.Refuse("stage "+attribute, errNo)
		u := w.end(w.begin("d", Request{All: true, Flake: "x"}))
		if u.Stage != spec.UpgradeFailed || u.Error != "a: no" {
			t.Fatalf("%+v", u)
		}
		for _, id := range four {
			if w.runs(id) != oldSystem {
				t.Errorf("%s runs %s", id, w.runs(id))
			}
		}
	})
}

// What is pushed while machines have their turns is not for those after them:
// nobody has confirmed it anywhere. Machines that follow another flake go to that.
func TestAllMachinesBuildOneState(t *testing.T) {
	for named, flake := range map[string]string{"named": "x#web", "followed": ""} {
		inWorld(t, four, func(w *world) {
			for id, m := range w.machines {
				m.policy.Flake = map[bool]string{true: "y", false: "x#web"}[id == "c"]
				m.twin.Push("x", "first")
				m.restartAgent()
				m.twin.OnMoment(func(moment string) {
					if strings.HasPrefix(moment, "after try ") {
						for _, m := range w.machines {
							m.twin.Push("x", "later")
						}
					}
				})
			}
			u := w.end(w.begin("d", Request{All: true, Flake: flake}))
			if u.Stage != spec.UpgradeDone || u.Locked["x#web"] != "x/first#web" || len(u.Locked) != 1 {
				t.Fatalf("%s: %+v", named, u)
			}
			for _, id := range four {
				want := hostos.Attribute("x/first#web", "")
				if id == "c" && flake == "" {
					want = hostos.Attribute("y", "c")
				}
				if w.runs(id) != want {
					t.Errorf("%s: %s runs %s", named, id, w.runs(id))
				}
			}
			// The next upgrade is another matter.
			if u := w.end(w.begin("d", Request{Machines: []string{"a"}, Flake: "x#web"})); u.Stage != spec.UpgradeDone || w.runs("a") != hostos.Attribute("x/later#web", "") {
				t.Errorf("%s: %+v runs %s", named, u, w.runs("a"))
			}
		})
	}
}

// A machine that the others cannot reach from its new generation returns.
func TestAMachineThatIsCutOffReturns(t *testing.T) {
	inWorld(t, four, func(w *world) {
		w.machines["b"].twin.OnMoment(func(moment string) {
			if moment == "after try "+newSystem || moment == "after try "+oldSystem {
				w.store.alive("b", moment == "after try "+oldSystem)
			}
		})
		u := w.end(w.begin("a", Request{Machines: []string{"b", "c"}, System: newSystem}))
		if u.Stage != spec.UpgradeFailed || !strings.Contains(u.Error, "b: nobody confirmed it within 5m: 0 of 3 machines confirm it; a: ") {
			t.Fatalf("%+v", u)
		}
		if w.runs("b") != oldSystem || w.runs("c") != oldSystem {
			t.Error(w.runs("b"), w.runs("c"))
		}
	})
}

func TestRollback(t *testing.T) {
	inWorld(t, []string{"a", "b"}, func(w *world) {
		w.end(w.begin("a", Request{All: true, System: newSystem}))
		u := w.end(w.begin("a", Request{Machines: []string{"b"}, Rollback: true}))
		if u.Stage != spec.UpgradeDone || w.runs("b") != oldSystem || w.runs("a") != newSystem {
			t.Fatalf("%+v", u)
		}
		u = w.end(w.begin("a", Request{Machines: []string{"b"}, Rollback: true}))
		if u.Stage != spec.UpgradeFailed || u.Error != "b: there is no generation before the one that runs" {
			t.Fatalf("%+v", u)
		}
	})
}

func TestTwoUpgradesAtOnce(t *testing.T) {
	inWorld(t, four, func(w *world) {
		r := Request{All: true, System: newSystem}
		id := w.begin("a", r)
		if again := w.begin("a", r); again != id {
			t.Errorf("the same request began %s", again)
		}
		if again := w.begin("c", r); again != id {
			t.Errorf("the same request elsewhere began %s", again)
		}
		_, err := w.machines["b"].current().Begin(w.ctx, Request{Machines: []string{"c"}, Rollback: true})
		if faults.CodeOf(err) != faults.Busy || !strings.HasPrefix(err.Error(), "an upgrade of b, c, d, a is under way since ") {
			t.Error(err)
		}
		w.end(id)
	})
}

// Each side of a partition began one. They go one after another, the earlier
// first. A machine may also hear of an upgrade before the end of the one before,
// since rows of different machines arrive in any order.
func TestTwoUpgradesOfAPartition(t *testing.T) {
	inWorld(t, four, func(w *world) {
		const third = "/nix/store/ccc-nixos-3"
		id := w.begin("a", Request{Machines: []string{"b", "c"}, System: newSystem})
		w.store.put(spec.Upgrade{ID: "upg_later", Machines: []string{"d", "b"}, System: third, Stage: spec.UpgradeRunning, StartedAt: time.Now().Add(time.Second)})
		if u := w.end(id); u.Stage != spec.UpgradeDone {
			t.Errorf("%+v", u)
		}
		if u := w.end("upg_later"); u.Stage != spec.UpgradeDone || w.runs("d") != third || w.runs("b") != third || w.runs("c") != newSystem {
			t.Errorf("%+v", u)
		}
	})
}

func TestStopReturnsTheMachineInItsTurn(t *testing.T) {
	inWorld(t, four, func(w *world) {
		w.place("web-1", "b")
		w.machines["b"].twin.OnMoment(func(moment string) {
			if moment == "after try "+newSystem {
				w.health("web-1", "b", spec.HealthUnhealthy)
			}
		})
		id := w.begin("d", Request{All: true, System: newSystem})
		time.Sleep(time.Minute)
		if at := w.store.State().Turns["b"].Stage; at != spec.TurnWatching {
			t.Fatalf("b is %s", at)
		}
		if stopped, err := w.machines["c"].current().Stop(w.ctx); stopped != id || err != nil {
			t.Fatal(stopped, err)
		}
		u := w.end(id)
		turn := w.store.State().Turns["b"]
		if u.Stage != spec.UpgradeStopped || turn.Stage != spec.TurnFailed || w.runs("b") != oldSystem || w.runs("c") != oldSystem {
			t.Errorf("%+v\n%+v", u, turn)
		}
		if _, err := w.machines["c"].current().Stop(w.ctx); faults.CodeOf(err) != faults.NotFound {
			t.Error(err)
		}
	})
}

// Whoever loses its power, as often as it may be: each machine ends on one of
// the two systems and would boot what it runs, and an upgrade that is done is
// done everywhere.
func TestPowerCutsAnywhere(t *testing.T) {
	for seed := range uint64(60) {
		inWorld(t, four, func(w *world) {
			random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test's
			id := w.begin("a", Request{All: true, System: newSystem, Restart: seed%2 == 0})
			for range 1 + random.IntN(3) {
				time.Sleep(time.Duration(random.IntN(100)) * time.Second)
				m := w.machines[four[random.IntN(len(four))]]
				if w.store.Alive()[m.id] {
					w.wg.Go(m.restart)
				}
			}
			u := w.end(id)
			time.Sleep(10 * time.Minute)
			for _, id := range four {
				turn, begun := w.store.State().TurnIn(u.ID, id)
				want := oldSystem
				if begun && turn.Stage == spec.TurnDone {
					want = newSystem
				}
				if begun && !turn.Stage.Ended() || w.runs(id) != want || u.Stage == spec.UpgradeDone && want == oldSystem {
					t.Errorf("seed %d: %s runs %s, %+v\n%+v", seed, id, w.runs(id), turn, u)
				}
			}
		})
	}
}

// place has a machine run a replica of a service of its own.
func (w *world) place(replica, machine string) {
	w.store.put(spec.Service{ID: "svc_" + replica, Project: "shop", Name: "web", Wanted: spec.WantRunning, Replicas: 1},
		spec.Replica{ID: replica, Name: replica, Service: "svc_" + replica, Machine: machine, Wanted: spec.WantRunning})
	w.health(replica, machine, spec.HealthHealthy)
}

func (w *world) health(replica, machine string, h spec.Health) {
	w.store.put(spec.Container{Replica: replica, Machine: machine, State: spec.ContainerRunning, Health: h})
}

// A machine waits for rollouts that concern it, for no others, and not for ever.
func TestATurnWaitsForRollouts(t *testing.T) {
	rollout := spec.Rollout{ID: "rol_1", Service: "svc_web-1", Stage: spec.RolloutRunning, Driver: "c"}
	for _, driver := range []string{"a", "c"} {
		inWorld(t, four, func(w *world) {
			w.place("web-1", "b")
			rollout.Driver = driver
			w.store.put(rollout)
			id := w.begin("d", Request{Machines: []string{"a"}, System: newSystem})
			time.Sleep(5 * time.Minute)
			waits := w.store.State().Turns["a"].Stage == spec.TurnWaiting
			if waits != (driver == "a") {
				t.Errorf("driven by %s: %s", driver, w.store.State().Turns["a"].Stage)
			}
			u := w.end(id)
			want := map[bool]spec.UpgradeStage{true: spec.UpgradeFailed, false: spec.UpgradeDone}[waits]
			if u.Stage != want || waits && u.Error != "a: a rollout of shop/web is still under way after 15m0s" {
				t.Errorf("%+v", u)
			}
		})
	}
}

// Replicas leave first; what has to stay, because its data is there, stays.
func TestDrain(t *testing.T) {
	inWorld(t, four, func(w *world) {
		w.place("web-1", "b")
		id := w.begin("d", Request{Machines: []string{"b"}, System: newSystem, Drain: true})
		time.Sleep(time.Minute)
		if turn := w.store.State().Turns["b"]; turn.Stage != spec.TurnDraining || !w.store.State().Drained("b") {
			t.Fatalf("%+v", turn)
		}
		w.store.put(spec.Replica{ID: "web-1", Name: "web-1", Service: "svc_web-1", Machine: "c", Wanted: spec.WantRunning})
		if u := w.end(id); u.Stage != spec.UpgradeDone || w.store.State().Drained("b") {
			t.Errorf("%+v", u)
		}
	})
	inWorld(t, four, func(w *world) {
		w.place("web-1", "b")
		u := w.end(w.begin("d", Request{Machines: []string{"b"}, System: newSystem, Drain: true}))
		if u.Stage != spec.UpgradeFailed || u.Error != "b: replicas are left on it after 10m0s: web-1" || w.runs("b") != oldSystem {
			t.Errorf("%+v", u)
		}
	})
}

func TestWhatIsRefusedAtOnce(t *testing.T) {
	inWorld(t, four, func(w *world) {
		w.store.put(spec.Machine{ID: "e", Name: "e"})
		w.store.alive("e", true)
		w.machines["d"].cut()
		for _, c := range []struct {
			r    Request
			code faults.Code
		}{
			{Request{Machines: []string{"x"}}, faults.NotFound},
			{Request{Machines: []string{"e"}}, faults.NotNixOS},
			{Request{Machines: []string{"d"}}, faults.MachineDown},
			{Request{}, faults.Invalid},
			{Request{All: true}, faults.MachineDown},
			{Request{Machines: []string{"a"}, Flake: "x", Rollback: true}, faults.Invalid},
		} {
			if id, err := w.machines["a"].current().Begin(w.ctx, c.r); faults.CodeOf(err) != c.code || faults.Of(err).Hint == "" {
				t.Errorf("%+v: %s %v", c.r, id, err)
			}
		}
	})
}

func TestWhatAMachinesOwnerDecided(t *testing.T) {
	for want, r := range map[string]Request{
		"a: it follows no flake (services.uncloud.upgrade.flake), and none was named":  {Machines: []string{"a"}},
		"a: its owner does not allow restarts (services.uncloud.upgrade.allowRestart)": {Machines: []string{"a"}, System: newSystem, Restart: true},
	} {
		inWorld(t, []string{"a"}, func(w *world) {
			w.machines["a"].policy.NoRestart = true
			w.machines["a"].restartAgent()
			if u := w.end(w.begin("a", r)); u.Error != want {
				t.Error(u.Error)
			}
		})
	}
	inWorld(t, []string{"a"}, func(w *world) {
		w.machines["a"].policy.Flake = "github:me/machines"
		w.machines["a"].restartAgent()
		u := w.end(w.begin("a", Request{Machines: []string{"a"}}))
		if want := `github:me/machines#nixosConfigurations."a".config.system.build.toplevel`; u.Stage != spec.UpgradeDone || w.runs("a") != want {
			t.Error(fmt.Sprint(u), w.runs("a"))
		}
	})
}
