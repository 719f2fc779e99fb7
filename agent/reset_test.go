package agent

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/gossip"
	"uncloud/agent/internal/hostos/fleet"
	"uncloud/agent/internal/reconcile"
	"uncloud/agent/internal/runtime"
	"uncloud/agent/internal/server"
	"uncloud/agent/internal/store"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// withContainers is a member that runs two containers, beside one of another cluster.
func withContainers(t *testing.T) (*member, *runtime.Fake) {
	t.Helper()
	engine := runtime.NewFake()
	engine.AddImage("app:1")
	engine.SetBridge(true)
	must(t, engine.EnsureNetwork(t.Context(), runtime.Network{Name: runtime.NetworkName, Bridge: runtime.BridgeName, Subnet: netip.MustParsePrefix("10.210.7.0/24")}))
	for i, c := range []struct{ replica, cluster string }{{"rep_a", "cls_a"}, {"rep_b", "cls_a"}, {"rep_c", "cls_other"}} {
		id, err := engine.Create(t.Context(), runtime.ContainerRequest{
			Replica: c.replica, Cluster: c.cluster, Name: c.replica, Address: netip.AddrFrom4([4]byte{10, 210, 7, byte(2 + i)}),
			Spec: spec.ContainerSpec{Image: "app:1", StopGrace: spec.Duration(2 * time.Minute)},
		})
		must(t, err)
		must(t, engine.Start(t.Context(), id))
	}
	m := &member{
		id: Identity{MachineID: "mch_self", ClusterID: "cls_a"}, log: quiet(), engine: engine,
		ready: make(chan struct{}), quit: make(chan struct{}),
	}
	m.end = func() { close(m.quit) }
	var err error
	m.store, err = store.Open(t.Context(), store.Options{Dir: t.TempDir(), Logger: quiet()})
	must(t, err)
	t.Cleanup(func() { must(t, m.store.Close()) })
	close(m.ready)
	m.replicas = reconcile.New(reconcile.Config{})
	return m, engine
}

func left(t *testing.T, engine runtime.Engine) (clusters []string) {
	t.Helper()
	all, err := engine.List(t.Context())
	must(t, err)
	for _, c := range all {
		clusters = append(clusters, c.Cluster)
	}
	return clusters
}

func hasEnded(m *member) bool {
	select {
	case <-m.quit:
		return true
	default:
		return false
	}
}

func TestLeavingTakesTheOwnContainersAndNoOthers(t *testing.T) {
	m, engine := withContainers(t)
	must(t, m.leave(t.Context(), false))
	if got := left(t, engine); len(got) != 1 || got[0] != "cls_other" {
		t.Errorf("left: %q", got)
	}
	if got := engine.Grace("rep_a"); got != 2*time.Minute {
		t.Errorf("it had %s to end", got)
	}
	if !hasEnded(m) || !m.left() {
		t.Error("the member goes on")
	}
}

// TestNothingOfAMachineThatLeavesStays in the state: nor its turn in an upgrade,
// on which the others would wait, nor what it told.
func TestNothingOfAMachineThatLeavesStays(t *testing.T) {
	m, _ := withContainers(t)
	update(t, m, func(tx *storeTx) {
		for _, id := range []string{"mch_self", "mch_other"} {
			tx.Put(spec.Machine{ID: id}, spec.Turn{Machine: id, Upgrade: "upg_a"}, spec.Replica{ID: "rep_" + id, Machine: id},
				spec.Container{Replica: "rep_" + id, Machine: id}, spec.Volume{ID: "vol_" + id, Machine: id}, spec.Event{ID: "evt_" + id, Machine: id})
		}
	})
	must(t, m.deleteOwnRows(t.Context()))
	s := m.store.State()
	for table, n := range map[string]int{"machines": len(s.Machines), "turns": len(s.Turns), "replicas": len(s.Replicas),
		"containers": len(s.Containers), "volumes": len(s.Volumes), "events": len(s.Events)} {
		if n != 1 {
			t.Errorf("%d rows in %s, want that of the other machine", n, table)
		}
	}
}

// TestEventsAreBounded, whoever of the machine writes them.
func TestEventsAreBounded(t *testing.T) {
	m, _ := withContainers(t)
	for range spec.KeptEvents + 5 {
		update(t, m, func(tx *storeTx) { m.tell(tx, "machine.joined", "mch_b", "b joined") })
	}
	for range 5 {
		err := fleetStore{m}.Update(t.Context(), func(tx fleet.Tx) error {
			tx.Put(m.event("upgrade.began", "upg_a", "it began"))
			return nil
		})
		must(t, err)
	}
	if n := len(m.store.State().Events); n != spec.KeptEvents {
		t.Errorf("%d events are kept, want %d", n, spec.KeptEvents)
	}
}

