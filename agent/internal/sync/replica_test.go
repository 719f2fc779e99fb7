package statesync

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"uncloud/agent/internal/crdt"
)

// simStore is a store within a simulation.
type simStore interface {
	Store
	// write gives each key the value, or deletes it if that is empty, in one
	// durable commit.
	write(at crdt.Stamp, value string, keys ...string) crdt.Version
	crash() // loses what is not durable
	all() map[rowID]crdt.Row
	onCommit(func(crdt.Batch))
}

// replica is a store in memory. What is written is durable, with all before
// it; what is merged after it is lost in a crash.
type replica struct {
	site  crdt.SiteID
	rows  map[rowID]crdt.Row
	known crdt.Known
	undo  map[rowID]crdt.Row                 // rows changed since the last durable commit, as they were
	kept  crdt.Known                         // known then
	merge func(a, b crdt.Record) crdt.Record // the law; tests break it
	omit  func(crdt.Row) bool                // rows that an export forgets; tests set it
	lose  func(crdt.Batch) bool              // batches of which only the marks are taken
	hook  func(crdt.Batch)
}

func newReplica(n int) *replica {
	return &replica{
		site: crdt.SiteID{14: byte(n >> 8), 15: byte(n)}, rows: map[rowID]crdt.Row{}, known: crdt.Known{},
		undo: map[rowID]crdt.Row{}, kept: crdt.Known{},
		merge: crdt.Merge, omit: func(crdt.Row) bool { return false }, lose: func(crdt.Batch) bool { return false },
		hook: func(crdt.Batch) {},
	}
}

func (r *replica) onCommit(hook func(crdt.Batch)) { r.hook = hook }
func (r *replica) all() map[rowID]crdt.Row        { return r.rows }

// set changes a row so that a crash can take it back.
func (r *replica) set(id rowID, row crdt.Row) {
	if _, noted := r.undo[id]; !noted {
		r.undo[id] = r.rows[id]
	}
	r.rows[id] = row
}

func (r *replica) write(at crdt.Stamp, value string, keys ...string) crdt.Version {
	v := crdt.Version{Site: r.site, Seq: r.known.Head(r.site) + 1}
	known := r.known.Union(crdt.Knows(v))
	batch := crdt.Batch{Marks: crdt.Knows(v)}
	for _, key := range keys {
		id := rowID{"t", key}
		row := r.rows[id]
		row.Table, row.Key = id.table, id.key
		if value == "" {
			row.Record, _ = row.Record.Delete(at, r.site)
		} else {
			row.Record, _ = row.Record.Put([]crdt.Assignment{{Column: "v", Value: crdt.Text(value)}, {Column: "of " + value[:1], Value: crdt.Integer(int64(at))}}, at, r.site)
		}
		if row.Record.CL == 0 {
			continue
		}
		row.Writers = crdt.MergeWriters(row.Writers, []crdt.Version{v}, known)
		r.rows[id] = row
		batch.Rows = append(batch.Rows, row)
	}
	r.known, r.kept = known, known
	clear(r.undo)
	r.hook(batch)
	return v
}

func (r *replica) crash() {
	for id, row := range r.undo {
		if row.Table == "" {
			delete(r.rows, id)
		} else {
			r.rows[id] = row
		}
	}
	clear(r.undo)
	r.known = r.kept
}

func (r *replica) Site() crdt.SiteID { return r.site }
func (r *replica) Known() crdt.Known { return r.known }

func (r *replica) Merge(_ context.Context, b crdt.Batch) (crdt.Known, error) {
	if b.Marks.Head(r.site) > r.known.Head(r.site) {
		return nil, errors.New("site reused")
	}
	r.known = r.known.Union(b.Marks)
	if !r.lose(b) {
		r.join(b.Rows)
	}
	return r.known, nil
}

