package reconcile

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

func TestWhatIsWantedRuns(t *testing.T) {
	onMachine(t, func(m *machine) {
		m.store.update(func(s *spec.State) {
			rev := s.Revisions["rev_1"]
			rev.Spec.Volumes = []spec.VolumeSpec{{Name: "data"}, {Name: "unused"}, {Name: "old", External: true}}
			rev.Spec.Container.Mounts = []spec.Mount{
				{Type: spec.MountVolume, Source: "data", Target: "/d"}, {Type: spec.MountVolume, Source: "old", Target: "/o"},
			}
			s.Revisions["rev_1"] = rev
		})
		must(t, m.engine.EnsureVolume(m.Context(), runtime.Volume{Name: "old"}))
	}, func(m *machine) {
		row := m.wantState("rep_1", spec.ContainerRunning)
		if row.Address.String() != "10.210.7.2" || row.Revision != "rev_1" || row.Machine != self || row.Health != spec.HealthNone {
			t.Errorf("%+v", row)
		}
		m.wantCalls("EnsureVolume old", "EnsureNetwork 10.210.7.0/24", "EnsureVolume shop_data", "HasVolume old", "Create shop-web-1", "Start shop-web-1")
		got, _ := m.engine.Request("rep_1")
		want := runtime.ContainerRequest{
			Cluster: cluster, Project: "shop", Service: "svc_web", Replica: "rep_1", Revision: "rev_1", Name: "shop-web-1", Hostname: "web-1",
			Network: "uncloud", Address: row.Address, DNS: netip.MustParseAddr("10.210.7.1"),
		}
		if got.Name != want.Name || got.Hostname != want.Hostname || got.DNS != want.DNS || got.Address != want.Address || got.Network != want.Network {
			t.Errorf("%+v", got)
		}
		if !slices.Equal(got.Search, []string{"shop.internal", "internal"}) || got.Volumes["data"] != "shop_data" || got.Volumes["old"] != "old" {
			t.Errorf("search %q, volumes %v", got.Search, got.Volumes)
		}
		if got.Env["UNCLOUD_REPLICA"] != "web-1" || got.Env["UNCLOUD_MACHINE_ID"] != self {
			t.Errorf("env %v", got.Env)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsWrittenWhileNothingHappens(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		m.wantState("rep_1", spec.ContainerRunning)
		before := m.store.records
		calls := len(m.engine.Calls())
		sleep(24 * time.Hour)
		if m.store.records != before {
			t.Errorf("%d records in an idle day", m.store.records-before)
		}
		if n := len(m.engine.Calls()) - calls; n != 0 {
			t.Errorf("%d calls that change something in an idle day", n)
		}
	})
}

func TestExitedIsStartedAgainWithBackoff(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		began := time.Now()
		var waits []time.Duration
		for range 8 {
			m.wantState("rep_1", spec.ContainerRunning)
			m.engine.Exit("rep_1", 3)
			row := m.row("rep_1")
			if row.State != spec.ContainerExited || row.ExitCode != 3 || row.Error != "exited with code 3" {
				t.Fatalf("%+v", row)
			}
			at := time.Now()
			for m.row("rep_1").State != spec.ContainerRunning {
				time.Sleep(100 * time.Millisecond)
			}
			waits = append(waits, time.Since(at).Round(time.Second))
		}
		if want := []time.Duration{1e9, 2e9, 4e9, 8e9, 16e9, 32e9, 60e9, 60e9}; !slices.Equal(waits, want) {
			t.Errorf("waited %v, want %v", waits, want)
		}
		sleep(10 * time.Minute) // calm
		m.engine.Exit("rep_1", 0)
		m.wantState("rep_1", spec.ContainerRunning) // at once, for it ran longer than any delay
		_ = began
	})
}

func TestSelfRepair(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		m.wantState("rep_1", spec.ContainerRunning)
		sleep(time.Minute)
		m.engine.RemoveByHand("rep_1")
		m.wantState("rep_1", spec.ContainerRunning)
		sleep(time.Minute)
		m.engine.KillMonitor("rep_1")
		m.wantState("rep_1", spec.ContainerRunning)
		list, err := m.engine.List(m.Context())
		must(t, err)
		if len(list) != 1 || list[0].State != runtime.Running {
			t.Errorf("%+v", list)
		}
	})
}

// A machine that has just begun has no bridge yet, and an engine that is slow
// to answer. The first deploy must not fail for that.
func TestContainersWaitForTheirNetwork(t *testing.T) {
	starts := 0
	onMachine(t, func(m *machine) {
		m.engine.SetBridge(false)
		m.engine.OnCall(func(method, _ string) error {
			if method == "Start" {
				starts++
			}
			return nil
		})
		m.network = func(ctx context.Context, subnet netip.Prefix) error {
			sleep(3 * time.Second)
			m.engine.SetBridge(true)
			return m.engineNetwork(ctx, subnet)
		}
	}, func(m *machine) {
		sleep(10 * time.Second)
		m.wantState("rep_1", spec.ContainerRunning)
		if starts != 1 {
			t.Errorf("started %d times", starts)
		}
	})
}

