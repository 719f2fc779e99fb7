package statesync

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/store"
)

// Two schemas of one cluster: half of the nodes begin with the old one, and are
// upgraded in their own time.
const (
	oldSchema = "CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT)"
	newSchema = "CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT, extra INTEGER DEFAULT 7); CREATE TABLE t2 (id TEXT PRIMARY KEY, v TEXT)"
)

// realStore is a store of the product within a simulation. A reader follows
// its table and folds what it reads.
type realStore struct {
	*store.Store
	t       *testing.T
	options store.Options
	hook    func(crdt.Batch)
	stamp   time.Time
	isNew   bool
	follow  *store.Follower
	folded  map[string]crdt.Row
	last    uint64
	events  int
}

// openReal opens the store of node n: in memory, or in a file for one that is
// to be upgraded.
func openReal(t *testing.T, n int) *realStore {
	t.Helper()
	r := &realStore{t: t, isNew: n%2 == 0, hook: func(crdt.Batch) {}, stamp: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	var random bytes.Buffer // the same site ids, and so the same history, for each run of a seed
	for i := range 100 {
		random.Write(binary.BigEndian.AppendUint64(nil, uint64(1000*n+i)))
	}
	r.options = store.Options{Schema: newSchema, Clock: func() time.Time { return r.stamp }, Random: &random}
	if !r.isNew {
		r.options.Schema, r.options.Dir = oldSchema, memoryDir(t)
	}
	r.open()
	t.Cleanup(r.close)
	return r
}

// memoryDir is a folder that costs no disk, where the machine has such.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "simulated") //nolint:usetesting // that would be on the disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (r *realStore) open() {
	var err error
	if r.Store, err = store.Open(context.Background(), r.options); err != nil {
		r.t.Fatal(err)
	}
	r.OnCommit(func(c store.Commit) {
		if c.Local {
			r.hook(c.Batch)
		}
	})
	if r.follow, err = r.Follow("t", 0); err != nil {
		r.t.Fatal(err)
	}
	r.fold(20 * time.Millisecond)
}

func (r *realStore) close() {
	if err := r.Close(); err != nil {
		r.t.Error(err)
	}
}

// upgrade opens the file again with the schema of a newer agent.
func (r *realStore) upgrade() {
	if !r.isNew {
		r.close()
		r.isNew, r.options.Schema = true, newSchema
		r.open()
	}
}

// fold reads the events that are there, and waits so long for more.
func (r *realStore) fold(wait time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for {
		events, err := r.follow.Next(ctx)
		if err != nil {
			return
		}
		for _, e := range events {
			if e.Kind != store.Restart && e.ID != r.last+1 {
				r.t.Fatalf("event %d after %d", e.ID, r.last)
			}
			r.last = e.ID
			r.events++
			switch e.Kind {
			case store.Restart:
				r.folded = map[string]crdt.Row{}
				for _, row := range e.Rows {
					r.folded[row.Key] = row
				}
			case store.Deleted:
				delete(r.folded, e.Row.Key)
			default:
				r.folded[e.Row.Key] = e.Row
			}
		}
	}
}

// Merge folds on, so that most of what the reader sees are events.
func (r *realStore) Merge(ctx context.Context, b crdt.Batch) (crdt.Known, error) {
	known, err := r.Store.Merge(ctx, b)
	r.fold(0)
	return known, err
}