// TestNobodyLeavesContainersBehind: without the engine the member stays whole,
// and reconciles on.
func TestNobodyLeavesContainersBehind(t *testing.T) {
	m, engine := withContainers(t)
	engine.OnCall(func(string, string) error { return faults.New(faults.Engine, "the engine is off").WithHint("start it") })
	refusedAs(t, m.leave(t.Context(), false), faults.Engine, "off")
	if hasEnded(m) || m.left() || !(replicaStore{m}).Ready() {
		t.Error("the member is half gone")
	}
}

// TestWhoLeavesStartsNothing: reconcile sees nothing to run and nothing to remove.
func TestWhoLeavesStartsNothing(t *testing.T) {
	m, _ := withContainers(t)
	_, err := m.store.Update(t.Context(), func(tx *storeTx) error {
		tx.Put(spec.Replica{ID: "rep_a", Service: "svc_a", Machine: "mch_self"})
		return nil
	})
	must(t, err)
	if s := (replicaStore{m}); len(s.State().Replicas) != 1 || !s.Ready() {
		t.Error("before it leaves")
	}
	m.leaving.Store(true)
	if s := (replicaStore{m}); len(s.State().Replicas) != 0 || s.Ready() {
		t.Error("while it leaves")
	}
}

// TestWhatTheStoreCannotTakeInIsATrouble until it can.
func TestWhatTheStoreCannotTakeInIsATrouble(t *testing.T) {
	m, _ := withContainers(t)
	m.merged(crdt.Batch{}, nil, faults.New(faults.Internal, "a bug"))
	if notes := m.troubles.all(); len(notes) != 1 || notes[0].Code != "store" {
		t.Errorf("%v", notes)
	}
	if _, err := (mergedStore{m.store, m}).Merge(t.Context(), crdt.Batch{}); err != nil {
		t.Fatal(err)
	}
	if notes := m.troubles.all(); len(notes) != 0 || m.unmerged.Load() != nil {
		t.Errorf("%v", notes)
	}
}

// TestWhatDoesNotFitOnTheDiskIsMissing until it is here: that something smaller
// fits meanwhile changes nothing.
func TestWhatDoesNotFitOnTheDiskIsMissing(t *testing.T) {
	m := keeper(t)
	one, two := crdt.Version{Site: crdt.SiteID{1}, Seq: 1}, crdt.Version{Site: crdt.SiteID{1}, Seq: 2}
	full := faults.New(faults.DiskFull, "no space left")
	m.merged(crdt.Batch{Rows: []crdt.Row{{Writers: []crdt.Version{one}}}}, nil, full)
	missing := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		err := m.waitFor(ctx, server.Version{Site: one.Site.String(), Seq: one.Seq})
		said := slices.ContainsFunc(m.storeNotes(), func(n server.Note) bool { return n.Code == "store.full" })
		if is := faults.CodeOf(err) == faults.DiskFull; is != said {
			t.Errorf("who waits is told %v, and the notes are %v", err, m.storeNotes())
		}
		return said
	}
	for _, v := range []crdt.Version{two, one} {
		if !missing() {
			t.Errorf("it is forgotten before %v", v)
		}
		if _, err := (mergedStore{m.store, m}).Merge(t.Context(), crdt.Batch{Marks: crdt.Knows(v)}); err != nil {
			t.Fatal(err)
		}
	}
	if missing() {
		t.Error("it is here, and said to be missing")
	}
}

// TestLeavingWithoutAWordIsSaid: a machine that nobody hears leaves all the
// same, and the person is told what to do about it elsewhere.
func TestLeavingWithoutAWordIsSaid(t *testing.T) {
	leave := func(t *testing.T, others ...spec.Row) error {
		m, _ := withContainers(t)
		_, err := m.store.Update(t.Context(), func(tx *storeTx) error {
			tx.Put(spec.Machine{ID: "mch_self", Name: "pi-1"})
			tx.Put(others...)
			return nil
		})
		must(t, err)
		m.gossip, err = gossip.New(gossip.Options{Machine: "mch_self", Cluster: "cls_a", Bind: netip.MustParseAddrPort("127.0.0.1:0")})
		must(t, err)
		must(t, m.gossip.Start(t.Context()))
		t.Cleanup(func() { must(t, m.gossip.Close()) })
		must(t, m.leave(t.Context(), true))
		if !hasEnded(m) {
			t.Error("the member goes on")
		}
		return m.untold
	}
	if err := leave(t); err != nil {
		t.Errorf("the last machine of a cluster: %v", err)
	}
	err := leave(t, spec.Machine{ID: "mch_other", Name: "pi-2"})
	refusedAs(t, err, faults.Unreachable, "none of the 1 others can be reached")
	if hint := faults.Of(err).Hint; !strings.HasSuffix(hint, "uc machine rm --force pi-1") {
		t.Error(hint)
	}
}
