package fleet

import (
	"testing"
	"testing/synctest"
	"time"

	"uncloud/agent/internal/hostos"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// A machine that left its cluster, or was given an older state, in the middle
// of an attempt has one that nobody follows. It does not hold up the next.
func TestAnAttemptThatNobodyFollowsIsGivenUp(t *testing.T) {
	inWorld(t, []string{"a", "b"}, func(w *world) {
		a := w.machines["a"]
		if err := a.client.Order(hostos.Order{ID: "upg_0", Want: hostos.WantStage, Target: hostos.Target{System: "/nix/store/ccc-nixos-3"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if at, err := a.client.Attempt(); err != nil || at.ID != "upg_0" || at.Step != hostos.Staged {
			t.Fatal(at, err)
		}
		if u := w.end(w.begin("b", Request{Machines: []string{"a"}, System: newSystem})); u.Stage != spec.UpgradeDone || w.runs("a") != newSystem {
			t.Errorf("%+v", u)
		}
	})
}

// A host process that does not begin is told, and does not begin later.
func TestAHostThatDoesNotBeginIsTold(t *testing.T) {
	inWorld(t, []string{"a", "b"}, func(w *world) {
		a := w.machines["a"]
		a.off() // of the host process alone
		a.startAgent(w.ctx)
		id := w.begin("b", Request{Machines: []string{"a"}, System: newSystem})
		u := w.end(id)
		if u.Stage != spec.UpgradeFailed || u.Error != "a: uncloud-host.service does not begin: see systemctl status uncloud-host.path uncloud-host.service" {
			t.Errorf("%+v", u)
		}
		w.wg.Go(func() { a.hostUnit(w.ctx) })
		time.Sleep(10 * time.Minute)
		if w.runs("a") != oldSystem {
			t.Error(w.runs("a"))
		}
	})
}

// Rows of a restored backup are no reason to change the system.
func TestAnAttemptOfAnOlderStateIsNotRepeated(t *testing.T) {
	inWorld(t, []string{"a"}, func(w *world) {
		w.store.put(spec.Turn{Machine: "a", Upgrade: "upg_0", Stage: spec.TurnWatching, Since: time.Now()},
			spec.Upgrade{ID: "upg_0", Machines: []string{"a"}, System: newSystem, Stage: spec.UpgradeRunning, StartedAt: time.Now()})
		if u := w.end("upg_0"); u.Stage != spec.UpgradeFailed || w.runs("a") != oldSystem {
			t.Errorf("%+v", u)
		}
	})
}

// A backup that was made before a machine had its turn, or while it built its
// system, says nothing that a live upgrade would not say.
func TestAnUpgradeOfARestoredStateIsAbandoned(t *testing.T) {
	for name, turn := range map[string]spec.Turn{
		"its turn had not begun": {Machine: "a", Upgrade: "upg_before", Stage: spec.TurnDone},
		"it was staging":         {Machine: "a", Upgrade: "upg_0", Stage: spec.TurnStaging},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, []string{"a"}, func(w *world) {
				w.machines["a"].off() // the state is restored before the agent begins
				synctest.Wait()
				turn.Since = time.Now()
				w.store.put(turn, spec.Upgrade{ID: "upg_0", Machines: []string{"a"}, System: newSystem, Stage: spec.UpgradeRunning, StartedAt: time.Now()})
				if err := w.machines["a"].current().Abandon(w.ctx); err != nil {
					t.Fatal(err)
				}
				w.machines["a"].on()
				time.Sleep(10 * time.Minute)
				u, own := w.store.State().Upgrades["upg_0"], w.store.State().Turns["a"]
				if u.Stage != spec.UpgradeFailed || u.Error != "the state is that of a backup which was made in the middle of it" || w.runs("a") != oldSystem {
					t.Errorf("%+v, runs %s", u, w.runs("a"))
				}
				if !own.Stage.Ended() {
					t.Errorf("its turn goes on: %+v", own)
				}
			})
		})
	}
}

func TestWhatNoMachineCanGoTo(t *testing.T) {
	inWorld(t, []string{"a"}, func(w *world) {
		for _, r := range []Request{
			{Flake: "-f/tmp/other"}, {Flake: "--impure"}, {Flake: "."}, {Flake: "./machines#a"}, {Flake: "../x"}, {Flake: "~/x"}, {Flake: "#a"},
			{Flake: "x y"}, {Flake: "x\ny"}, {Flake: "x#a\"b"}, {System: "result"}, {System: "-x"}, {System: "/nix/store"}, {System: "/nix/store/../etc"},
			{System: "/nix/store/aaa/bin"}, {Generation: -1},
		} {
			r.Machines = []string{"a"}
			if id, err := w.machines["a"].current().Begin(w.ctx, r); faults.CodeOf(err) != faults.Invalid || faults.Of(err).Hint == "" {
				t.Errorf("%+v: %s %v", r, id, err)
			}
		}
	})
}
