package rollout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"uncloud/internal/spec"
)

// simWorld is a cluster in one process: stores, liveness, and machines that
// make their containers fit the rows, in virtual time.
type simWorld struct {
	t        *testing.T
	mu       sync.Mutex
	machines map[string]*simMachine
	watchers map[chan struct{}]bool // who comes and goes
	wg       sync.WaitGroup
	ctx      context.Context //nolint:containedctx // the test's, for its calls
	// images says how containers of an image behave; others are healthy at once.
	images map[string]behaviour
	// seen is called after each change of what really runs.
	seen []func()
	seed atomic.Int64 // of the next driver's random numbers
	// gated fails the test when a container ends to which a machine still sends traffic.
	gated bool
}

type behaviour int

const (
	healthy behaviour = iota
	neverHealthy
	exits
	hangs  // never becomes anything
	unmade // the engine cannot make it
	stays  // does not end
)

// simMachine is a machine: its agent may be gone while its containers run on.
type simMachine struct {
	w          *simWorld
	id         string
	store      *simStore
	side       int
	up         bool // the agent answers
	containers map[string]*simContainer
	changed    chan struct{} // closed at the next change of its containers
	poke       chan struct{}
	subs       map[chan struct{}]bool // of this machine in its store
	stop       context.CancelFunc
	driver     *Driver
	// crashAt counts the driver's calls down; at zero the machine crashes.
	crashAt int
	calls   []string
	has     map[string]bool // images that cannot be pulled
	run     int             // counts starts of the agent
	loaded  map[string]bool // replicas that this machine sends traffic to
	emptied []string        // volumes whose content was removed, project/name
}

// simContainer is what really runs.
type simContainer struct {
	revision string
	spec     spec.ContainerSpec
	state    spec.ContainerState
	health   spec.Health
}

const (
	simStart  = 100 * time.Millisecond
	simHealth = 200 * time.Millisecond
	simStop   = 150 * time.Millisecond
)

func newSimWorld(t *testing.T, ctx context.Context, names ...string) *simWorld {
	w := &simWorld{t: t, ctx: ctx, machines: map[string]*simMachine{}, watchers: map[chan struct{}]bool{}, images: map[string]behaviour{}}
	store := newSimStore()
	for _, n := range names {
		w.add(n, store, 0)
	}
	return w
}

