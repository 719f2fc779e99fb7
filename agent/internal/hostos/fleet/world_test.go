package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"uncloud/agent/internal/hostos"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

const (
	oldSystem = "/nix/store/aaa-nixos-1"
	newSystem = "/nix/store/bbb-nixos-2"
	// bootTime is how long a machine is away when it starts anew.
	bootTime = 40 * time.Second
)

// world is a cluster of machines in virtual time: their agents' fleets, their
// host processes, and twins of their systems. They share one store.
type world struct {
	t        *testing.T
	ctx      context.Context //nolint:containedctx // the length of the test
	store    *sharedStore
	machines map[string]*machine
	ids      atomic.Int64
	wg       sync.WaitGroup
}

// machine is one of them. Its life is a context that ends with a power cut.
type machine struct {
	id     string
	w      *world
	twin   *hostos.Twin
	host   *hostos.Host
	client *hostos.Client
	policy Policy

	mu    sync.Mutex
	fleet *Fleet
	off   context.CancelFunc // cuts the power
	agent context.CancelFunc // ends the agent
	stays bool               // it does not come back
}

// inWorld runs a test in virtual time with these machines.
func inWorld(t *testing.T, ids []string, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := &world{t: t, ctx: ctx, machines: map[string]*machine{}, store: newSharedStore(t)}
		defer w.wg.Wait()
		defer cancel()
		for i, id := range ids {
			w.store.put(spec.Machine{ID: id, Name: id, NixOS: "26.05", Generation: "1 (booted)", JoinedAt: time.Unix(int64(i), 0)})
			w.add(id)
		}
		synctest.Wait()
		test(w)
	})
}

func (w *world) add(id string) {
	m := &machine{id: id, w: w, policy: Policy{Within: 5 * time.Minute, Name: id}}
	m.twin = hostos.NewTwin(oldSystem, time.Now)
	m.host, m.client = m.twin.Pair(hostos.Options{Log: quiet})
	m.twin.OnRestart(func() { w.wg.Go(m.restart) })
	m.twin.OnMoment(func(moment string) {
		if moment == "after try "+newSystem || moment == "after try "+oldSystem {
			m.restartAgent() // its unit has changed
		}
	})
	w.machines[id] = m
	m.on()
}

var quiet = slog.New(slog.DiscardHandler)

// on starts agent and host process.
func (m *machine) on() {
	ctx, off := context.WithCancel(m.w.ctx)
	m.mu.Lock()
	m.off = off
	m.mu.Unlock()
	m.w.store.alive(m.id, true)
	m.w.wg.Go(func() { m.hostUnit(ctx) })
	m.startAgent(ctx)
}

// hostUnit is the host process as its units run it.
func (m *machine) hostUnit(ctx context.Context) {
	for ctx.Err() == nil {
		if err := m.host.Run(ctx); err != nil && ctx.Err() == nil {
			m.w.t.Error(err)
		}
		wake := make(chan struct{}, 1)
		waiting, stop := context.WithCancel(ctx)
		go m.client.Watch(waiting, wake) //nolint:errcheck // ends with its context
		<-wake                           // at once
		if !m.ordered() {
			select {
			case <-wake:
			case <-ctx.Done():
			}
		}
		stop()
	}
}

func (m *machine) ordered() bool {
	for id := range m.w.store.State().Upgrades {
		if _, known, err := m.client.Ordered(id); known && err == nil {
			return true
		}
	}
	return false
}

func (m *machine) startAgent(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	f, err := New(Config{
		Self: m.id, Store: m.w.store, Members: m.w.store, Host: m.client, Witness: m.ask, Ensure: m.ensure, Policy: m.policy, Now: time.Now, Log: quiet,
		NewID: func() (string, error) { return fmt.Sprintf("upg_%d", m.w.ids.Add(1)), nil },
		Event: func(kind, subject, text string) spec.Event {
			return spec.Event{ID: kind + subject, Kind: kind, Text: text}
		},
	})
	if err != nil {
		m.w.t.Error(err)
	}
	m.mu.Lock()
	m.fleet, m.agent = f, stop
	m.mu.Unlock()
	m.w.wg.Go(func() { f.Run(ctx) }) //nolint:errcheck // it returns nil
}

// restartAgent is what a switch does to it.
func (m *machine) restartAgent() {
	m.mu.Lock()
	stop := m.agent
	m.mu.Unlock()
	stop()
	m.startAgent(m.w.ctx)
}

// cut takes the power away.
func (m *machine) cut() {
	m.mu.Lock()
	off, agent := m.off, m.agent
	m.mu.Unlock()
	m.w.store.alive(m.id, false)
	agent()
	off()
}

// restart is a power cut that ends.
func (m *machine) restart() {
	m.cut()
	select {
	case <-time.After(bootTime):
	case <-m.w.ctx.Done():
		return
	}
	if m.stays {
		return
	}
	m.twin.Boot()
	m.on()
}

func (m *machine) current() *Fleet {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fleet
}

// ensure is the engine, which knows what the rows may not know yet.
func (m *machine) ensure(_ context.Context, replica string) error {
	if m.w.store.engine(replica) != spec.HealthHealthy {
		return errNo
	}
	return nil
}

// ask is the call of a witness.
func (m *machine) ask(_ context.Context, other, upgrade string, _ Version) (Version, error) {
	if alive := m.w.store.Alive(); !alive[m.id] || !alive[other] {
		return Version{}, faults.New(faults.Unreachable, "machine %s does not answer over the mesh", other)
	}
	return m.w.machines[other].current().Confirm(m.id, upgrade)
}

