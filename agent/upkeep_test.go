package agent

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"uncloud/agent/internal/store"
	statesync "uncloud/agent/internal/sync"
	"uncloud/internal/spec"
)

// keeper is a member with a store in memory, its replication and nothing else.
func keeper(t *testing.T) *member {
	t.Helper()
	m := &member{log: slog.New(slog.DiscardHandler), ready: make(chan struct{}), ping: make(chan chan struct{}), ended: make(chan struct{})}
	var err error
	if m.store, err = store.Open(t.Context(), store.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.store.Close(); err != nil {
			t.Error(err)
		}
	})
	if m.sync, err = statesync.New(statesync.Options{Cluster: "c", Machine: "mch_a", Store: m.store}); err != nil {
		t.Fatal(err)
	}
	return m
}

func update(t *testing.T, m *member, do func(tx *store.Tx)) {
	t.Helper()
	if _, err := m.store.Update(t.Context(), func(tx *store.Tx) error { do(tx); return nil }); err != nil {
		t.Fatal(err)
	}
}

// Old tombstones go by themselves, but not while this machine may not know who
// else is a member.
func TestUpkeepForgetsOldTombstones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keeper(t)
		update(t, m, func(tx *store.Tx) { tx.Put(spec.Project{ID: "prj_1", Name: "shop"}) })
		update(t, m, func(tx *store.Tx) { tx.Delete("projects", "prj_1") })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.upkeep(ctx) }()
		time.Sleep(store.Retention + 2*upkeepEvery)
		synctest.Wait()
		if n := m.store.Status().Deleted; n != 1 {
			t.Errorf("%d tombstones are left before the machine is ready", n)
		}
		close(m.ready)
		time.Sleep(2 * upkeepEvery)
		synctest.Wait()
		if n := m.store.Status().Deleted; n != 0 {
			t.Errorf("%d tombstones are left", n)
		}
		cancel()
		<-ended
	})
}

func TestUpkeepKeepsYoungTombstones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keeper(t)
		close(m.ready)
		update(t, m, func(tx *store.Tx) { tx.Put(spec.Project{ID: "prj_1", Name: "shop"}) })
		update(t, m, func(tx *store.Tx) { tx.Delete("projects", "prj_1") })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.upkeep(ctx) }()
		time.Sleep(store.Retention - time.Hour)
		synctest.Wait()
		if n := m.store.Status().Deleted; n != 1 {
			t.Errorf("%d tombstones are left", n)
		}
		cancel()
		<-ended
	})
}

func TestWhatAStoreSuffersFrom(t *testing.T) {
	if got := notesOf(store.Status{Rows: 5, Deleted: 3, Missing: 2}, ""); len(got) != 0 {
		t.Errorf("nothing is wrong, and yet: %v", got)
	}
	var codes []string
	for _, n := range notesOf(store.Status{Unreadable: 1, Quarantined: 2, ClockSkewed: true, DiskFull: true}, "mch_b") {
		codes = append(codes, n.Code)
	}
	if want := []string{"store.clone", "store.full", "store.clock", "store.quarantine", "store.unreadable"}; !slices.Equal(codes, want) {
		t.Error(codes)
	}
}

// The watchdog is fed while a turn of the writer takes long, not while it will
// not end, nor while steering is deaf.
func TestWhenTheWatchdogIsFed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keeper(t)
		const within = 10 * time.Second
		if m.lives(t.Context(), within) {
			t.Error("steering is deaf, and the member is said to live")
		}
		deaf := make(chan struct{})
		answering := make(chan struct{})
		go func() {
			defer close(answering)
			for {
				select {
				case <-m.ping:
				case <-deaf:
					return
				}
			}
		}()
		if !m.lives(t.Context(), within) {
			t.Error("an idle member is said to be dead")
		}
		update(t, m, func(*store.Tx) {
			time.Sleep(storeStall)
			if !m.lives(t.Context(), within) {
				t.Error("a slow disk is taken for a stall")
			}
			time.Sleep(time.Second)
			if m.lives(t.Context(), within) {
				t.Error("a writer that does not end is not noticed")
			}
		})
		if !m.lives(t.Context(), within) {
			t.Error("a turn that has ended counts as a stall")
		}
		close(deaf)
		<-answering
	})
}

// TestALoopThatIsStuckIsNotFed: a turn may take long, and not for ever.
func TestALoopThatIsStuckIsNotFed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keeper(t)
		held, letGo := make(chan struct{}), make(chan struct{})
		m.loops = map[string]func() time.Duration{"held": func() time.Duration {
			select {
			case <-held:
				return loopStall + time.Second
			default:
				return loopStall
			}
		}}
		go func() {
			for {
				select {
				case <-m.ping:
				case <-letGo:
					return
				}
			}
		}()
		if !m.lives(t.Context(), time.Second) {
			t.Error("a loop that waits for a deaf engine is taken for stuck")
		}
		close(held)
		if m.lives(t.Context(), time.Second) {
			t.Error("a loop that does not end its turn is not noticed")
		}
		close(letGo)
	})
}

// TestTheWatchdogAsksAllLoops: a member is wired with all of them.
func TestTheWatchdogAsksAllLoops(t *testing.T) {
	m := &member{cfg: Config{StateDir: t.TempDir()}, log: slog.New(slog.DiscardHandler)}
	m.id.MachineID, m.id.ClusterID = "mch_a", "cls_a"
	m.manage = netip.MustParseAddr("fd00::1")
	var err error
	if m.store, err = store.Open(t.Context(), store.Options{}); err != nil {
		t.Fatal(err)
	}
	defer m.store.Close() //nolint:errcheck // it is in memory
	if err := m.wire(); err != nil {
		t.Fatal(err)
	}
	want := []string{"gossip", "ingress", "reconcile", "rollout", "sync"}
	if got := slices.Sorted(maps.Keys(m.loops)); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if !m.turns() {
		t.Error("a loop that has not begun is taken for stuck")
	}
}