func TestAddressThatAStrangerHas(t *testing.T) {
	onMachine(t, func(m *machine) {
		must(t, m.engine.EnsureNetwork(m.Context(), runtime.Network{Name: runtime.NetworkName, Bridge: runtime.BridgeName, Subnet: subnet}))
		id, err := m.engine.Create(m.Context(), runtime.ContainerRequest{Name: "stranger", Address: netip.MustParseAddr("10.210.7.2"), Spec: spec.ContainerSpec{Image: "web:1"}})
		must(t, err)
		must(t, m.engine.Start(m.Context(), id))
		m.engine.OnCall(func(method, object string) error { // it carries no label of ours, so it is not listed
			if method == "Remove" && object == "stranger" {
				return errors.New("a stranger's container was removed")
			}
			return nil
		})
	}, func(m *machine) {
		sleep(10 * time.Second)
		if row := m.wantState("rep_1", spec.ContainerRunning); row.Address.String() == "10.210.7.2" {
			t.Errorf("%+v", row)
		}
	})
}

func TestStopAndStartByWish(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		m.replica("rep_1", func(r *spec.Replica) { r.Wanted = spec.WantStopped })
		m.wantState("rep_1", spec.ContainerStopped)
		sleep(time.Hour)
		m.wantState("rep_1", spec.ContainerStopped)
		m.replica("rep_1", func(r *spec.Replica) { r.Wanted = spec.WantRunning })
		m.wantState("rep_1", spec.ContainerRunning)
	})
}

func TestNewSpecReplacesTheContainer(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		m.engine.AddImage("web:2")
		before := m.row("rep_1")
		m.store.update(func(s *spec.State) {
			s.Revisions["rev_2"] = spec.Revision{ID: "rev_2", Spec: spec.ServiceSpec{Container: spec.ContainerSpec{Image: "web:2"}}}
		})
		m.replica("rep_1", func(r *spec.Replica) { r.Revision = "rev_2" })
		after := m.wantState("rep_1", spec.ContainerRunning)
		if after.Revision != "rev_2" || after.EngineID == before.EngineID {
			t.Errorf("%+v", after)
		}
		if after.Address == before.Address {
			t.Error("the new container has the old one's address, though others were free for longer")
		}
	})
}

func TestRemovedRowsRemoveContainers(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		m.store.mu.Lock()
		m.store.ready = false
		m.store.mu.Unlock()
		m.store.update(func(s *spec.State) { delete(s.Replicas, "rep_1") })
		sleep(5 * time.Minute)
		if _, ok := m.engine.Request("rep_1"); !ok {
			t.Fatal("removed on the word of an old state")
		}
		m.store.mu.Lock()
		m.store.ready = true
		m.store.mu.Unlock()
		m.store.update(func(*spec.State) {})
		synctest.Wait()
		if _, ok := m.engine.Request("rep_1"); ok {
			t.Error("the container is still there")
		}
		if row, ok := m.store.State().Containers["rep_1"]; ok {
			t.Errorf("its row is still there: %+v", row)
		}
	})
}

func TestRenumbering(t *testing.T) {
	onMachine(t, func(m *machine) {
		m.store.update(func(s *spec.State) {
			r := s.Replicas["rep_1"]
			r.ID, r.Name = "rep_2", "web-2"
			s.Replicas["rep_2"] = r
		})
	}, func(m *machine) {
		m.wantState("rep_2", spec.ContainerRunning)
		m.store.update(func(s *spec.State) {
			s.Machines[self] = spec.Machine{ID: self, Subnet: netip.MustParsePrefix("10.210.9.0/24")}
		})
		sleep(time.Minute)
		for _, id := range []string{"rep_1", "rep_2"} {
			if row := m.wantState(id, spec.ContainerRunning); !strings.HasPrefix(row.Address.String(), "10.210.9.") {
				t.Errorf("%+v", row)
			}
		}
	})
}

