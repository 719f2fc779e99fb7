package statesync

import (
	"testing"
	"time"
)

// TestAHeldCoreIsSeenByAsking: also where nothing would be due for the core.
func TestAHeldCoreIsSeenByAsking(t *testing.T) {
	s := newCluster(t, 1).machines["m0"].syncer
	until := func(what string, is func() bool) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for !is() {
			select {
			case <-deadline:
				t.Error("never " + what)
				return
			case <-time.After(time.Millisecond):
			}
		}
	}
	until("runs", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.launch != nil
	})
	s.mu.Lock()
	until("seen to be held", func() bool { return s.Stalled() > 10*time.Millisecond })
	before := s.Stalled()
	until("held for longer", func() bool { return s.Stalled() > before })
	s.mu.Unlock()
	until("seen to be let go", func() bool { return s.Stalled() == 0 })
}
