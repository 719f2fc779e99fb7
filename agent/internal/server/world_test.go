package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
	"uncloud/internal/wire"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// world is a cluster in this process: each machine has a local socket and a
// side to the mesh, on loopback.
type world struct {
	mu       sync.Mutex
	state    *spec.State
	alive    spec.Alive
	machines map[string]*machine
}

// machine is a Host whose member shares the world's state.
type machine struct {
	Host
	*world
	id            string
	local         *http.Client
	mesh          net.Addr
	dials, resets int
	member        func(*Member) // what this machine's member can do besides
	failReset     error
	untold        error
	restored      []string
}

func newWorld(t *testing.T, ids ...string) *world {
	t.Helper()
	w := &world{state: &spec.State{Machines: map[string]spec.Machine{}}, alive: spec.Alive{}, machines: map[string]*machine{}}
	for _, id := range ids {
		w.state.Machines[id] = spec.Machine{ID: id, Name: "name-of-" + id}
		w.alive[id] = true
		m := &machine{world: w, id: id}
		s := New(m, quiet())
		local := m.serve(t, s, s.Local())
		m.mesh = m.serve(t, s, s.Mesh())
		m.local = wire.NewClient(func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", local.String())
		})
		t.Cleanup(m.local.CloseIdleConnections)
		w.machines[id] = m
	}
	return w
}

// serve runs until the test ends, and its end is awaited.
func (m *machine) serve(t *testing.T, s *Server, handler http.Handler) net.Addr {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, handler) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	return l.Addr()
}

func (m *machine) Info() *uncloudv1.InfoResponse {
	return &uncloudv1.InfoResponse{MachineId: m.id, Phase: "ready", Health: []*uncloudv1.HealthNote{{Code: "mesh", Text: m.id + " says so"}}}
}

func (m *machine) RestoreStore(_ context.Context, o RestoreOptions, backup io.Reader) (*uncloudv1.RestoreStoreResponse, error) {
	text, err := io.ReadAll(backup)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.restored = append(m.restored, fmt.Sprintf("%s of %s adopt=%t", text, o.Backup.GetMachine(), o.Adopt))
	return &uncloudv1.RestoreStoreResponse{Site: "new"}, err
}

func (m *machine) Reset(context.Context) (untold, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resets++
	return m.untold, m.failReset
}

func (m *machine) Arriving() (*Member, error) { return m.Member() }

func (m *machine) Member() (*Member, error) {
	member := &Member{
		Self: m.id, State: m.snapshot, Alive: func() spec.Alive { return m.alive }, RTT: func(string) (time.Duration, bool) { return 0, false },
		Notes:             func() []Note { return []Note{{Code: "mesh", Text: "of " + m.id}} },
		Update:            m.update,
		DialAPI:           m.dial,
		ManagementAddress: func(string) netip.Addr { return netip.MustParseAddr("fd00::1") },
		WaitFor:           func(context.Context, Version) error { return nil },
	}
	if m.member != nil {
		m.member(member)
	}
	return member, nil
}

func (w *world) snapshot() *spec.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

func (m *machine) dial(ctx context.Context, id string) (net.Conn, error) {
	m.mu.Lock()
	m.dials++
	to, ok := m.machines[id]
	m.mu.Unlock()
	if !ok {
		return nil, faults.New(faults.Unreachable, "no way to %s", id)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", to.mesh.String())
}

// update is a transaction on the few tables that the API itself changes.
func (w *world) update(_ context.Context, fn func(Tx) error) (Version, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tx := &fakeTx{state: w.state}
	if err := fn(tx); err != nil {
		return Version{}, err
	}
	next := *w.state
	next.Machines, next.Replicas, next.Volumes = map[string]spec.Machine{}, map[string]spec.Replica{}, map[string]spec.Volume{}
	for id, m := range w.state.Machines {
		if !tx.gone[m.Table()+id] {
			next.Machines[id] = m
		}
	}
	for id, r := range w.state.Replicas {
		if !tx.gone[r.Table()+id] {
			next.Replicas[id] = r
		}
	}
	for id, v := range w.state.Volumes {
		if !tx.gone[v.Table()+v.Key()] {
			next.Volumes[id] = v
		}
	}
	for _, row := range tx.put {
		switch row := row.(type) {
		case spec.Machine:
			next.Machines[row.ID] = row
		case spec.Ticket:
			next.Tickets = maps.Clone(next.Tickets)
			next.Tickets[row.ID] = row
		}
	}
	w.state = &next
	return Version{Site: "site", Seq: 1}, nil
}

type fakeTx struct {
	state *spec.State
	put   []spec.Row
	gone  map[string]bool
}

func (t *fakeTx) State() *spec.State   { return t.state }
func (t *fakeTx) Put(rows ...spec.Row) { t.put = append(t.put, rows...) }
func (t *fakeTx) Delete(table, key string) {
	if t.gone == nil {
		t.gone = map[string]bool{}
	}
	t.gone[table+key] = true
}

// refused checks a fault as it came over the wire.
func refused(t *testing.T, err error, code faults.Code, hint bool) {
	t.Helper()
	f := faults.Of(wire.Decode(err))
	if f == nil || f.Code != code || hint && f.Hint == "" {
		t.Errorf("got %+v, want a fault %s", f, code)
	}
}