func TestAtMostFourStartsAtATime(t *testing.T) {
	var (
		mu        sync.Mutex
		now, most int
		gate      chan struct{}
	)
	count := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		now += n
		most = max(most, now)
	}
	onMachine(t, func(m *machine) {
		m.store.update(func(s *spec.State) {
			for i := range 12 {
				r := s.Replicas["rep_1"]
				r.ID, r.Name = fmt.Sprintf("rep_%d", i), fmt.Sprintf("web-%d", i)
				s.Replicas[r.ID] = r
			}
		})
		gate = make(chan struct{})
		m.engine.OnCall(func(method, _ string) error {
			if method != "Start" {
				return nil
			}
			count(1)
			defer count(-1)
			<-gate
			return nil
		})
	}, func(m *machine) {
		close(gate)
		sleep(time.Second)
		addresses := map[netip.Addr]bool{}
		for i := range 12 {
			addresses[m.wantState(fmt.Sprintf("rep_%d", i), spec.ContainerRunning).Address] = true
		}
		if len(addresses) != 12 {
			t.Errorf("%d addresses for 12 replicas", len(addresses))
		}
		if most != parallelRuns {
			t.Errorf("%d at a time", most)
		}
	})
}

func TestEngineThatDoesNotAnswer(t *testing.T) {
	down := faults.New(faults.Engine, "Podman does not answer")
	onMachine(t, nil, func(m *machine) {
		before := m.wantState("rep_1", spec.ContainerRunning)
		m.engine.OnCall(func(string, string) error { return down })
		m.r.Poke()
		if row := m.row("rep_1"); row != before {
			t.Errorf("told what it cannot know: %+v", row)
		}
		if _, err := m.r.EnsureReplica(m.Context(), "rep_1", false); faults.CodeOf(err) != faults.Engine {
			t.Errorf("ensure: %v", err)
		}
		m.engine.OnCall(nil)
		m.engine.RemoveByHand("rep_1")
		sleep(2 * time.Minute)
		m.wantState("rep_1", spec.ContainerRunning)
	})
}

func TestImagesArePulledOrAwaited(t *testing.T) {
	onMachine(t, func(m *machine) {
		m.engine.LoseImage("web:1")
	}, func(m *machine) {
		row := m.wantState("rep_1", spec.ContainerFailed)
		if !strings.Contains(row.Error, "image web:1 is not on this machine") {
			t.Errorf("%q", row.Error)
		}
		m.engine.AddImage("web:1")
		m.r.ImageArrived("localhost/web:1")
		m.wantState("rep_1", spec.ContainerRunning)
		m.store.update(func(s *spec.State) {
			s.Revisions["rev_2"] = spec.Revision{ID: "rev_2", Spec: spec.ServiceSpec{Container: spec.ContainerSpec{Image: "public:1"}}}
		})
		m.engine.Publish("public:1")
		m.replica("rep_1", func(r *spec.Replica) { r.Revision = "rev_2" })
		m.wantState("rep_1", spec.ContainerRunning)
	})
}

func TestPullPolicies(t *testing.T) {
	for _, c := range []struct {
		policy           string
		here, inRegistry bool
		want             spec.ContainerState
		pulls            int
	}{
		{"", true, true, spec.ContainerRunning, 0},
		{"", false, true, spec.ContainerRunning, 1},
		{"missing", false, false, spec.ContainerFailed, 1},
		{"never", false, true, spec.ContainerFailed, 0},
		{"always", true, true, spec.ContainerRunning, 1},
		{"always", true, false, spec.ContainerRunning, 1}, // cut off from the registry
		{"always", false, false, spec.ContainerFailed, 1},
	} {
		onMachine(t, func(m *machine) {
			m.store.update(func(s *spec.State) {
				rev := s.Revisions["rev_1"]
				rev.Spec.Container.PullPolicy = c.policy
				s.Revisions["rev_1"] = rev
			})
			if c.inRegistry {
				m.engine.Publish("web:1")
			}
			if !c.here {
				m.engine.LoseImage("web:1")
			}
		}, func(m *machine) {
			if row := m.row("rep_1"); row.State != c.want {
				t.Errorf("%+v: %s %s", c, row.State, row.Error)
			}
			pulls := 0
			for _, call := range m.engine.Calls() {
				if strings.HasPrefix(call, "PullImage") {
					pulls++
				}
			}
			if pulls != c.pulls {
				t.Errorf("%+v: %d pulls", c, pulls)
			}
		})
	}
}

// A pull may take minutes. Nobody waits for one that nobody wants any more.
func TestChangedWishEndsAPull(t *testing.T) {
	var forever chan struct{}
	onMachine(t, func(m *machine) {
		forever = make(chan struct{})
		m.engine.LoseImage("web:1")
		m.engine.OnCall(func(method, _ string) error {
			if method == "PullImage" {
				<-forever
			}
			return nil
		})
	}, func(m *machine) {
		m.store.update(func(s *spec.State) { delete(s.Replicas, "rep_1") })
		synctest.Wait()
		close(forever) // the twin's pull knows no context
		must(t, m.r.RetireReplica(m.Context(), "rep_1"))
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		m.check()
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(m.Context())
		go func() {
			_, err := m.r.EnsureReplica(ctx, "rep_1", false)
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if len(m.row("rep_1").Error) != 0 {
			t.Errorf("%+v", m.row("rep_1"))
		}
	})
}
