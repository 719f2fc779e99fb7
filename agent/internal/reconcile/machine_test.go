package reconcile

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/spec"
)

// memory is a store, and the recorder that writes to it.
type memory struct {
	mu      sync.Mutex
	state   *spec.State
	ready   bool
	wakes   []chan struct{}
	records int
	fail    error // of Record
}

func (m *memory) State() *spec.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

func (m *memory) Ready() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ready
}

// refuse makes every Record fail, until it is nil again.
func (m *memory) refuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memory) Subscribe() (<-chan struct{}, func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wake := make(chan struct{}, 1)
	m.wakes = append(m.wakes, wake)
	return wake, func() {}
}

// update changes a copy of the state and wakes those who subscribed.
func (m *memory) update(change func(*spec.State)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := *m.state
	s.Machines, s.Services, s.Revisions = maps.Clone(s.Machines), maps.Clone(s.Services), maps.Clone(s.Revisions)
	s.Replicas, s.Containers = maps.Clone(s.Replicas), maps.Clone(s.Containers)
	change(&s)
	m.state = &s
	for _, w := range m.wakes {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func (m *memory) Record(_ context.Context, rows []spec.Container, gone []string) error {
	m.mu.Lock()
	fail := m.fail
	m.mu.Unlock()
	if fail != nil {
		return fail
	}
	m.update(func(s *spec.State) {
		m.records++
		for _, r := range rows {
			s.Containers[r.Replica] = r
		}
		for _, id := range gone {
			delete(s.Containers, id)
		}
	})
	return nil
}

// probes is a health package that a test speaks for.
type probes struct {
	mu      sync.Mutex
	targets map[string]Target
}

func (p *probes) Watch(replica string, t Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.targets[replica] = t
}

func (p *probes) Forget(replica string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.targets, replica)
}

func (p *probes) target(replica string) (Target, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.targets[replica]
	return t, ok
}

// machine is a Reconciler over the twin of an engine, in virtual time.
type machine struct {
	*testing.T
	engine *runtime.Fake
	store  *memory
	probes *probes
	r      *Reconciler

	network func(context.Context, netip.Prefix) error
}

// engineNetwork makes the engine's part of the network; the twin's bridge is there.
func (m *machine) engineNetwork(ctx context.Context, subnet netip.Prefix) error {
	return m.engine.EnsureNetwork(ctx, runtime.Network{Name: runtime.NetworkName, Bridge: runtime.BridgeName, Subnet: subnet})
}

// onMachine runs a test in a bubble of virtual time, on a machine that begins
// with the state of base and the image of its revision.
func onMachine(t *testing.T, prepare func(*machine), test func(m *machine)) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{T: t, engine: runtime.NewFake(), store: &memory{state: base(), ready: true}, probes: &probes{targets: map[string]Target{}}}
		m.engine.AddImage("web:1")
		m.network = m.engineNetwork
		if prepare != nil {
			prepare(m)
		}
		m.r = New(Config{
			Machine: self, Cluster: cluster, Engine: m.engine, Store: m.store, Recorder: m.store, Health: m.probes,
			Random: func() float64 { return 0 }, Network: m.network,
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.r.Run(ctx) }()
		synctest.Wait()
		test(m)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

// row is what was recorded of a replica, once nothing is under way.
func (m *machine) row(replica string) spec.Container {
	m.Helper()
	synctest.Wait()
	return m.store.State().Containers[replica]
}

func (m *machine) wantState(replica string, want spec.ContainerState) spec.Container {
	m.Helper()
	row := m.row(replica)
	if row.State != want {
		m.Fatalf("replica %s is %q (%s), want %q", replica, row.State, row.Error, want)
	}
	return row
}

func (m *machine) wantCalls(want ...string) {
	m.Helper()
	synctest.Wait()
	if got := m.engine.Calls(); !slices.Equal(got, want) {
		m.Errorf("calls:\n got %q\nwant %q", got, want)
	}
}

// check gives rep_1's revision a health check.
func (m *machine) check() {
	m.store.update(func(s *spec.State) {
		rev := s.Revisions["rev_1"]
		rev.Spec.Health = &spec.HealthCheck{TCP: ":80"}
		s.Revisions["rev_1"] = rev
	})
}

func (m *machine) verdict(h spec.Health, output string) {
	m.Helper()
	synctest.Wait()
	t, ok := m.probes.target("rep_1")
	if !ok {
		m.Fatal("nobody probes")
	}
	m.r.Verdict(Verdict{Replica: "rep_1", Container: t.Container, StartedAt: t.StartedAt, Health: h, Output: output})
}

func (m *machine) replica(id string, change func(*spec.Replica)) {
	m.store.update(func(s *spec.State) {
		r := s.Replicas[id]
		change(&r)
		s.Replicas[id] = r
	})
}

// sleep lets virtual time pass.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
