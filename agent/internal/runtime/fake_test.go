package runtime

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

var network = Network{Name: NetworkName, Bridge: BridgeName, Subnet: netip.MustParsePrefix("10.210.7.0/24")}

func fakeRequest(name, address string) ContainerRequest {
	return ContainerRequest{
		Cluster: "cls_1", Replica: "rep_" + name, Name: name, Network: NetworkName,
		Address: netip.MustParseAddr(address), Spec: spec.ContainerSpec{Image: "web:1"},
	}
}

func started(t *testing.T, f *Fake, name, address string) string {
	t.Helper()
	id, err := f.Create(t.Context(), fakeRequest(name, address))
	must(t, err)
	must(t, f.Start(t.Context(), id))
	return id
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantState(t *testing.T, f *Fake, id string, want State) Container {
	t.Helper()
	c, err := f.Inspect(t.Context(), id)
	must(t, err)
	if c.State != want {
		t.Errorf("container is %s, want %s", c.State, want)
	}
	return c
}

// The twin has the bad habits that the tests of runtime/podman show of Podman.
func TestTwinIsLikePodman(t *testing.T) {
	f := NewFake()
	if _, err := f.Create(t.Context(), fakeRequest("a", "10.210.7.2")); faults.CodeOf(err) != faults.NoImage {
		t.Errorf("without image: %v", err)
	}
	f.AddImage("web:1")
	must(t, f.EnsureNetwork(t.Context(), network))
	id := started(t, f, "a", "10.210.7.2")
	must(t, f.Start(t.Context(), id))
	if _, err := f.Create(t.Context(), fakeRequest("a", "10.210.7.3")); !errors.Is(err, ErrNameTaken) {
		t.Errorf("name: %v", err)
	}
	twin, err := f.Create(t.Context(), fakeRequest("b", "10.210.7.2"))
	must(t, err)
	if err := f.Start(t.Context(), twin); !errors.Is(err, ErrAddressTaken) {
		t.Errorf("address: %v", err)
	}
	other := network
	other.Subnet = netip.MustParsePrefix("10.210.8.0/24")
	if err := f.EnsureNetwork(t.Context(), other); !errors.Is(err, ErrNetworkBusy) {
		t.Errorf("network: %v", err)
	}
	f.KillMonitor("rep_a")
	wantState(t, f, id, Orphaned)
	must(t, f.Start(t.Context(), id))
	wantState(t, f, id, Orphaned) // start is no cure
	must(t, f.Stop(t.Context(), id, time.Second))
	must(t, f.Start(t.Context(), id))
	wantState(t, f, id, Running)
	f.PowerCut()
	if c := wantState(t, f, id, Lost); !c.FinishedAt.IsZero() {
		t.Errorf("%+v", c)
	}
	if err := f.Start(t.Context(), id); !errors.Is(err, ErrNoBridge) {
		t.Errorf("bridge: %v", err)
	}
	must(t, f.Remove(t.Context(), id))
	must(t, f.Remove(t.Context(), id))
	if _, err := f.Inspect(t.Context(), id); !errors.Is(err, ErrNoContainer) {
		t.Errorf("removed: %v", err)
	}
}

func TestTwinWakesAndFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFake()
		f.AddImage("web:1")
		must(t, f.EnsureNetwork(t.Context(), network))
		id := started(t, f, "a", "10.210.7.2")
		ctx, cancel := context.WithCancel(t.Context())
		wakes, watching := atomic.Int32{}, make(chan error, 1)
		go func() { watching <- f.Watch(ctx, func() { wakes.Add(1) }) }()
		var lines []string
		followed := make(chan error, 1)
		go func() {
			followed <- f.Logs(ctx, id, LogOptions{Follow: true, Tail: -1}, func(l LogLine) error {
				lines = append(lines, l.Text)
				return nil
			})
		}()
		synctest.Wait()
		f.Say("rep_a", "hello")
		synctest.Wait()
		before := wakes.Load()
		f.Exit("rep_a", 3)
		must(t, <-followed)
		if len(lines) != 1 || lines[0] != "hello" {
			t.Errorf("%q", lines)
		}
		synctest.Wait()
		if wakes.Load() == before {
			t.Error("nobody was woken")
		}
		if c := wantState(t, f, id, Exited); c.ExitCode != 3 {
			t.Errorf("%+v", c)
		}
		cancel()
		must(t, <-watching)
	})
}

func TestLabelsCannotBeClaimed(t *testing.T) {
	r := fakeRequest("a", "10.210.7.2")
	r.Spec.Labels = map[string]string{LabelReplica: "rep_other", "mine": "1"}
	c := FromLabels(r.Labels())
	if c.Replica != "rep_a" || c.Address != r.Address || c.Spec != r.Spec.Hash() || r.Labels()["mine"] != "1" {
		t.Errorf("%+v", c)
	}
	if r.Spec.Labels[LabelReplica] != "rep_other" {
		t.Error("the spec was changed")
	}
}
