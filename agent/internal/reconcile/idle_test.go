package reconcile

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/spec"
)

// Whoever looks after the network pokes while it is kept from it. That is no
// reason to try what needs it any sooner: each try would be two commits.
func TestANetworkThatIsKeptBusyIsAwaitedQuietly(t *testing.T) {
	busy, asked := true, 0
	onMachine(t, func(m *machine) {
		m.network = func(ctx context.Context, subnet netip.Prefix) error {
			asked++
			if busy {
				return fmt.Errorf("make network: %w", runtime.ErrNetworkBusy)
			}
			return m.engineNetwork(ctx, subnet)
		}
	}, func(m *machine) {
		sleep(2 * time.Minute) // the holds are long by now
		m.wantState("rep_1", spec.ContainerFailed)
		records, before := m.store.records, asked
		for range 120 {
			m.r.Poke()
			sleep(5 * time.Second)
		}
		if n := m.store.records - records; n != 0 {
			t.Errorf("%d commits in ten minutes", n)
		}
		if n := asked - before; n > 20 {
			t.Errorf("%d tries in ten minutes", n)
		}
		busy = false
		m.r.NetworkReady()
		m.wantState("rep_1", spec.ContainerRunning)
	})
}

// A commit that changes nothing here is no reason to ask the engine.
func TestAnIdleEngineIsAskedOnceAMinute(t *testing.T) {
	lists := 0
	onMachine(t, func(m *machine) {
		m.engine.OnCall(func(method, _ string) error {
			if method == "List" {
				lists++
			}
			return nil
		})
	}, func(m *machine) {
		m.wantState("rep_1", spec.ContainerRunning)
		sleep(time.Minute)
		before := lists
		for range 600 {
			m.store.update(func(*spec.State) {})
			sleep(time.Second)
		}
		if n := lists - before; n > 10 {
			t.Errorf("asked %d times in ten minutes", n)
		}
	})
}

// A row that another machine wrote over is put right, and one that could not
// be written is tried again soon.
func TestRowsThatAreNotAsTheyShouldBeAreWrittenAgain(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		m.wantState("rep_1", spec.ContainerRunning)
		m.store.update(func(s *spec.State) { s.Containers["rep_1"] = spec.Container{Replica: "rep_1", Machine: "mch_other"} })
		if row := m.wantState("rep_1", spec.ContainerRunning); row.Machine != self {
			t.Errorf("%+v", row)
		}
		m.store.refuse(errors.New("no space left"))
		m.engine.Exit("rep_1", 3)
		sleep(15 * time.Second)
		m.replica("rep_1", func(r *spec.Replica) { r.Wanted = spec.WantStopped })
		sleep(5 * time.Second)
		m.wantState("rep_1", spec.ContainerRunning) // as it was: nothing could be written
		m.store.refuse(nil)
		sleep(recordAgain)
		m.wantState("rep_1", spec.ContainerStopped)
	})
}