func (w *simWorld) add(name string, store *simStore, side int) *simMachine {
	id := "mch_" + name
	m := &simMachine{w: w, id: id, store: store, side: side, containers: map[string]*simContainer{},
		changed: make(chan struct{}), poke: make(chan struct{}, 1), subs: map[chan struct{}]bool{}, has: map[string]bool{}}
	w.mu.Lock()
	w.machines[id] = m
	w.mu.Unlock()
	_, err := store.Update(w.ctx, func(tx Tx) error {
		return tx.Put(spec.Machine{ID: id, Name: name, Schedulable: true, JoinedAt: time.Now()})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	m.boot()
	return m
}

// boot starts the machine's agent: its own loop and its driver's.
func (m *simMachine) boot() {
	ctx, stop := context.WithCancel(m.w.ctx)
	m.w.mu.Lock()
	m.up, m.stop, m.crashAt, m.loaded = true, stop, 0, map[string]bool{}
	m.run++
	run := m.run
	driver, err := New(Config{
		Self: m.id, Store: simView{m, run}, Members: simMembers{m}, Peers: simPeers{m, run},
		Random: rand.New(rand.NewSource(m.w.seed.Add(1))), Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.driver = driver
	m.w.mu.Unlock()
	m.w.wakeAll()
	m.w.wg.Go(func() { m.loop(ctx, run) })
	m.w.wg.Go(func() {
		if err := driver.Supervise(ctx); err != nil {
			m.w.t.Error(err)
		}
	})
}

// crash ends the agent. What runs runs on.
func (m *simMachine) crash() {
	m.w.mu.Lock()
	up := m.up
	m.up = false
	m.w.mu.Unlock()
	if up {
		m.stop()
		m.w.wakeAll()
	}
}

func (w *simWorld) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// cut puts machines on the other side of a partition.
func (w *simWorld) cut(names ...string) {
	other := w.m(names[0]).replica().fork()
	w.mu.Lock()
	for _, n := range names {
		w.machines["mch_"+n].moves(other, 1)
	}
	w.mu.Unlock()
	w.wakeAll()
}

// heal ends the partition: both sides hear all the other side wrote.
func (w *simWorld) heal() {
	w.mu.Lock()
	var here, there *simStore
	for _, m := range w.machines {
		if m.side == 0 {
			here = m.store
		} else {
			there = m.store
		}
	}
	w.mu.Unlock()
	here.merge(there)
	w.mu.Lock()
	for _, m := range w.machines {
		if m.side == 1 {
			m.moves(here, 0)
		}
	}
	w.mu.Unlock()
	here.Update(w.ctx, func(Tx) error { return nil }) //nolint:errcheck // wakes
	w.wakeAll()
}

func (m *simMachine) moves(to *simStore, side int) {
	for ch := range m.subs {
		m.store.leave(ch)
		to.join(ch)
	}
	m.store, m.side = to, side
}

func (m *simMachine) replica() *simStore {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	return m.store
}

// loop is the machine's own repair: containers fit rows.
func (m *simMachine) loop(ctx context.Context, run int) {
	rows, cancel := simView{m, run}.Subscribe()
	defer cancel()
	for id := range m.running() {
		m.tell(ctx, id) // the agent before may have ended before it did
	}
	for ctx.Err() == nil {
		if m.act(ctx) {
			continue
		}
		select {
		case <-rows:
		case <-m.poke:
		case <-ctx.Done():
		}
	}
}

// act does one thing and tells whether there was one.
func (m *simMachine) act(ctx context.Context) bool {
	s := m.replica().State()
	runs := m.running()
	for _, id := range slices.Sorted(maps.Keys(runs)) {
		c := runs[id]
		r, ok := s.Replicas[id]
		stale := ok && (c.spec.Hash() != s.Revisions[r.Revision].Spec.Container.Hash() && s.Revisions[r.Revision].ID != "")
		if !ok || r.Machine != m.id || stale || s.Services[r.Service].Wanted == spec.WantStopped {
			m.end(ctx, id)
			return true
		}
		if c.health == spec.HealthStarting && m.w.how(c.spec.Image) != hangs {
			m.probe(ctx, id, *c) // started by an agent that ended before it knew
			return true
		}
		if c.revision != r.Revision {
			m.set(id, &simContainer{r.Revision, c.spec, c.state, c.health})
			m.tell(ctx, id)
			return true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.Replicas)) {
		r := s.Replicas[id]
		_, exists := m.running()[id]
		rev, known := s.Revisions[r.Revision]
		if m.w.how(rev.Spec.Container.Image) == unmade {
			exists = s.Containers[id].State == spec.ContainerFailed
		}
		if r.Machine == m.id && !exists && known && s.Services[r.Service].Wanted == spec.WantRunning {
			m.begin(ctx, id, rev)
			return true
		}
	}
	for id, c := range s.Containers {
		_, wanted := s.Replicas[id]
		if _, exists := m.running()[id]; c.Machine == m.id && !exists && (c.State != spec.ContainerFailed || !wanted) {
			m.tell(ctx, id)
			return true
		}
	}
	return false
}

func (m *simMachine) running() map[string]*simContainer {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	return maps.Clone(m.containers)
}

func (m *simMachine) set(id string, c *simContainer) {
	m.w.mu.Lock()
	if c == nil {
		delete(m.containers, id)
	} else {
		m.containers[id] = c
	}
	close(m.changed)
	m.changed = make(chan struct{})
	watching := slices.Clone(m.w.seen)
	m.w.mu.Unlock()
	for _, f := range watching {
		f()
	}
}

func (m *simMachine) begin(ctx context.Context, id string, rev spec.Revision) {
	if m.w.how(rev.Spec.Container.Image) == unmade {
		m.replica().Update(ctx, func(tx Tx) error { //nolint:errcheck // the sim's store does not fail
			return tx.Put(spec.Container{Replica: id, Machine: m.id, State: spec.ContainerFailed, Error: "no such image"})
		})
		return
	}
	c := simContainer{revision: rev.ID, spec: rev.Spec.Container, state: spec.ContainerRunning, health: spec.HealthStarting}
	// The container is there from now on, also if the agent ends while it starts.
	m.set(id, &c)
	if wait(ctx, simStart) == nil && m.w.how(c.spec.Image) != hangs {
		m.probe(ctx, id, c)
	}
}

func (m *simMachine) probe(ctx context.Context, id string, c simContainer) {
	if wait(ctx, simHealth) != nil {
		return
	}
	done := c
	switch m.w.how(c.spec.Image) {
	case neverHealthy:
		done.health = spec.HealthUnhealthy
	case exits:
		done.state, done.health = spec.ContainerExited, spec.HealthUnhealthy // and is not probed again
	default:
		done.health = spec.HealthHealthy
	}
	m.set(id, &done)
	m.tell(ctx, id)
}

func (m *simMachine) end(ctx context.Context, id string) {
	m.w.sendsNobody(id)
	if wait(ctx, simStop) != nil {
		return
	}
	if m.w.how(m.running()[id].image()) == stays {
		return
	}
	m.set(id, nil)
	m.tell(ctx, id)
}

// sendsNobody fails the test when a living machine sends traffic to a replica
// that ends.
func (w *simWorld) sendsNobody(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, m := range w.machines {
		if w.gated && m.up && m.loaded[id] {
			w.t.Errorf("%s still sends traffic to %s, which ends", name, id)
		}
	}
}

// load makes names and ingress of the machine follow its store.
func (m *simMachine) load() {
	s, alive := m.replica().State(), simMembers{m}.Alive()
	loaded := map[string]bool{}
	for id, r := range s.Replicas {
		loaded[id] = spec.Eligible(s, alive, r)
	}
	m.w.mu.Lock()
	m.loaded = loaded
	m.w.mu.Unlock()
}

// watch calls f after each change of what really runs.
func (w *simWorld) watch(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, f)
}

// tell writes what runs.
func (m *simMachine) tell(ctx context.Context, id string) {
	m.w.mu.Lock()
	c, exists := m.containers[id]
	m.w.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	m.replica().Update(ctx, func(tx Tx) error { //nolint:errcheck // the sim's store does not fail
		if !exists {
			return tx.Delete("containers", id)
		}
		return tx.Put(spec.Container{Replica: id, Machine: m.id, Revision: c.revision, State: c.state, Health: c.health,
			Address: netip.MustParseAddr("10.210.0.2")})
	})
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errCrashed = errors.New("the machine crashed")

// call counts a driver's call, before or after it happened; at the chosen one
// the machine crashes.
func (m *simMachine) call(run int, what string) error {
	m.w.mu.Lock()
	if run != m.run || !m.up {
		m.w.mu.Unlock()
		return errCrashed
	}
	m.calls = append(m.calls, what)
	crash := false
	if m.crashAt > 0 {
		m.crashAt--
		crash = m.crashAt == 0
	}
	m.w.mu.Unlock()
	if crash {
		m.crash()
		return errCrashed
	}
	return nil
}

// m is a machine by name.
func (w *simWorld) m(name string) *simMachine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.machines["mch_"+name]
}

// settled waits until a machine's side is at rest: no rollout, and what runs is
// what the rows say. It fails after ten minutes of virtual time.
func (w *simWorld) settled(name string) *spec.State {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Minute)
	why := ""
	for time.Now().Before(deadline) {
		time.Sleep(5 * time.Second)
		if why = w.unsettled(name); why == "" {
			return w.m(name).replica().State()
		}
	}
	w.t.Fatalf("not settled: %s\n%s", why, w.dump(name))
	return nil
}

func (w *simWorld) unsettled(name string) string {
	m := w.m(name)
	s, alive := m.replica().State(), simMembers{m}.Alive()
	for _, r := range s.Rollouts {
		if active(r) {
			return "rollout " + r.ID + " of " + r.Service + " is " + string(r.Stage) + " by " + r.Driver
		}
	}
	never := s.NeverRan()
	for id, svc := range s.Services {
		if never[id] {
			if len(alive) == len(s.Machines) {
				return svc.Name + " never ran"
			}
			continue
		}
		steps, err := planConverge(m.driver, id)
		if err != nil || len(steps) > 0 {
			return fmt.Sprintf("%s: %v %v", svc.Name, steps, err)
		}
	}
	for id, r := range s.Replicas {
		if _, ok := s.Services[r.Service]; !ok {
			return "orphaned row " + id
		}
		if alive[r.Machine] && !spec.Eligible(s, alive, r) && s.Services[r.Service].Wanted == spec.WantRunning {
			return "replica " + id + " takes no traffic"
		}
	}
	for id := range alive {
		for rep := range w.machines[id].running() {
			if s.Replicas[rep].Machine != id {
				return "container of " + rep + " is left on " + id
			}
		}
	}
	return ""
}

func (w *simWorld) dump(name string) string {
	var b bytes.Buffer
	s := w.m(name).replica().State()
	for _, t := range []any{s.Services, s.Replicas, s.Containers, s.Rollouts} {
		fmt.Fprintf(&b, "%s\n", spec.Canonical(t))
	}
	for id, m := range w.machines {
		fmt.Fprintf(&b, "%s up=%v side=%d %v\n", id, m.up, m.side, slices.Sorted(maps.Keys(m.containers)))
	}
	return b.String()
}
