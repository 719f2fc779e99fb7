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
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/store"
)

// simStore is a store within a simulation.
type simStore interface {
	Store
	// write gives each key the value, or deletes it if that is empty, in one
	// durable commit.
	write(at crdt.Stamp, value string, keys ...string) crdt.Version
	setTime(time.Time) // what its clock shows
	crash()            // loses what is not durable
	all() map[rowID]crdt.Row
	onCommit(func(crdt.Batch))
}

// replica is a store in memory. What is written is durable, with all before
// it; what is merged after it is lost in a crash.
type replica struct {
	site   crdt.SiteID
	rows   map[rowID]crdt.Row
	known  crdt.Known
	undo   map[rowID]crdt.Row                 // rows changed since the last durable commit, as they were
	kept   crdt.Known                         // known then
	merge  func(a, b crdt.Record) crdt.Record // the law; tests break it
	omit   func(crdt.Row) bool                // rows that an export forgets; tests set it
	lose   func(crdt.Batch) bool              // batches of which only the marks are taken
	hook   func(crdt.Batch)
	bad    string // key of a row that leaves it malformed; tests set it
	refuse string // key of a row that it calls impossible; tests set it

	floor, keptFloor crdt.Floor
	now              time.Time
	clock            crdt.Clock
	low              bool // rows are born and stay in lives below the floor; tests set it
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
		row, here := r.rows[id]
		row.Table, row.Key = id.table, id.key
		if !here && !r.low {
			row.Record.CL = r.floor.CL
		}
		if !here && value == "" {
			continue
		}
		if value == "" {
			row.Record, _ = row.Record.Delete(at, r.site)
		} else {
			row.Record, _ = row.Record.Put([]crdt.Assignment{{Column: "v", Value: crdt.Text(value)}, {Column: "of " + value[:1], Value: crdt.Integer(int64(at))}}, at, r.site)
		}
		row.Writers = crdt.MergeWriters(row.Writers, []crdt.Version{v}, known)
		r.rows[id] = row
		batch.Rows = append(batch.Rows, row)
	}
	r.commit(known, batch)
	return v
}

// commit makes what is here durable.
func (r *replica) commit(known crdt.Known, batch crdt.Batch) {
	r.known, r.kept, r.keptFloor = known, known, r.floor
	clear(r.undo)
	r.hook(batch)
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
	r.known, r.floor = r.kept, r.keptFloor
}

func (r *replica) setTime(now time.Time) { r.now = now }
func (r *replica) Floor() crdt.Floor     { return r.floor }

// forget removes a row so that a crash can bring it back.
func (r *replica) forget(id rowID) {
	if _, noted := r.undo[id]; !noted {
		r.undo[id] = r.rows[id]
	}
	delete(r.rows, id)
}

// Collect is Store.Collect, told once more.
func (r *replica) Collect(_ context.Context, everyone crdt.Known) (int, error) {
	everyone = everyone.Intersect(r.known)
	n := 0
	for id, row := range r.rows {
		if row.Record.Alive() || !row.Record.Stamp.Time().Before(r.now.Add(-store.Retention)) || !everyone.CoversAll(writersOf(row)) {
			continue
		}
		for _, v := range row.Writers {
			r.floor = r.floor.Union(crdt.Floor{Known: crdt.Known{v.Site: everyone[v.Site].Intersect(crdt.Single(1, v.Seq))}, CL: row.Record.CL})
		}
		r.forget(id)
		n++
	}
	return n, nil
}

func writersOf(row crdt.Row) crdt.Known {
	k := crdt.Known{}
	for _, v := range row.Writers {
		k[v.Site] = crdt.Single(v.Seq, v.Seq)
	}
	return k
}

// AdoptSnapshot is Store.AdoptSnapshot, told once more.
func (r *replica) AdoptSnapshot(_ context.Context, got crdt.Snapshot) (crdt.Known, error) {
	if got.Marks.Head(r.site) > r.known.Head(r.site) {
		return nil, errors.New("site reused")
	}
	if !got.Marks.CoversAll(got.Floor.Known) || r.refuses(got.Batch) {
		return nil, crdt.ErrImpossible
	}
	had, before, theirs := r.known, maps.Clone(r.rows), map[rowID]bool{}
	mutual := !got.Marks.CoversAll(r.floor.Known)
	var come, doubtful []crdt.Row
	for _, row := range got.Rows {
		id := rowID{row.Table, row.Key}
		theirs[id] = true
		if _, here := before[id]; here || !had.CoversAll(writersOf(row)) {
			come = append(come, row)
			if !here && mutual {
				doubtful = append(doubtful, row)
			}
		}
	}
	for id, row := range before {
		switch {
		case theirs[id]:
		case got.Marks.CoversAll(writersOf(row)):
			r.forget(id)
		default:
			doubtful = append(doubtful, row)
		}
	}
	r.known, r.floor = had.Union(got.Marks), r.floor.Union(got.Floor)
	r.join(come)
	r.lift(doubtful)
	return r.known, nil
}

