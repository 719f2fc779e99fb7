package store

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"uncloud/agent/internal/crdt"
)

// Retention is how long a tombstone is kept at least, by the time of its
// delete. A wrong clock can shorten it; that every member has the tombstone is
// asked for besides.
const Retention = 7 * 24 * time.Hour

// floorKey is where the floor is kept in _meta.
const floorKey = "floor"

// Floor is what is left of the tombstones that were collected.
type Floor struct {
	// Known is the versions among which they were. A machine that does not
	// cover it may hold rows whose removal is forgotten: it must not be merged
	// from, nor be given ranges of versions, until it has joined with AdoptSnapshot.
	Known crdt.Known
	// CL is the highest of their causal lengths. A row that is born anew counts
	// on from it, so that it beats the tombstone of its past life on a machine
	// that has not collected yet. It is even.
	CL uint64
}

func (f Floor) union(g Floor) Floor {
	return Floor{Known: f.Known.Union(g.Known), CL: max(f.CL, g.CL)}
}

func (f Floor) encode() []byte {
	return crdt.AppendKnown(binary.AppendUvarint(nil, f.CL), f.Known)
}

// Floor is zero as long as nothing was collected. Floors of two machines differ
// until both have collected.
func (s *Store) Floor() Floor { return *s.floor.Load() }

// Collect forgets the tombstones that everyone has and whose Retention has
// passed. everyone is the versions that every member of the cluster, down or
// up, has said to have; versions that are not known here do not count. It
// returns how many it forgot. It writes nothing if there are none.
func (s *Store) Collect(ctx context.Context, everyone crdt.Known) (int, error) {
	release, err := s.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	everyone = everyone.Intersect(s.file.known)
	old, err := s.collectable(everyone)
	if err != nil || len(old) == 0 {
		return 0, err
	}
	floor := s.Floor()
	for _, row := range old {
		for _, v := range row.Writers {
			floor = floor.union(Floor{crdt.Known{v.Site: everyone[v.Site].Intersect(crdt.Single(1, v.Seq))}, row.Record.CL})
		}
	}
	err = s.file.write(true, func(c *conn) error {
		for _, row := range old {
			if err := s.file.forget(c, row, onShelf); err != nil {
				return err
			}
		}
		return c.setMeta(floorKey, floor.encode())
	})
	if err != nil {
		return 0, fmt.Errorf("collect %d tombstones: %w", len(old), err)
	}
	s.deleted.Add(-int64(len(old)))
	s.floor.Store(&floor)
	return len(old), nil
}

// collectable is the tombstones that may go.
func (s *Store) collectable(everyone crdt.Known) ([]crdt.Row, error) {
	horizon := s.clock().Add(-Retention)
	var out []crdt.Row
	err := s.file.w.query("SELECT tbl, key, record FROM _shelf", nil, func(values []driver.Value) error {
		row, err := s.file.shelved(values)
		if err != nil || row.Record.Alive() || !row.Record.Stamp.Time().Before(horizon) {
			return err
		}
		if !slices.ContainsFunc(row.Writers, func(v Version) bool { return !everyone.Covers(v) }) {
			out = append(out, row)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the tombstones: %w", err)
	}
	return out, nil
}

// forget removes a row with its record.
func (f *file) forget(c *conn, row crdt.Row, at place) error {
	n := int64(f.dict.Name(row.Table))
	for _, v := range row.Writers {
		if err := c.exec(versionDelete, int64(f.dict.Site(v.Site)), int64(v.Seq), n, row.Key); err != nil {
			return err
		}
	}
	if err := f.release(c, row); err != nil {
		return err
	}
	if at == inTable {
		return c.exec(f.tables[row.Table].sql.remove, row.Key)
	}
	return c.exec("DELETE FROM _shelf WHERE tbl = ? AND key = ?", n, row.Key)
}

// readFloor reads what Collect has kept.
func (f *file) readFloor() (Floor, error) {
	floor := Floor{Known: crdt.Known{}}
	err := f.w.query("SELECT value FROM _meta WHERE key = ?", []any{floorKey}, func(row []driver.Value) error {
		b, _ := row[0].([]byte)
		d := crdt.NewDecoder(b)
		floor = Floor{CL: d.Uvarint(), Known: d.Known()}
		return d.Done()
	})
	return floor, err
}

// AdoptSnapshot joins what another machine has, as its Snapshot and its Floor
// after that, though tombstones were collected there that never came here. It
// merges the snapshot, and removes rows that the snapshot lacks and whose every
// version the other machine knows: those were removed, and their tombstones
// collected. What was written here since, and nowhere else, stays. So a row
// that was changed here under a version that nobody else has survives its
// forgotten removal: nothing that was acknowledged is lost.
func (s *Store) AdoptSnapshot(ctx context.Context, b crdt.Batch, floor Floor) (crdt.Known, error) {
	release, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := s.checkMarks(b.Marks); err != nil {
		return nil, err
	}
	have := s.file.known
	var gone []change
	done, err := s.write(true, s.file.saveEach, func(c *conn) (outcome, error) {
		if gone, err = s.forgetCollected(c, b); err != nil {
			return outcome{}, err
		}
		if err := c.setMeta(floorKey, s.Floor().union(floor).encode()); err != nil {
			return outcome{}, err
		}
		return s.join(b.Rows, have.Union(b.Marks))
	})
	if err != nil {
		return nil, fmt.Errorf("adopt a snapshot of %d rows: %w", len(b.Rows), err)
	}
	joined := s.Floor().union(floor)
	s.floor.Store(&joined)
	for _, ch := range gone {
		s.count(ch.old.Record, crdt.Record{})
	}
	all := slices.Concat(gone, done.changes)
	s.recount()
	s.publish(Commit{Batch: crdt.Batch{Rows: rowsOf(all), Marks: done.known.Minus(have)}, Known: done.known}, all)
	return done.known, nil
}

// forgetCollected removes the rows that a snapshot lacks though it covers all
// their versions.
func (s *Store) forgetCollected(c *conn, b crdt.Batch) ([]change, error) {
	named := make(map[rowID]bool, len(b.Rows))
	for _, row := range b.Rows {
		named[rowID{row.Table, row.Key}] = true
	}
	var gone []change
	err := s.file.scanPlaces(c, func(row crdt.Row, at place) error {
		own := slices.ContainsFunc(row.Writers, func(v Version) bool { return !b.Marks.Covers(v) })
		if !named[rowID{row.Table, row.Key}] && !own {
			gone = append(gone, change{old: row, row: crdt.Row{Table: row.Table, Key: row.Key}, at: at})
		}
		return nil
	})
	for _, ch := range gone {
		if err == nil {
			err = s.file.forget(c, ch.old, ch.at)
		}
	}
	return gone, err
}
