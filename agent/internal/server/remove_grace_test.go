package server

import (
	"testing"
	"time"

	"uncloud/internal/spec"
)

// A machine that is removed may take as long as its slowest container.
func TestLongestGrace(t *testing.T) {
	slow := spec.Revision{ID: "slow", Spec: spec.ServiceSpec{Container: spec.ContainerSpec{StopGrace: spec.Duration(5 * time.Minute)}}}
	state := &spec.State{
		Revisions: map[string]spec.Revision{"slow": slow, "quick": {ID: "quick"}},
		Replicas: map[string]spec.Replica{
			"a": {ID: "a", Machine: "m1", Revision: "quick"}, "b": {ID: "b", Machine: "m1", Revision: "slow"}, "c": {ID: "c", Machine: "m2", Revision: "quick"},
		},
	}
	for machine, want := range map[string]time.Duration{"m1": 5 * time.Minute, "m2": spec.DefaultStopGrace, "m3": spec.DefaultStopGrace} {
		if got := longestGrace(state, machine); got != want {
			t.Errorf("%s: %s, want %s", machine, got, want)
		}
	}
}
