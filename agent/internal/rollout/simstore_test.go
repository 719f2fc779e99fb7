package rollout

import (
	"bytes"
	"context"
	"maps"
	"reflect"
	"sync"
	"time"

	"uncloud/internal/spec"
)

// simStore is the replicated store of the machines on one side of a partition,
// in memory: typed rows, merged column by column as ARCHITECTURE.md says.
type simStore struct {
	mu    sync.Mutex
	rows  map[string]simRow // by table/key
	state *spec.State
	seq   uint64

	subsMu sync.Mutex // innermost: who subscribes holds other locks
	subs   map[chan struct{}]bool
}

// simRow is one row with its history. An odd life is alive.
type simRow struct {
	row    spec.Row
	life   int
	stamps []simStamp // by field
}

type simStamp struct {
	edits int
	at    int64 // nanoseconds
}

func newSimStore() *simStore {
	s := &simStore{rows: map[string]simRow{}, subs: map[chan struct{}]bool{}}
	s.rebuild()
	return s
}

func (s *simStore) State() *spec.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

type simTx struct {
	s     *simStore
	state *spec.State
	puts  []spec.Row
	kills []string
}

func (t *simTx) State() *spec.State { return t.state }

func (t *simTx) Put(rows ...spec.Row) error {
	t.puts = append(t.puts, rows...)
	for _, r := range rows {
		t.kills = remove(t.kills, r.Table()+"/"+r.Key())
	}
	return nil
}

func (t *simTx) Delete(table, key string) error {
	t.kills = append(t.kills, table+"/"+key)
	return nil
}

func remove(list []string, what string) (out []string) {
	for _, s := range list {
		if s != what {
			out = append(out, s)
		}
	}
	return out
}

func (s *simStore) Update(_ context.Context, fn func(Tx) error) (Version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx := &simTx{s: s, state: s.state}
	if err := fn(tx); err != nil {
		return Version{}, err
	}
	s.seq++
	for _, r := range tx.puts {
		s.put(r)
	}
	for _, k := range tx.kills {
		if old, ok := s.rows[k]; ok && old.life%2 == 1 {
			s.rows[k] = simRow{row: old.row, life: old.life + 1}
		}
	}
	s.rebuild()
	return Version{Site: "sim", Seq: s.seq}, nil
}

func (s *simStore) put(r spec.Row) {
	k := r.Table() + "/" + r.Key()
	old, v := s.rows[k], reflect.ValueOf(r)
	now := simRow{row: r, life: old.life, stamps: make([]simStamp, v.NumField())}
	if old.life%2 == 0 {
		now.life, old.stamps = old.life+1, make([]simStamp, v.NumField())
	}
	for i := range now.stamps {
		now.stamps[i] = old.stamps[i]
		if old.life%2 == 0 || !reflect.DeepEqual(reflect.ValueOf(old.row).Field(i).Interface(), v.Field(i).Interface()) {
			now.stamps[i] = simStamp{old.stamps[i].edits + 1, time.Now().UnixNano()}
		}
	}
	s.rows[k] = now
}

// fork is the other side's copy when a partition begins.
func (s *simStore) fork() *simStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := newSimStore()
	o.rows, o.seq = maps.Clone(s.rows), s.seq
	o.rebuild()
	return o
}

// merge takes over what the other side has.
func (s *simStore) merge(o *simStore) {
	o.mu.Lock()
	rows := maps.Clone(o.rows)
	seq := o.seq
	o.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, theirs := range rows {
		s.rows[k] = mergeRows(s.rows[k], theirs)
	}
	s.seq = max(s.seq, seq)
	s.rebuild()
}

func mergeRows(a, b simRow) simRow {
	if a.life != b.life || a.life%2 == 0 {
		if a.life < b.life {
			return b
		}
		return a
	}
	va, vb := reflect.ValueOf(a.row), reflect.ValueOf(b.row)
	out := reflect.New(va.Type()).Elem()
	stamps := make([]simStamp, len(a.stamps))
	for i := range stamps {
		from, stamp := va, a.stamps[i]
		if wins(b.stamps[i], a.stamps[i], vb.Field(i).Interface(), va.Field(i).Interface()) {
			from, stamp = vb, b.stamps[i]
		}
		out.Field(i).Set(from.Field(i))
		stamps[i] = stamp
	}
	return simRow{row: out.Interface().(spec.Row), life: a.life, stamps: stamps}
}

func wins(a, b simStamp, va, vb any) bool {
	if a.edits != b.edits {
		return a.edits > b.edits
	}
	if a.at != b.at {
		return a.at > b.at
	}
	return bytes.Compare(spec.Canonical(va), spec.Canonical(vb)) > 0
}

// rebuild makes the typed state and wakes everybody. The lock is held.
func (s *simStore) rebuild() {
	st := &spec.State{
		Machines: map[string]spec.Machine{}, Projects: map[string]spec.Project{}, Services: map[string]spec.Service{},
		Revisions: map[string]spec.Revision{}, Replicas: map[string]spec.Replica{}, Containers: map[string]spec.Container{},
		Rollouts: map[string]spec.Rollout{}, Volumes: map[string]spec.Volume{}, Events: map[string]spec.Event{},
	}
	for _, r := range s.rows {
		if r.life%2 == 0 {
			continue
		}
		switch r := r.row.(type) {
		case spec.Machine:
			st.Machines[r.ID] = r
		case spec.Project:
			st.Projects[r.ID] = r
		case spec.Service:
			st.Services[r.ID] = r
		case spec.Revision:
			st.Revisions[r.ID] = r
		case spec.Replica:
			st.Replicas[r.ID] = r
		case spec.Container:
			st.Containers[r.Replica] = r
		case spec.Rollout:
			st.Rollouts[r.ID] = r
		case spec.Volume:
			st.Volumes[r.ID] = r
		case spec.Event:
			st.Events[r.ID] = r
		default:
			panic("simStore: unknown row " + r.Table())
		}
	}
	s.state = st
	s.subsMu.Lock()
	defer s.subsMu.Unlock()
	for ch := range s.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (s *simStore) join(ch chan struct{}) {
	s.subsMu.Lock()
	defer s.subsMu.Unlock()
	s.subs[ch] = true
}

func (s *simStore) leave(ch chan struct{}) {
	s.subsMu.Lock()
	defer s.subsMu.Unlock()
	delete(s.subs, ch)
}
