package statesync

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/store"
	"uncloud/internal/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is real stores with real syncers, on loopback in one process.
type cluster struct {
	t  testing.TB
	mu sync.Mutex
	// machines by name; cut pairs are not connected, and conns are those that are.
	machines map[string]*machine
	cut      func(a, b string) bool
	conns    map[net.Conn][2]string
}

type machine struct {
	name, dir string
	listener  net.Listener
	store     *store.Store
	syncer    *Syncer
	stop      func()
}

func newCluster(t testing.TB, size int) *cluster {
	c := &cluster{
		t: t, machines: map[string]*machine{}, conns: map[net.Conn][2]string{},
		cut: func(a, b string) bool { return false },
	}
	t.Cleanup(func() {
		for _, m := range c.machines {
			m.stop()
		}
	})
	for i := range size {
		c.start(fmt.Sprintf("m%d", i), t.TempDir())
	}
	return c
}

// start brings a machine up on the store in dir.
func (c *cluster) start(name, dir string) *machine {
	c.t.Helper()
	st, err := store.Open(context.Background(), store.Options{Dir: dir})
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	m := &machine{name: name, dir: dir, listener: l, store: st}
	m.syncer, err = New(Options{Cluster: "c", Machine: name, Store: st, Dial: func(ctx context.Context, to string, addr PeerAddr) (net.Conn, error) {
		return c.dial(ctx, name, to, addr)
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	st.OnCommit(func(commit store.Commit) {
		if commit.Local {
			m.syncer.Committed(commit.Batch)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.syncer.Run(ctx, l) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
		if err := st.Close(); err != nil {
			c.t.Error(err)
		}
	})
	c.mu.Lock()
	c.machines[name] = m
	c.mu.Unlock()
	c.introduce()
	return m
}

// introduce tells every machine of all others.
func (c *cluster) introduce() {
	peers := map[string]PeerAddr{}
	for name, m := range c.machines {
		peers[name] = PeerAddr(m.listener.Addr().String())
	}
	for _, m := range c.machines {
		m.syncer.SetPeers(peers)
	}
}

func (c *cluster) dial(ctx context.Context, from, to string, addr PeerAddr) (net.Conn, error) {
	c.mu.Lock()
	cut := c.cut(from, to)
	c.mu.Unlock()
	if cut {
		return nil, errors.New("no route")
	}
	conn, err := dialTCP(ctx, to, addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[conn] = [2]string{from, to}
	return conn, nil
}

// partition breaks the connections of pairs that are apart, and keeps them so.
func (c *cluster) partition(apart func(a, b string) bool) {
	c.mu.Lock()
	c.cut = apart
	for conn, ends := range c.conns {
		if apart(ends[0], ends[1]) {
			_ = conn.Close()
			delete(c.conns, conn)
		}
	}
	c.mu.Unlock()
	for _, m := range c.machines {
		m.syncer.Poke("")
	}
}

func (c *cluster) heal() { c.partition(func(a, b string) bool { return false }) }

// eventually waits until cond holds.
func (c *cluster) eventually(what string, cond func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("not in time: %s\n%s", what, c.describe())
		}
	}
}

func (c *cluster) describe() string {
	var b strings.Builder
	for name, m := range c.machines {
		fmt.Fprintf(&b, "%s knows %v, %+v\n", name, m.store.Known(), m.syncer.Status())
	}
	return b.String()
}

// agree waits until all machines know the same, and checks that they hold the same.
func (c *cluster) agree() {
	c.t.Helper()
	var first *machine
	for _, m := range c.machines {
		first = m
	}
	c.eventually("all know the same", func() bool {
		for _, m := range c.machines {
			if !m.store.Known().Equal(first.store.Known()) {
				return false
			}
		}
		return true
	})
	want := c.digest(first)
	for name, m := range c.machines {
		if c.digest(m) != want {
			c.t.Fatalf("%s and %s know the same and hold different rows", name, first.name)
		}
		if missing := m.store.Status().Missing; missing > 0 {
			c.t.Fatalf("%s has gaps of %d versions", name, missing)
		}
	}
}

func (c *cluster) digest(m *machine) string {
	c.t.Helper()
	d, err := m.store.Digest(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	return d
}

func (c *cluster) connected() {
	c.t.Helper()
	c.eventually("all are connected", func() bool {
		for _, m := range c.machines {
			for _, p := range m.syncer.Status().Peers {
				if !p.Connected {
					return false
				}
			}
		}
		return true
	})
}

func (c *cluster) put(name string, rows ...spec.Row) store.Version {
	c.t.Helper()
	v, err := c.machines[name].store.Update(context.Background(), func(tx *store.Tx) error {
		tx.Put(rows...)
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

func (c *cluster) remove(name, table, key string) {
	c.t.Helper()
	if _, err := c.machines[name].store.Update(context.Background(), func(tx *store.Tx) error {
		tx.Delete(table, key)
		return nil
	}); err != nil {
		c.t.Fatal(err)
	}
}

// await waits until a machine has a version.
func (c *cluster) await(name string, v store.Version) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := c.machines[name].store.WaitFor(ctx, v); err != nil {
		c.t.Fatalf("%s: %v\n%s", name, err, c.describe())
	}
}

// Both sides of a partition go on, a machine joins on each, and after healing
// all show one state by the merge rules.
func TestPartitionAndHeal(t *testing.T) {
	c := newCluster(t, 5)
	c.connected()
	web, db := spec.Service{ID: "svc_web", Revision: "rev_1", Replicas: 1}, spec.Service{ID: "svc_db"}
	c.put("m0", web, db)
	c.agree()
	left := func(m string) bool { return m == "m0" || m == "m1" || m == "m5" }
	c.partition(func(a, b string) bool { return left(a) != left(b) })
	deployed, scaled := web, web
	deployed.Revision, scaled.Replicas = "rev_2", 4
	v := c.put("m1", deployed)
	c.await("m0", v)
	w := c.put("m4", scaled)
	c.await("m2", w)
	c.remove("m3", "services", "svc_db")
	c.start("m5", t.TempDir())
	c.start("m6", t.TempDir())
	c.await("m5", v)
	c.await("m6", w)
	if c.machines["m5"].store.Covers(w) || c.machines["m6"].store.Covers(v) {
		t.Fatal("the partition leaks")
	}
	c.put("m6", spec.Project{ID: "prj_1", Name: "made by a newcomer"})
	c.heal()
	c.agree()
	for name, m := range c.machines {
		st := m.store.State()
		got := st.Services["svc_web"]
		if got.Revision != "rev_2" || got.Replicas != 4 || len(st.Services) != 1 || len(st.Projects) != 1 {
			t.Errorf("%s: %+v %+v", name, st.Services, st.Projects)
		}
	}
}

func TestAgreementThroughAThird(t *testing.T) {
	c := newCluster(t, 3)
	c.connected()
	c.partition(func(a, b string) bool { return a != "m2" && b != "m2" })
	c.await("m1", c.put("m0", spec.Project{ID: "prj_1"}))
	c.await("m0", c.put("m1", spec.Project{ID: "prj_2"}))
	c.agree()
}

// Machines that are killed and come back, with or without their disk, while
// all write.
func TestRestartsUnderLoad(t *testing.T) {
	c := newCluster(t, 4)
	c.connected()
	random := rand.New(rand.NewSource(1))
	for i := range 300 {
		name := fmt.Sprintf("m%d", random.Intn(4))
		switch {
		case i%60 == 30:
			m := c.machines[name]
			m.stop()
			dir := m.dir
			if i == 150 {
				dir = t.TempDir() // a new disk
			}
			c.start(name, dir)
		case i%7 == 0:
			c.remove(name, "projects", fmt.Sprint("prj_", random.Intn(20)))
		default:
			c.put(name, spec.Project{ID: fmt.Sprint("prj_", random.Intn(20)), Name: fmt.Sprint(name, i)})
		}
	}
	c.agree()
}

// A new machine takes the whole state at once, and says when it has it.
func TestLateJoin(t *testing.T) {
	c := newCluster(t, 3)
	for i := range 400 {
		c.put(fmt.Sprintf("m%d", i%3), spec.Event{ID: fmt.Sprint("evt_", i), Text: strings.Repeat("x", 2000)})
	}
	m := c.start("m3", t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := m.syncer.AwaitCaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	if !m.syncer.CaughtUp() || len(m.store.State().Events) == 0 {
		t.Fatalf("caught up with %d events", len(m.store.State().Events))
	}
	c.agree()
	if n := len(m.store.State().Events); n != 400 {
		t.Fatalf("%d events", n)
	}
}

func TestAloneIsCaughtUp(t *testing.T) {
	c := newCluster(t, 1)
	if !c.machines["m0"].syncer.CaughtUp() {
		t.Fatal("a machine without peers waits for somebody")
	}
}

// A machine whose disk was set back is mended, and nothing that was written
// since is lost.
func TestDiskSetBack(t *testing.T) {
	c := newCluster(t, 3)
	c.connected()
	c.put("m0", spec.Project{ID: "prj_old"})
	c.agree()
	m := c.machines["m0"]
	m.stop()
	database := filepath.Join(m.dir, "state.db")
	content, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	m = c.start("m0", m.dir)
	before := m.store.Site()
	c.put("m0", spec.Project{ID: "prj_since"})
	c.put("m0", spec.Project{ID: "prj_since2"})
	c.agree()
	m.stop()
	if err := os.WriteFile(database, content, 0o600); err != nil {
		t.Fatal(err)
	}
	m = c.start("m0", m.dir)
	c.put("m0", spec.Project{ID: "prj_restored"})
	c.eventually("a new site id", func() bool { return m.store.Site() != before })
	c.eventually("all projects everywhere", func() bool {
		for _, m := range c.machines {
			if len(m.store.State().Projects) != 4 {
				return false
			}
		}
		return true
	})
	c.agree()
}

// A machine that was made from a copy of another's disk is one more machine.
func TestCopiedDisk(t *testing.T) {
	c := newCluster(t, 2)
	c.connected()
	c.put("m1", spec.Project{ID: "prj_1"})
	m := c.machines["m1"]
	m.stop()
	copied := t.TempDir()
	content, err := os.ReadFile(filepath.Join(m.dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(copied, "state.db"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	c.start("m1", m.dir)
	c.start("m2", copied)
	c.put("m1", spec.Project{ID: "prj_2"})
	c.put("m2", spec.Project{ID: "prj_3"})
	c.agree()
	if n := len(c.machines["m0"].store.State().Projects); n != 3 {
		t.Fatalf("%d projects", n)
	}
}

func TestOtherClusterIsRefused(t *testing.T) {
	c := newCluster(t, 1)
	st, err := store.Open(t.Context(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	s, err := New(Options{Cluster: "other", Machine: "x", Store: st})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- s.Run(ctx, l) }()
	s.SetPeers(map[string]PeerAddr{"m0": PeerAddr(c.machines["m0"].listener.Addr().String())})
	s.Poke("m0")
	c.eventually("refused with a reason", func() bool {
		p := s.Status().Peers
		return len(p) == 1 && !p[0].Connected && strings.Contains(p[0].Err, "another cluster")
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestPeerThatIsDismissed(t *testing.T) {
	c := newCluster(t, 2)
	c.connected()
	c.machines["m0"].syncer.SetPeers(nil)
	c.machines["m1"].syncer.SetPeers(nil)
	c.eventually("no links", func() bool {
		return len(c.machines["m0"].syncer.Status().Peers)+len(c.machines["m1"].syncer.Status().Peers) == 0
	})
	v := c.put("m0", spec.Project{ID: "prj_1"})
	c.introduce()
	c.await("m1", v)
}

// Whatever a connection brings, the machine goes on.
func TestGarbageOnAConnection(t *testing.T) {
	c := newCluster(t, 2)
	c.connected()
	addr := c.machines["m0"].listener.Addr().String()
	random := rand.New(rand.NewSource(1))
	greeting := appendFrame(nil, hello{Cluster: "c", Machine: "x", Site: crdt.SiteID{1}, Known: crdt.Known{}})
	for i := range 200 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			_, _ = conn.Write(append([]byte{0, 0, 0, byte(len(greeting))}, greeting...))
		}
		for _, f := range everyFrame()[i%2:] {
			b := appendFrame(nil, f)
			b[random.Intn(len(b))] ^= byte(1 << random.Intn(8))
			_, _ = conn.Write(append([]byte{0, 0, 0, byte(len(b))}, b...))
		}
		_ = conn.Close()
	}
	c.await("m1", c.put("m0", spec.Project{ID: "prj_1"}))
	c.await("m0", c.put("m1", spec.Project{ID: "prj_2"}))
}

// BenchmarkPush is the time from a write accepted on one machine until both
// others can read it. The loopback round trip is its control.
func BenchmarkPush(b *testing.B) {
	c := newCluster(b, 3)
	c.connected()
	n := 0
	for b.Loop() {
		n++
		v := c.put("m0", spec.Project{ID: fmt.Sprint("prj_", n%100), Name: fmt.Sprint(n)})
		c.await("m1", v)
		c.await("m2", v)
	}
}
