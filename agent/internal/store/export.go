package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"uncloud/agent/internal/crdt"
)

// ErrNotKnown says that a range was asked for that is not completely here.
var ErrNotKnown = errors.New("versions are not completely known here")

var errEnough = errors.New("enough rows")

// Export gives the newest part of the versions first to last of a site: the
// rows that they wrote, as they are now, and in Marks how far down the range
// that goes. The caller asks again below Marks. Whole versions are added until
// the batch has about limit bytes, so it may be larger by one version.
func (s *Store) Export(ctx context.Context, site crdt.SiteID, first, last uint64, limit int) (crdt.Batch, error) {
	var out crdt.Batch
	if first == 0 || first > last {
		return out, fmt.Errorf("export versions %d to %d: no such range", first, last)
	}
	err := s.snapshot(ctx, func(c *conn) error {
		known, err := s.file.readKnown(c)
		if err != nil {
			return err
		}
		if !known[site].Covers(crdt.Single(first, last)) {
			return ErrNotKnown
		}
		out, err = s.exportRange(c, site, first, last, limit)
		return err
	})
	if err != nil {
		return crdt.Batch{}, fmt.Errorf("export versions %d to %d of %v: %w", first, last, site, err)
	}
	return out, nil
}

func (s *Store) exportRange(c *conn, site crdt.SiteID, first, last uint64, limit int) (crdt.Batch, error) {
	out := crdt.Batch{Marks: crdt.Known{site: crdt.Single(first, last)}}
	n, ok := s.file.dict.findSite(site)
	if !ok {
		return out, ErrNotKnown
	}
	size, lowest := 0, last+1
	err := c.query("SELECT seq, tbl, key FROM _version WHERE site = ? AND seq BETWEEN ? AND ? ORDER BY seq DESC",
		[]any{int64(n), int64(first), int64(last)}, func(ref []driver.Value) error {
			seq := uint64(ref[0].(int64))
			if seq < lowest && size >= limit {
				out.Marks = crdt.Known{site: crdt.Single(lowest, last)}
				return errEnough
			}
			lowest = seq
			row, err := s.referred(c, ref)
			if err != nil {
				return err
			}
			size += row.Size()
			out.Rows = append(out.Rows, row)
			return nil
		})
	if err != nil && !errors.Is(err, errEnough) {
		return crdt.Batch{}, err
	}
	return out, nil
}

// referred is the row that a line of _version speaks of.
func (s *Store) referred(c *conn, ref []driver.Value) (crdt.Row, error) {
	table, ok := s.file.dict.NameAt(uint64(ref[1].(int64)))
	if !ok {
		return crdt.Row{}, fmt.Errorf("table %d of a version has no name", ref[1])
	}
	row, at, err := s.file.load(c, table, ref[2].(string))
	if err == nil && at == nowhere {
		err = fmt.Errorf("version %d points to a row that is not there: %s %q", ref[0], table, ref[2])
	}
	return row, err
}

// Snapshot gives all that is here, as one transaction saw it.
func (s *Store) Snapshot(ctx context.Context) (crdt.Snapshot, error) {
	var out crdt.Snapshot
	err := s.snapshot(ctx, func(c *conn) (err error) {
		if out.Marks, err = s.file.readKnown(c); err != nil {
			return err
		}
		if out.Floor, err = s.file.readFloor(c); err != nil {
			return err
		}
		return s.file.scan(c, func(row crdt.Row) error {
			out.Rows = append(out.Rows, row)
			return nil
		})
	})
	if err != nil {
		return crdt.Snapshot{}, fmt.Errorf("read a snapshot: %w", err)
	}
	return out, nil
}

// Digest is a hash over all rows, deleted ones too, with their records. It is
// equal on machines that agree.
func (s *Store) Digest(ctx context.Context) (string, error) {
	all, err := s.Snapshot(ctx)
	if err != nil {
		return "", err
	}
	slices.SortFunc(all.Rows, func(a, b crdt.Row) int {
		return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.Key, b.Key))
	})
	sum := sha256.New()
	for _, row := range all.Rows {
		row.Writers = nil
		sum.Write(crdt.AppendBatch(nil, crdt.Batch{Rows: []crdt.Row{row}}))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// snapshot runs do on a reader, within one read transaction.
func (s *Store) snapshot(ctx context.Context, do func(*conn) error) error {
	if s.isClosed() {
		return errClosed
	}
	select {
	case c := <-s.file.readers:
		defer func() { s.file.readers <- c }()
		return asFault(c.within("BEGIN", func() error { return do(c) }))
	case <-s.closing:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// asOfNow runs do on a reader that sees what memory holds: it begins to see
// while nobody can write, which is when note is called. Nobody waits for it
// longer than that.
func (s *Store) asOfNow(ctx context.Context, note func(), do func(c *conn, memory *view) error) error {
	return s.snapshot(ctx, func(c *conn) error {
		memory, err := s.seeMemory(ctx, c, note)
		if err != nil {
			return err
		}
		return do(c, memory)
	})
}

func (s *Store) seeMemory(ctx context.Context, c *conn, note func()) (*view, error) {
	release, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if _, err := c.number("SELECT count(*) FROM _known"); err != nil { // the transaction begins to see here
		return nil, err
	}
	note()
	return &view{state: s.State(), known: s.file.known}, nil
}

// Status is what an operator wants to know of a store.
type Status struct {
	Site        crdt.SiteID
	Head        uint64 // newest version of this site
	Sites       int    // that have written anything known here
	Missing     uint64 // versions that are in gaps: known to exist, not here yet
	Rows        int    // living ones, also those of tables that only newer agents know
	Deleted     int    // tombstones
	Unreadable  int    // rows that State leaves out
	Quarantined int    // rows that their tables refused; see Quarantine
	ClockSkewed bool   // within the hour, a change came stamped ahead of the time here
	DiskFull    bool   // the last change was refused for want of space, and there is none yet
}

// Status never blocks, and reads nothing of any file.
func (s *Store) Status() Status {
	known, site := s.Known(), s.Site()
	st := Status{
		Site: site, Head: known.Head(site), Sites: len(known),
		Rows: int(s.rows.Load()), Deleted: int(s.deleted.Load()),
		Unreadable: int(s.badCount.Load()), Quarantined: int(s.quarantined.Load()), ClockSkewed: s.clockSkewed(),
		DiskFull: s.file.full.Load() && !roomAgain(s.file.path),
	}
	for _, ranges := range known {
		st.Missing += ranges.Gaps().Count()
	}
	return st
}
