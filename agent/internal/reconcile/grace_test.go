package reconcile

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/spec"
)

// A service that is removed takes its rows along. Its container may end as it
// was promised all the same.
func TestRemovedServiceHasItsGrace(t *testing.T) {
	const grace = 2 * time.Minute
	onMachine(t, func(m *machine) {
		m.store.update(func(s *spec.State) {
			rev := s.Revisions["rev_1"]
			rev.Spec.Container.StopGrace = spec.Duration(grace)
			s.Revisions["rev_1"] = rev
		})
	}, func(m *machine) {
		m.wantState("rep_1", spec.ContainerRunning)
		m.store.update(func(s *spec.State) {
			delete(s.Replicas, "rep_1")
			delete(s.Services, "svc_web")
			delete(s.Revisions, "rev_1")
		})
		synctest.Wait()
		if _, there := m.engine.Request("rep_1"); there {
			t.Fatal("the container is still there")
		}
		if got := m.engine.Grace("shop-web-1"); got != grace {
			t.Errorf("it had %s to end, want %s", got, grace)
		}
	})
}

// A stop whose bound is the container's own is waited for as long as it takes.
func TestOwnGraceIsWaitedFor(t *testing.T) {
	const grace = time.Hour
	onMachine(t, nil, func(m *machine) {
		m.wantState("rep_1", spec.ContainerRunning)
		e := &slowStop{Engine: m.engine, took: grace}
		w := newWorker(Config{Engine: e, Log: slog.New(slog.DiscardHandler)})
		list, err := m.engine.List(m.Context())
		must(t, err)
		if _, err := w.remove(m.Context(), Action{Kind: Remove, Container: list[0], Grace: runtime.OwnGrace}); err != nil || !e.ended {
			t.Errorf("removed before it ended: %v", err)
		}
	})
}

// slowStop is an engine whose containers take their time to end.
type slowStop struct {
	runtime.Engine
	took  time.Duration
	ended bool
}

func (s *slowStop) Stop(ctx context.Context, id string, grace time.Duration) error {
	select {
	case <-time.After(s.took):
		s.ended = true
		return s.Engine.Stop(ctx, id, grace)
	case <-ctx.Done():
		return ctx.Err()
	}
}