func (r *realStore) write(at crdt.Stamp, value string, keys ...string) crdt.Version {
	r.stamp = at.Time()
	v, err := r.Update(context.Background(), func(tx *store.Tx) error {
		for _, key := range keys {
			id := store.Values{"id": crdt.Text(key)}
			switch {
			case value == "":
				tx.DeleteKey("t", id)
			case r.isNew:
				tx.PutValues("t", id, store.Values{"v": crdt.Text(value), "extra": crdt.Integer(int64(at))})
				tx.PutValues("t2", id, store.Values{"v": crdt.Text(value)})
			default:
				tx.PutValues("t", id, store.Values{"v": crdt.Text(value)})
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func (r *realStore) all() map[rowID]crdt.Row {
	out := map[rowID]crdt.Row{}
	for _, table := range []string{"t", "t2"} {
		rows, err := r.Records(context.Background(), table)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, row := range rows {
			out[rowID{row.Table, row.Key}] = row
		}
	}
	return out
}

func (r *realStore) setTime(now time.Time) { r.stamp = now }

// crash loses nothing of a store in memory; that of one on disk is tested
// with processes that are killed.
func (r *realStore) crash() {}

func (r *realStore) onCommit(hook func(crdt.Batch)) { r.hook = hook }

// wrong is what the folded subscription or the integrity check complain of.
func (r *realStore) wrong() string {
	r.fold(50 * time.Millisecond)
	alive := map[string]crdt.Row{}
	for id, row := range r.all() {
		if id.table == "t" && row.Record.Alive() {
			alive[id.key] = row
		}
	}
	if !maps.EqualFunc(r.folded, alive, func(a, b crdt.Row) bool { return a.Record.Equal(b.Record) }) {
		return fmt.Sprintf("the folded events give %d rows that are not the %d of the table", len(r.folded), len(alive))
	}
	if wrong := r.misplaced(); r.isNew && wrong != "" {
		return wrong
	}
	report, err := r.Check(context.Background())
	if err != nil {
		return err.Error()
	}
	return strings.Join(report.Problems, "; ")
}

// misplaced is a row or a column that is not where its schema has it: what came
// before an upgrade was kept aside until then.
func (r *realStore) misplaced() string {
	for _, table := range []string{"t", "t2"} {
		rows, err := r.Rows(context.Background(), table)
		if err != nil {
			return err.Error()
		}
		shown := map[string]store.Values{}
		for _, row := range rows {
			shown[row["id"].Str()] = row
		}
		for id, row := range r.all() {
			if id.table != table || !row.Record.Alive() {
				continue
			}
			is, here := shown[id.key]
			delete(shown, id.key)
			for _, c := range row.Record.Cells {
				if !here || is[c.Column] != c.Value {
					return fmt.Sprintf("row %s of %s is shown as %v", id.key, table, is)
				}
			}
		}
		if len(shown) > 0 {
			return fmt.Sprintf("%d rows too many in %s", len(shown), table)
		}
	}
	return ""
}

// The histories of TestSimulate with the product's own stores, half of them
// with an older schema until they are upgraded: rows of tables and columns that
// a node does not know are kept, passed on, and shown after the upgrade; folded
// subscriptions are the table.
func TestSimulateStores(t *testing.T) {
	events, old, upgraded := 0, 0, 0
	for seed := range uint64(max(4, *seedsFlag/20)) {
		seed += *seedFlag
		size := 2 + int(seed%4)
		s := newSimOf(seed, 0, func(n int) simStore { return openReal(t, n) })
		s.double, s.most, s.prepare = true, size, func(*node) {}
		for range size {
			s.add()
		}
		for _, st := range historyOf(seed, size) {
			s.take(st)
		}
		s.calm()
		if wrong := s.settle(); wrong != "" {
			t.Fatalf("seed %d: %s", seed, wrong)
		}
		for _, n := range s.nodes {
			if wrong := n.rep.(*realStore).wrong(); wrong != "" {
				t.Fatalf("seed %d: node %d: %s", seed, n.n, wrong)
			}
			r := n.rep.(*realStore)
			events += r.events
			switch {
			case !r.isNew:
				old++
			case r.options.Dir != "":
				upgraded++
			}
		}
	}
	if events < 1000 {
		t.Errorf("only %d events were folded", events)
	}
	if old == 0 || upgraded == 0 {
		t.Errorf("%d nodes were upgraded, %d were not", upgraded, old)
	}
}
