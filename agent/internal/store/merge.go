package store

import (
	"context"
	"errors"
	"fmt"
	"math"

	"uncloud/agent/internal/crdt"
)

// ErrSiteReused says that another machine knows versions of this site that
// were never written here: the database is an old copy. Reseat mends it.
var ErrSiteReused = errors.New("other machines know later versions of this site: the database is an old copy")

// Merge applies what another machine sent, as one transaction, and returns the
// versions known after it. What is known already is skipped and writes nothing.
//
// The commit does not wait for the disk: a power cut may take it back together
// with the note that it was known, and it is then fetched again. A later local
// commit makes it durable, since the log is synced in order.
func (s *Store) Merge(ctx context.Context, b crdt.Batch) (crdt.Known, error) {
	release, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	have := s.file.known
	if len(b.Marks) > 0 && have.CoversAll(b.Marks) {
		return have, nil
	}
	if err := s.checkMarks(b.Marks); err != nil {
		return nil, err
	}
	known := have.Union(b.Marks)
	changes, err := s.join(b.Rows, known)
	if err != nil {
		return nil, err
	}
	if len(changes) == 0 && known.Equal(have) {
		return have, nil
	}
	if err := s.save(changes, known, true); err != nil {
		return nil, fmt.Errorf("merge %d rows: %w", len(b.Rows), err)
	}
	s.publish(Commit{Batch: crdt.Batch{Rows: rowsOf(changes), Marks: known.Minus(have)}, Known: known})
	return known, nil
}

func (s *Store) checkMarks(marks crdt.Known) error {
	if marks.Head(s.file.self) > s.file.known.Head(s.file.self) {
		return ErrSiteReused
	}
	for site, ranges := range marks {
		if ranges.Head() > math.MaxInt64 {
			return fmt.Errorf("version %d of site %v is beyond what can be kept", ranges.Head(), site)
		}
	}
	return nil
}

// join merges rows with those that are here, and gives the ones that change.
func (s *Store) join(rows []crdt.Row, known crdt.Known) ([]change, error) {
	var out []change
	now := s.clock()
	for _, got := range dedupe(rows) {
		if err := got.Check(); err != nil {
			return nil, err
		}
		old, at, err := s.file.load(s.file.w, got.Table, got.Key)
		if err != nil {
			return nil, asFault(err)
		}
		row := old
		row.Record = crdt.Merge(old.Record, got.Record)
		row.Writers = crdt.MergeWriters(old.Writers, got.Writers, known)
		if ok := s.hlc.Observe(got.Record.MaxStamp(), now); !ok {
			s.noteSkew(got)
		}
		if row.Record.Equal(old.Record) && len(row.Writers) == len(old.Writers) && sameWriters(row.Writers, old.Writers) {
			continue
		}
		out = append(out, change{old, row, at})
	}
	return out, nil
}

func sameWriters(a, b []Version) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// dedupe joins rows that are named twice in one batch, since each change is
// written over what the file held before.
func dedupe(rows []crdt.Row) []crdt.Row {
	first := make(map[rowID]int, len(rows))
	out := rows[:0:0]
	for _, r := range rows {
		id := rowID{r.Table, r.Key}
		i, twice := first[id]
		if !twice {
			first[id] = len(out)
			out = append(out, r)
			continue
		}
		out[i].Record = crdt.Merge(out[i].Record, r.Record)
		out[i].Writers = crdt.MergeWriters(out[i].Writers, r.Writers, allOf(r.Writers))
	}
	return out
}

func allOf(versions []Version) crdt.Known {
	k := crdt.Known{}
	for _, v := range versions {
		k[v.Site] = crdt.Single(v.Seq, v.Seq)
	}
	return k
}

func (s *Store) noteSkew(row crdt.Row) {
	if !s.skewed.Swap(true) {
		s.log.Warn("clocks differ: a change from another machine is stamped ahead of the time here",
			"table", row.Table, "key", row.Key, "stamped", row.Record.MaxStamp().Time())
	}
}

// Reseat gives this store a new site id, if another machine knows versions of
// the present one beyond the head here. That happens when the database was
// restored from a copy: numbers given since then may stand for something else
// elsewhere. All rows that the old site wrote are written again, unchanged, as
// the first version of the new one, and the old site's versions are forgotten
// so that they are fetched afresh. It reports whether the site changed.
func (s *Store) Reseat(ctx context.Context, seenHead uint64) (bool, error) {
	release, err := s.acquire(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	old := s.head()
	if seenHead <= old.Seq {
		return false, nil
	}
	site, err := crdt.NewSiteID(s.random)
	if err != nil {
		return false, err
	}
	first := Version{Site: site, Seq: 1}
	known := s.file.known.Without(old.Site).Union(crdt.Knows(first))
	changes, err := s.rewrite(old.Site, first)
	if err != nil {
		return false, err
	}
	err = s.file.write(false, func(c *conn) error {
		for _, ch := range changes {
			if err := s.file.save(c, ch.row, ch.old, ch.at); err != nil {
				return err
			}
		}
		if err := s.file.saveKnown(c, known); err != nil {
			return err
		}
		return c.exec("UPDATE _meta SET value = ? WHERE key = 'site'", site[:])
	})
	if err != nil {
		return false, fmt.Errorf("take a new site id: %w", err)
	}
	s.file.known, s.file.self = known, site
	s.site.Store(&site)
	s.log.Warn("the database was an old copy; took a new site id", "site", site, "before", old.Site)
	s.publish(Commit{Batch: crdt.Batch{Rows: rowsOf(changes), Marks: crdt.Knows(first)}, Known: known, Local: true})
	return true, nil
}

// rewrite moves the rows that from has written to a version of another site.
func (s *Store) rewrite(from crdt.SiteID, to Version) ([]change, error) {
	var out []change
	err := s.file.scan(s.file.w, func(old crdt.Row) error {
		row := old
		row.Writers = nil
		for _, v := range old.Writers {
			if v.Site != from {
				row.Writers = append(row.Writers, v)
			}
		}
		if len(row.Writers) == len(old.Writers) {
			return nil
		}
		row.Writers = crdt.MergeWriters(row.Writers, []Version{to}, crdt.Knows(to))
		out = append(out, change{old: old, row: row})
		return nil
	})
	if err != nil {
		return nil, asFault(err)
	}
	for i := range out {
		if _, out[i].at, err = s.file.load(s.file.w, out[i].row.Table, out[i].row.Key); err != nil {
			return nil, asFault(err)
		}
	}
	return out, nil
}
