package server

import (
	"fmt"
	"testing"
	"time"

	"uncloud/internal/spec"
)

// TestSupersededIsSaidUntilItIsHistory: each rollout ends a minute after the one
// before.
func TestSupersededIsSaidUntilItIsHistory(t *testing.T) {
	const done, superseded, failed, running = spec.RolloutDone, spec.RolloutSuperseded, spec.RolloutFailed, spec.RolloutRunning
	type ended struct {
		to    string
		stage spec.RolloutStage
	}
	for name, c := range map[string]struct {
		rollouts []ended
		want     string
	}{
		"none":                                 {nil, ""},
		"one that is done":                     {[]ended{{"rev_now", done}}, ""},
		"another revision won":                 {[]ended{{"rev_old", done}, {"rev_lost", superseded}}, "rev_lost"},
		"and is on its way":                    {[]ended{{"rev_lost", superseded}, {"rev_now", running}}, "rev_lost"},
		"and failed":                           {[]ended{{"rev_lost", superseded}, {"rev_now", failed}}, "rev_lost"},
		"and is there":                         {[]ended{{"rev_lost", superseded}, {"rev_now", done}}, ""},
		"the last of several":                  {[]ended{{"rev_1", superseded}, {"rev_2", superseded}}, "rev_2"},
		"it gave way to its own revision":      {[]ended{{"rev_now", superseded}}, ""},
		"a repair gave way after the last one": {[]ended{{"rev_now", done}, {"rev_now", superseded}}, ""},
	} {
		state := &spec.State{Rollouts: map[string]spec.Rollout{
			"rol_other": {ID: "rol_other", Service: "svc_other", To: "rev_other", Stage: superseded, EndedAt: time.Unix(1e9, 0)},
		}}
		for i, r := range c.rollouts {
			id := fmt.Sprintf("rol_%d", i)
			row := spec.Rollout{ID: id, Service: "svc_web", From: "rev_before", To: r.to, Stage: r.stage, StartedAt: time.Unix(int64(i)*60, 0)}
			if r.stage != running {
				row.EndedAt = time.Unix(int64(i+1)*60, 0)
			}
			state.Rollouts[id] = row
		}
		got := view{State: state}.serviceNotes(spec.Service{ID: "svc_web", Revision: "rev_now"})
		want := "revision " + c.want + " was superseded by rev_now"
		switch {
		case c.want == "" && len(got) > 0:
			t.Errorf("%s: %v", name, got)
		case c.want != "" && (len(got) != 1 || got[0].GetText() != want || got[0].GetCode() != "superseded"):
			t.Errorf("%s: %v, want %q", name, got, want)
		}
	}
}

// TestAFirstDeployThatFailedIsSaid of a service of which nothing else is there.
func TestAFirstDeployThatFailedIsSaid(t *testing.T) {
	state := &spec.State{Rollouts: map[string]spec.Rollout{"rol_1": {ID: "rol_1", Service: "svc_web", To: "rev_1", Stage: spec.RolloutFailed}}}
	got := view{State: state}.serviceNotes(spec.Service{ID: "svc_web", Revision: "rev_1"})
	if len(got) != 1 || got[0].GetCode() != "never-ran" {
		t.Error(got)
	}
}
