package store

import (
	"context"
	"database/sql/driver"
	"fmt"
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
type Floor = crdt.Floor

// Floor is zero as long as nothing was collected. Floors of two machines differ
// until both have collected.
func (s *Store) Floor() Floor { return *s.floor.Load() }

// Collect forgets the tombstones that everyone has and whose Retention has
// passed. everyone is the versions that every member of the cluster, down or
// up, has said to have; versions that are not known here do not count. It
// returns how many it forgot. It writes nothing if there are none.
//
// It is for the Syncer to call, which has to know of the new Floor.
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
			floor = floor.Union(Floor{Known: crdt.Known{v.Site: everyone[v.Site].Intersect(crdt.Single(1, v.Seq))}, CL: row.Record.CL})
		}
	}
	err = s.raiseFloor(floor, func() error {
		return s.file.write(true, func(c *conn) error {
			for _, row := range old {
				if err := s.file.forget(c, row, onShelf); err != nil {
					return err
				}
			}
			return c.setMeta(floorKey, crdt.AppendFloor(nil, floor))
		})
	})
	if err != nil {
		return 0, fmt.Errorf("collect %d tombstones: %w", len(old), err)
	}
	s.deleted.Add(-int64(len(old)))
	return len(old), nil
}

// raiseFloor shows a floor from before the transaction that makes it so: who
// reads rows and then asks for the Floor must not take one that is lower than
// theirs. A floor that is too high for a moment costs a snapshot at the most.
func (s *Store) raiseFloor(to Floor, write func() error) error {
	before := s.floor.Swap(&to)
	err := write()
	if err != nil {
		s.floor.Store(before)
	}
	return err
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
		// One without writers came ahead of its version: nobody can have said
		// that it has that.
		if len(row.Writers) > 0 && everyone.CoversAll(allOf(row.Writers)) {
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
func (f *file) readFloor(c *conn) (Floor, error) {
	floor := Floor{Known: crdt.Known{}}
	err := c.query("SELECT value FROM _meta WHERE key = ?", []any{floorKey}, func(row []driver.Value) error {
		b, _ := row[0].([]byte)
		d := crdt.NewDecoder(b)
		floor = d.Floor()
		return d.Done()
	})
	return floor, err
}
