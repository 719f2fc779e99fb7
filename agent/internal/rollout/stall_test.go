package rollout

import (
	"context"
	"log/slog"
	"math/rand"
	"sync/atomic"
	"testing"
	"time"

	"uncloud/internal/spec"
)

// stuckStore does not answer while it is stuck.
type stuckStore struct {
	Store
	stuck atomic.Bool
	letGo chan struct{}
}

func (s *stuckStore) State() *spec.State {
	if s.stuck.Load() {
		<-s.letGo
	}
	return s.Store.State()
}

// TestALookOfSupervisionThatDoesNotEndIsSeen: the store is stuck.
func TestALookOfSupervisionThatDoesNotEndIsSeen(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		m := w.m("a")
		store := &stuckStore{Store: simView{m, m.run}, letGo: make(chan struct{})}
		d, err := New(Config{
			Self: m.id, Store: store, Members: simMembers{m}, Peers: simPeers{m, m.run},
			Random: rand.New(rand.NewSource(1)), Now: time.Now, Log: slog.New(slog.DiscardHandler),
		})
		must(t, err)
		ctx, cancel := context.WithCancel(w.ctx)
		ended := make(chan error)
		go func() { ended <- d.Supervise(ctx) }()
		must(t, wait(w.ctx, time.Hour))
		if took := d.Stalled(); took != 0 {
			t.Errorf("an idle supervision is said to look for %s", took)
		}
		store.stuck.Store(true)
		must(t, wait(w.ctx, time.Hour))
		if took := d.Stalled(); took < time.Hour-2*lookAnyway {
			t.Errorf("a look that is stuck for an hour is said to be so for %s", took)
		}
		close(store.letGo)
		must(t, wait(w.ctx, time.Second))
		if took := d.Stalled(); took != 0 {
			t.Errorf("after it: %s", took)
		}
		cancel()
		must(t, <-ended)
	})
}