// join merges rows and says how many changed.
func (r *replica) join(rows []crdt.Row) int {
	changed := 0
	for _, got := range rows {
		id := rowID{got.Table, got.Key}
		old, ok := r.rows[id]
		row := crdt.Row{Table: got.Table, Key: got.Key, Record: got.Record}
		if ok {
			row.Record = r.merge(old.Record, got.Record)
		}
		row.Writers = crdt.MergeWriters(old.Writers, got.Writers, r.known)
		if !row.Record.Equal(old.Record) || !slices.Equal(row.Writers, old.Writers) {
			changed++
			r.set(id, row)
		}
	}
	return changed
}

func (r *replica) Export(_ context.Context, site crdt.SiteID, first, last uint64, limit int) (crdt.Batch, error) {
	if !r.known[site].Covers(crdt.Single(first, last)) {
		return crdt.Batch{}, errors.New("not known")
	}
	bySeq := map[uint64][]crdt.Row{}
	for _, row := range r.rows {
		for _, v := range row.Writers {
			if v.Site == site && v.Seq >= first && v.Seq <= last && !r.omit(row) {
				bySeq[v.Seq] = append(bySeq[v.Seq], row)
			}
		}
	}
	var out crdt.Batch
	size := 0
	for _, seq := range slices.Backward(slices.Sorted(maps.Keys(bySeq))) {
		if size >= limit {
			out.Marks = crdt.Known{site: crdt.Single(seq+1, last)}
			return out, nil
		}
		for _, row := range bySeq[seq] {
			out.Rows = append(out.Rows, row)
			size += row.Size()
		}
	}
	out.Marks = crdt.Known{site: crdt.Single(first, last)}
	return out, nil
}

func (r *replica) Snapshot(context.Context) (crdt.Batch, error) {
	return crdt.Batch{Rows: sorted(maps.Values(r.rows)), Marks: r.known}, nil
}

func sorted(rows func(func(crdt.Row) bool)) []crdt.Row {
	return slices.SortedFunc(rows, func(a, b crdt.Row) int {
		return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.Key, b.Key))
	})
}

func (r *replica) Buckets(context.Context) (crdt.Known, map[string]*[256]uint64, error) {
	out := map[string]*[256]uint64{}
	for _, row := range r.rows {
		if out[row.Table] == nil {
			out[row.Table] = new([256]uint64)
		}
		sum := sha256.Sum256(crdt.AppendBatch(nil, crdt.Batch{Rows: []crdt.Row{row}}))
		out[row.Table][bucketOf(row.Key)] += binary.BigEndian.Uint64(sum[:])
	}
	return r.known, out, nil
}

func bucketOf(key string) byte {
	sum := sha256.Sum256([]byte(key))
	return sum[0]
}

func (r *replica) BucketRows(_ context.Context, buckets map[string][]byte) ([]crdt.Row, error) {
	return slices.DeleteFunc(sorted(maps.Values(r.rows)), func(row crdt.Row) bool {
		return !slices.Contains(buckets[row.Table], bucketOf(row.Key))
	}), nil
}

func (r *replica) Repair(_ context.Context, rows []crdt.Row) (int, error) { return r.join(rows), nil }

func (r *replica) Reseat(context.Context, crdt.Version) (bool, error) {
	return false, errors.New("a replica of a test was never copied")
}

// differs says in what two sets of rows are not the same, or nothing.
func differs(a, b map[rowID]crdt.Row) string {
	for id, row := range a {
		if !row.Record.Equal(b[id].Record) {
			return fmt.Sprintf("row %s: %+v and %+v", id.key, row.Record, b[id].Record)
		}
		if !slices.Equal(row.Writers, b[id].Writers) {
			return fmt.Sprintf("row %s: writers %v and %v", id.key, row.Writers, b[id].Writers)
		}
	}
	for id := range b {
		if _, ok := a[id]; !ok {
			return fmt.Sprintf("row %s: missing", id.key)
		}
	}
	return ""
}