// lift writes rows again in a life above the floor, unless they are in one.
func (r *replica) lift(rows []crdt.Row) {
	v := crdt.Version{Site: r.site, Seq: r.known.Head(r.site) + 1}
	known, batch := r.known.Union(crdt.Knows(v)), crdt.Batch{Marks: crdt.Knows(v)}
	for _, row := range sorted(slices.Values(rows)) {
		row = r.rows[rowID{row.Table, row.Key}]
		if row.Record.CL <= r.floor.CL && !r.low {
			row.Record = r.floor.Lift(row.Record, r.clock.Next(r.now), r.site)
			row.Writers = crdt.MergeWriters(row.Writers, []crdt.Version{v}, known)
			r.rows[rowID{row.Table, row.Key}] = row
			batch.Rows = append(batch.Rows, row)
		}
	}
	if len(batch.Rows) > 0 {
		r.commit(known, batch)
	}
}

func (r *replica) Site() crdt.SiteID { return r.site }
func (r *replica) Known() crdt.Known { return r.known }

func (r *replica) Merge(_ context.Context, b crdt.Batch) (crdt.Known, error) {
	if b.Marks.Head(r.site) > r.known.Head(r.site) {
		return nil, errors.New("site reused")
	}
	if r.refuses(b) {
		return nil, crdt.ErrImpossible
	}
	r.known = r.known.Union(b.Marks)
	if !r.lose(b) {
		r.join(b.Rows)
	}
	return r.known, nil
}

func (r *replica) refuses(b crdt.Batch) bool {
	return slices.ContainsFunc(b.Rows, func(row crdt.Row) bool { return row.Key == r.refuse })
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
		for _, row := range r.spoil(bySeq[seq]) {
			out.Rows = append(out.Rows, row)
			size += row.Size()
		}
	}
	out.Marks = crdt.Known{site: crdt.Single(first, last)}
	return out, nil
}

func (r *replica) Snapshot(context.Context) (crdt.Snapshot, error) {
	return crdt.Snapshot{Batch: crdt.Batch{Rows: r.spoil(sorted(maps.Values(r.rows))), Marks: r.known}, Floor: r.floor}, nil
}

// spoil makes a record impossible.
func (r *replica) spoil(rows []crdt.Row) []crdt.Row {
	for i := range rows {
		if rows[i].Key == r.bad {
			rows[i].Record.CL = 0
		}
	}
	return rows
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

func (r *replica) Repair(_ context.Context, rows []crdt.Row) (int, error) {
	return r.join(slices.DeleteFunc(rows, func(row crdt.Row) bool {
		_, here := r.rows[rowID{row.Table, row.Key}]
		return !here && !row.Record.Alive() && r.known.CoversAll(writersOf(row))
	})), nil
}

func (r *replica) Reseat(context.Context, crdt.Version) (bool, error) {
	return false, errors.New("a replica of a test was never copied")
}

// strays says in what the rows of a store are not those that were acknowledged,
// or nothing. Of removed rows the store may have forgotten the tombstone.
func strays(have simStore, want map[rowID]crdt.Row) string {
	rows, floor := have.all(), have.Floor()
	for id, row := range want {
		is, here := rows[id]
		switch {
		case !here && !row.Record.Alive() && row.Record.CL <= floor.CL:
		case !here:
			return fmt.Sprintf("row %s: missing", id.key)
		case !is.Record.Equal(row.Record):
			return fmt.Sprintf("row %s: %+v and %+v", id.key, is.Record, row.Record)
		case !floor.Known.CoversAll(writersOf(row).Minus(writersOf(is))) || slices.ContainsFunc(is.Writers, func(v crdt.Version) bool { return v.Seq > writersOf(row).Head(v.Site) }):
			return fmt.Sprintf("row %s: writers %v and %v", id.key, is.Writers, row.Writers)
		}
	}
	for id := range rows {
		if _, ok := want[id]; !ok {
			return fmt.Sprintf("row %s: nobody wrote it", id.key)
		}
	}
	return ""
}
