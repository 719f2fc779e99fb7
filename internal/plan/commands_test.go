package plan

import (
	"strings"
	"testing"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

func TestScale(t *testing.T) {
	b := newBench(t)
	b.done(web("x:1"), named("all", func(sp *spec.ServiceSpec) { sp.Mode, sp.Replicas = spec.Global, 0 }))
	id := spec.ServiceID("shop", "web")
	for n, want := range map[int]Change{1: Update, 2: None, 5: Update} {
		p, err := Scale(b.View, id, n, b.now)
		if err != nil || p.Change != want || p.After.Replicas != n {
			t.Errorf("to %d: %+v %v", n, p, err)
		}
	}
	for service, code := range map[string]faults.Code{spec.ServiceID("shop", "all"): faults.Invalid, "svc_none": faults.NotFound} {
		if _, err := Scale(b.View, service, 3, b.now); faults.CodeOf(err) != code {
			t.Errorf("%s: %v", service, err)
		}
	}
	if _, err := Scale(b.View, id, 0, b.now); faults.CodeOf(err) != faults.Invalid || !strings.Contains(faults.Of(err).Hint, "uc stop web") {
		t.Error(err)
	}
}

func TestScaleCountsTheDead(t *testing.T) {
	b := newBench(t)
	b.done(named("web", func(sp *spec.ServiceSpec) { sp.Replicas = 3 }))
	delete(b.Alive, "m3")
	id := spec.ServiceID("shop", "web")
	p, err := Scale(b.View, id, 4, b.now)
	if err != nil || len(p.Steps) != 1 || p.Steps[0].Kind != KindCreate {
		t.Fatalf("up: %+v %v", p.Steps, err)
	}
	p, err = Scale(b.View, id, 2, b.now)
	if err != nil || len(p.Steps) != 0 || p.Change != Update {
		t.Fatalf("down: the one that is down is surplus, and %+v %v", p.Steps, err)
	}
}

func TestRollback(t *testing.T) {
	b := newBench(t)
	b.done(web("x:1"))
	id := spec.ServiceID("shop", "web")
	first := b.State.Services[id].Revision
	if _, err := Rollback(b.View, id, "", b.now); faults.CodeOf(err) != faults.NotFound {
		t.Fatalf("nothing ran before: %v", err)
	}
	b.done(web("x:2"))
	second := b.State.Services[id].Revision
	b.State.Rollouts["rol_1"] = spec.Rollout{ID: "rol_1", Service: id, From: first, To: second, Stage: spec.RolloutDone, EndedAt: epoch}
	b.State.Rollouts["rol_2"] = spec.Rollout{ID: "rol_2", Service: id, From: second, To: second, Stage: spec.RolloutDone, EndedAt: epoch.Add(time.Hour)}
	b.State.Rollouts["rol_3"] = spec.Rollout{ID: "rol_3", Service: id, From: "rev_x", To: second, Stage: spec.RolloutFailed, EndedAt: epoch.Add(2 * time.Hour)}
	for _, ref := range []string{"", first, first[:9], strings.TrimPrefix(first, spec.RevisionPrefix)} {
		p, err := Rollback(b.View, id, ref, b.now)
		if err != nil || p.After.Revision != first || len(p.Steps) != 2 || p.Differences[0] != "image x:2 -> x:1" {
			t.Errorf("to %q: %+v %v", ref, p, err)
		}
	}
	if _, err := Rollback(b.View, id, "rev_zzz", b.now); faults.CodeOf(err) != faults.NotFound {
		t.Error(err)
	}
	if _, err := Rollback(b.View, id, "rev_", b.now); faults.CodeOf(err) != faults.Invalid {
		t.Error(err)
	}
}

func TestStopStartRemove(t *testing.T) {
	b := newBench(t)
	b.done(web("x:1"), named("db", data), named("tool", data))
	id := spec.ServiceID("shop", "web")
	p, err := Stop(b.View, id)
	if err != nil || p.After.Wanted != spec.WantStopped || len(p.Steps) != 2 {
		t.Fatal(p, err)
	}
	b.State.Services[id] = *p.After
	for r, c := range b.State.Containers {
		if b.State.Replicas[r].Service == id {
			c.State = spec.ContainerStopped
			b.State.Containers[r] = c
		}
	}
	if steps, err := Converge(b.View, id, Options{}); err != nil || len(steps) > 0 {
		t.Fatalf("a stopped service rests, but %v %v", steps, err)
	}
	p, err = Start(b.View, id, b.now)
	if err != nil || p.After.Wanted != spec.WantRunning || len(p.Steps) != 2 || p.Steps[0].Kind != KindStart {
		t.Fatal(p, err)
	}
	// Another service mounts the volume, so it stays until that one goes.
	db := spec.ServiceID("shop", "db")
	p, err = Removing(b.View, db, true)
	if err != nil || len(p.Volumes) != 0 || len(p.Steps) != 1 {
		t.Fatal(p, err)
	}
	delete(b.State.Services, spec.ServiceID("shop", "tool"))
	p, err = Removing(b.View, db, true)
	if err != nil || len(p.Volumes) != 1 || p.Steps[1].Text != "remove volume data from m1" {
		t.Fatal(p, err)
	}
}

// TestSeveralWritersOfAVolume are refused on every way to them, unless they share it.
func TestSeveralWritersOfAVolume(t *testing.T) {
	b := newBench(t)
	b.done(named("db", data))
	id := spec.ServiceID("shop", "db")
	if _, err := Scale(b.View, id, 2, b.now); faults.CodeOf(err) != faults.Invalid || !strings.Contains(faults.Of(err).Hint, "x-shared: true") {
		t.Error("scale:", err)
	}
	if _, err := Scale(b.View, id, 1, b.now); err != nil {
		t.Error(err)
	}
	b.done(named("db"), named("shared", data, func(sp *spec.ServiceSpec) { sp.Volumes[0].Shared = true }))
	if _, err := Scale(b.View, spec.ServiceID("shop", "shared"), 2, b.now); err != nil {
		t.Error("shared:", err)
	}
	svc := b.State.Services[id]
	svc.Replicas = 3
	b.State.Services[id] = svc
	for revision := range b.State.Revisions {
		if r := b.State.Revisions[revision]; r.Service == id && r.ID != svc.Revision {
			if _, err := Rollback(b.View, id, r.ID, b.now); faults.CodeOf(err) != faults.Invalid {
				t.Error("rollback:", err)
			}
		}
	}
	// One that got there before it was refused may be made smaller.
	many := named("many", data)
	b.done(many)
	svc = b.State.Services[spec.ServiceID("shop", "many")]
	svc.Replicas = 4
	b.State.Services[svc.ID] = svc
	if _, err := Scale(b.View, svc.ID, 3, b.now); err != nil {
		t.Error("down:", err)
	}
}

// TestRemovingKeepsAVolumeThatAnotherProjectMounts by its name in the engine.
func TestRemovingKeepsAVolumeThatAnotherProjectMounts(t *testing.T) {
	b := newBench(t)
	b.done(named("db", data, func(sp *spec.ServiceSpec) { sp.Replicas = 1 }))
	id := spec.ServiceID("shop", "db")
	if p, err := Removing(b.View, id, true); err != nil || len(p.Volumes) != 1 {
		t.Fatal(p.Volumes, err)
	}
	sp := named("backup", data, func(sp *spec.ServiceSpec) {
		sp.Container.Mounts[0].Source = "shop_data"
		sp.Volumes = []spec.VolumeSpec{{Name: "shop_data", External: true}}
	})
	other := spec.Service{ID: spec.ServiceID("ops", "backup"), Project: "ops", Name: "backup", Revision: "rev_b"}
	b.State.Services[other.ID] = other
	b.State.Revisions["rev_b"] = spec.Revision{ID: "rev_b", Service: other.ID, Spec: sp}
	if p, err := Removing(b.View, id, true); err != nil || len(p.Volumes) != 0 {
		t.Error(p.Volumes, err)
	}
}
