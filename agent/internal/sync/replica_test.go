package statesync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"uncloud/agent/internal/crdt"
)

// replica is a store in memory, for simulations. What is written is durable;
// what is merged is lost in a crash unless something was written after it.
type replica struct {
	site    crdt.SiteID
	rows    map[rowID]crdt.Row
	known   crdt.Known
	durable struct {
		rows  map[rowID]crdt.Row
		known crdt.Known
	}
	merge func(a, b crdt.Record) crdt.Record // the law; tests break it
	omit  func(crdt.Row) bool                // rows that an export forgets; tests set it
	hook  func(crdt.Batch)
}

func newReplica(n int) *replica {
	return &replica{
		site: crdt.SiteID{14: byte(n >> 8), 15: byte(n)}, rows: map[rowID]crdt.Row{}, known: crdt.Known{},
		merge: crdt.Merge, omit: func(crdt.Row) bool { return false }, hook: func(crdt.Batch) {},
	}
}

// write changes rows in one commit: each key gets the value, or is deleted.
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
	r.known = known
	r.durable.rows, r.durable.known = maps.Clone(r.rows), known
	r.hook(batch)
	return v
}

func (r *replica) crash() {
	if r.durable.rows == nil {
		r.durable.rows, r.durable.known = map[rowID]crdt.Row{}, crdt.Known{}
	}
	r.rows, r.known = maps.Clone(r.durable.rows), r.durable.known
}

func (r *replica) Site() crdt.SiteID { return r.site }
func (r *replica) Known() crdt.Known { return r.known }

func (r *replica) Merge(_ context.Context, b crdt.Batch) (crdt.Known, error) {
	if b.Marks.Head(r.site) > r.known.Head(r.site) {
		return nil, errors.New("site reused")
	}
	r.known = r.known.Union(b.Marks)
	for _, got := range b.Rows {
		id := rowID{got.Table, got.Key}
		row, ok := r.rows[id]
		if !ok {
			row = crdt.Row{Table: got.Table, Key: got.Key, Record: got.Record}
		} else {
			row.Record = r.merge(row.Record, got.Record)
		}
		row.Writers = crdt.MergeWriters(row.Writers, got.Writers, r.known)
		r.rows[id] = row
	}
	return r.known, nil
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
	return crdt.Batch{Rows: slices.Collect(maps.Values(r.rows)), Marks: r.known}, nil
}

func (r *replica) Reseat(context.Context, crdt.Version) (bool, error) {
	return false, errors.New("a replica of a test was never copied")
}

// differs says in what two replicas do not agree, or nothing.
func (r *replica) differs(s *replica) string {
	if !r.known.Equal(s.known) {
		return fmt.Sprintf("known: %v and %v", r.known, s.known)
	}
	for id := range maps.All(r.rows) {
		if !r.rows[id].Record.Equal(s.rows[id].Record) {
			return fmt.Sprintf("row %s: %+v and %+v", id.key, r.rows[id].Record, s.rows[id].Record)
		}
	}
	if len(r.rows) != len(s.rows) {
		return fmt.Sprintf("%d and %d rows", len(r.rows), len(s.rows))
	}
	return ""
}
