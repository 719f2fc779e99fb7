package reconcile

import (
	"context"
	"testing"
	"time"

	"uncloud/internal/spec"
)

// stuck is a recorder that does not return until it is let go.
type stuck struct {
	*memory
	letGo chan struct{}
}

func (s stuck) Record(ctx context.Context, rows []spec.Container, gone []string) error {
	<-s.letGo
	return s.memory.Record(ctx, rows, gone)
}

// TestALookThatDoesNotEndIsSeen, and one that has ended is not.
func TestALookThatDoesNotEndIsSeen(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		m.wantState("rep_1", spec.ContainerRunning)
		sleep(time.Hour)
		if took := m.r.Stalled(); took != 0 {
			t.Errorf("an idle loop is said to be at work for %s", took)
		}
		letGo := make(chan struct{})
		m.r.cfg.Recorder = stuck{m.store, letGo}
		m.engine.Exit("rep_1", 3)
		sleep(time.Hour)
		if took := m.r.Stalled(); took < 59*time.Minute {
			t.Errorf("a loop that is stuck for an hour is said to be so for %s", took)
		}
		close(letGo)
		m.wantState("rep_1", spec.ContainerRunning)
		if took := m.r.Stalled(); took != 0 {
			t.Errorf("after it: %s", took)
		}
	})
}