// begin begins an upgrade at a machine.
func (w *world) begin(at string, r Request) string {
	w.t.Helper()
	id, err := w.machines[at].current().Begin(w.ctx, r)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// end waits until an upgrade has ended and nobody is at work on it.
func (w *world) end(id string) spec.Upgrade {
	w.t.Helper()
	for range 10_000 {
		synctest.Wait()
		u := w.store.State().Upgrades[id]
		if u.Stage != spec.UpgradeRunning && settled(w.store.State(), u, w.store.Alive()) {
			return u
		}
		time.Sleep(time.Second)
	}
	w.t.Fatalf("no end: %+v\n%+v", w.store.State().Upgrades[id], w.store.State().Turns)
	return spec.Upgrade{}
}

// runs tells what a machine runs, and that it would boot the same.
func (w *world) runs(id string) string {
	w.t.Helper()
	running, loader := w.machines[id].twin.Running(), w.machines[id].twin.Loader()
	if running != loader {
		w.t.Errorf("%s runs %s and would boot %s", id, running, loader)
	}
	return running
}

// sharedStore is a store that every machine sees at once, and who lives.
type sharedStore struct {
	t     *testing.T
	mu    sync.Mutex
	state *spec.State
	subs  map[chan struct{}]bool

	livesMu sync.Mutex // innermost
	lives   spec.Alive
	truth   map[string]spec.Health
}

func newSharedStore(t *testing.T) *sharedStore {
	return &sharedStore{t: t, lives: spec.Alive{}, subs: map[chan struct{}]bool{}, truth: map[string]spec.Health{}, state: &spec.State{
		Machines: map[string]spec.Machine{}, Upgrades: map[string]spec.Upgrade{}, Turns: map[string]spec.Turn{}, Events: map[string]spec.Event{},
		Services: map[string]spec.Service{}, Revisions: map[string]spec.Revision{}, Replicas: map[string]spec.Replica{},
		Containers: map[string]spec.Container{}, Rollouts: map[string]spec.Rollout{},
	}}
}

func (s *sharedStore) State() *spec.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *sharedStore) Ready() bool                                  { return true }
func (s *sharedStore) Head() Version                                { return Version{"here", 1} }
func (s *sharedStore) WaitFor(ctx context.Context, _ Version) error { return ctx.Err() }

func (s *sharedStore) Update(ctx context.Context, fn func(Tx) error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	tx := &sharedTx{state: s.state}
	if err := fn(tx); err != nil {
		return err
	}
	s.apply(tx.puts...)
	return nil
}

func (s *sharedStore) put(rows ...spec.Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(rows...)
}

// apply is called with the lock held.
func (s *sharedStore) apply(rows ...spec.Row) {
	next := *s.state
	next.Machines, next.Upgrades, next.Turns = maps.Clone(next.Machines), maps.Clone(next.Upgrades), maps.Clone(next.Turns)
	next.Events, next.Services, next.Replicas = maps.Clone(next.Events), maps.Clone(next.Services), maps.Clone(next.Replicas)
	next.Containers, next.Rollouts = maps.Clone(next.Containers), maps.Clone(next.Rollouts)
	for _, row := range rows {
		switch r := row.(type) {
		case spec.Machine:
			next.Machines[r.ID] = r
		case spec.Upgrade:
			next.Upgrades[r.ID] = r
		case spec.Turn:
			next.Turns[r.Machine] = r
		case spec.Event:
			next.Events[r.ID] = r
		case spec.Service:
			next.Services[r.ID] = r
		case spec.Replica:
			next.Replicas[r.ID] = r
		case spec.Container:
			next.Containers[r.Replica] = r
		case spec.Rollout:
			next.Rollouts[r.ID] = r
		default:
			s.t.Errorf("%T", row)
		}
	}
	s.state = &next
	s.check()
	s.wake()
}

// check is what is true of every state: at most one machine is touched.
func (s *sharedStore) check() {
	touched := 0
	for _, t := range s.state.Turns {
		if !t.Stage.Ended() && t.Stage != spec.TurnStaging {
			touched++
		}
	}
	if touched > 1 {
		s.t.Errorf("%d machines are touched at once: %+v", touched, s.state.Turns)
	}
}

func (s *sharedStore) wake() {
	for ch := range s.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (s *sharedStore) Subscribe() (<-chan struct{}, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := make(chan struct{}, 1)
	s.subs[ch] = true
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subs, ch)
	}
}

func (s *sharedStore) alive(id string, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.livesMu.Lock()
	s.lives = maps.Clone(s.lives)
	if delete(s.lives, id); is {
		s.lives[id] = true
	}
	s.livesMu.Unlock()
	s.wake()
}

// engine is what the engine says of a replica: what the row says, unless a
// test has let them differ.
func (s *sharedStore) engine(replica string) spec.Health {
	s.livesMu.Lock()
	truth, differs := s.truth[replica]
	s.livesMu.Unlock()
	if differs {
		return truth
	}
	return s.State().Containers[replica].Health
}

// differ has the engine say something else than the row.
func (s *sharedStore) differ(replica string, h spec.Health) {
	s.livesMu.Lock()
	defer s.livesMu.Unlock()
	s.truth[replica] = h
}

func (s *sharedStore) Alive() spec.Alive {
	s.livesMu.Lock()
	defer s.livesMu.Unlock()
	return s.lives
}

type sharedTx struct {
	state *spec.State
	puts  []spec.Row
}

func (t *sharedTx) State() *spec.State    { return t.state }
func (t *sharedTx) Put(rows ...spec.Row)  { t.puts = append(t.puts, rows...) }
func (t *sharedTx) Delete(string, string) {}

var errNo = errors.New("no")
