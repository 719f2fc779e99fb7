package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
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
	if err := s.checkBatch(b); err != nil {
		return nil, err
	}
	join := func(*conn) (outcome, error) { return s.join(b.Rows, have.Union(b.Marks)) }
	done, err := s.write(true, s.file.saveAll, join)
	if refusedByTable(err) {
		s.log.Warn("a row from another machine does not fit its table and is set aside", "err", err)
		done, err = s.write(true, s.file.saveEach, join)
		s.recount()
	}
	if err != nil {
		if faults.CodeOf(err) == faults.DiskFull {
			return nil, err
		}
		return nil, fmt.Errorf("merge %d rows: %w", len(b.Rows), err)
	}
	if gained := done.known.Minus(have); len(done.changes)+len(gained) > 0 {
		s.publish(Commit{Batch: crdt.Batch{Rows: rowsOf(done.changes), Marks: gained}, Known: done.known}, done.changes)
	}
	return done.known, nil
}

// checkBatch refuses what no store can have sent, before anything is done.
func (s *Store) checkBatch(b crdt.Batch) error {
	for _, row := range b.Rows {
		if err := row.Check(); err != nil {
			return fmt.Errorf("%w: %w", crdt.ErrImpossible, err)
		}
	}
	for site, ranges := range b.Marks {
		if ranges.Head() > math.MaxInt64 {
			return fmt.Errorf("%w: version %d of site %v is beyond what can be kept", crdt.ErrImpossible, ranges.Head(), site)
		}
	}
	if b.Marks.Head(s.file.self) > s.file.known.Head(s.file.self) {
		return ErrSiteReused
	}
	return nil
}

// join merges rows with those that are here, and gives the ones that change.
func (s *Store) join(rows []crdt.Row, known crdt.Known) (outcome, error) {
	out := outcome{known: known}
	now := s.clock()
	rows = dedupe(rows)
	all := make([]change, len(rows))
	for i, got := range rows {
		all[i].old.Table, all[i].old.Key = got.Table, got.Key
	}
	if err := s.file.loadAll(s.file.w, all); err != nil {
		return out, err
	}
	out.changes = all[:0]
	for i, got := range rows {
		ch := all[i]
		ch.row = ch.old
		ch.row.Record = crdt.Merge(ch.old.Record, got.Record)
		ch.row.Writers = crdt.MergeWriters(ch.old.Writers, got.Writers, known)
		if ok := s.hlc.Observe(got.Record.MaxStamp(), now); !ok {
			s.noteSkew(got)
		}
		if !ch.row.Record.Equal(ch.old.Record) || !slices.Equal(ch.row.Writers, ch.old.Writers) {
			out.changes = append(out.changes, ch)
		}
	}
	return out, nil
}

// dedupe joins rows that are named twice in one batch, since each change is
// written over what the file held before.
func dedupe(rows []crdt.Row) []crdt.Row {
	first := make(map[rowID]int, len(rows))
	out, kept := rows, 0 // rows itself until one is named twice
	for i, r := range rows {
		id := rowID{r.Table, r.Key}
		at, twice := first[id]
		if twice {
			if kept == i {
				out = slices.Clone(rows[:i])
			}
			out[at].Record = crdt.Merge(out[at].Record, r.Record)
			out[at].Writers = crdt.MergeWriters(out[at].Writers, r.Writers, allOf(r.Writers))
			continue
		}
		if kept < i {
			out = append(out, r)
		}
		first[id] = kept
		kept++
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

// skewTold is for how long a change from ahead of the time is a sign that
// clocks differ: a machine without a clock of its own may have been set since.
const skewTold = time.Hour

func (s *Store) noteSkew(row crdt.Row) {
	if !s.clockSkewed() {
		s.log.Warn("clocks differ: a change from another machine is stamped ahead of the time here",
			"table", row.Table, "key", row.Key, "stamped", row.Record.MaxStamp().Time())
	}
	now := time.Now()
	s.skewedAt.Store(&now)
}

func (s *Store) clockSkewed() bool {
	at := s.skewedAt.Load()
	return at != nil && time.Since(*at) < skewTold
}

// Reseat gives this store a new site id, if seen, which another machine knows,
// is a version of the present site beyond the head here. That happens when the
// database was restored from a copy: numbers given since then may stand for
// something else elsewhere. All rows that the old site wrote are written again, unchanged, as
// the first version of the new one, and the old site's versions are forgotten
// so that they are fetched afresh. It reports whether the site changed.
func (s *Store) Reseat(ctx context.Context, seen Version) (bool, error) {
	release, err := s.acquire(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	old := s.head()
	if seen.Site != old.Site || seen.Seq <= old.Seq {
		return false, nil
	}
	site, err := crdt.NewSiteID(s.random)
	if err != nil {
		return false, err
	}
	if err := s.file.witness.note(site, 0); err != nil {
		return false, err
	}
	done, err := s.write(false, s.file.saveAll, func(c *conn) (outcome, error) {
		if err := c.setMeta("site", site[:]); err != nil {
			return outcome{}, err
		}
		return s.rewrite(c, old.Site, Version{Site: site, Seq: 1})
	})
	if err != nil {
		return false, fmt.Errorf("take a new site id: %w", err)
	}
	s.file.self = site
	s.site.Store(&site)
	s.log.Warn("the database was an old copy; took a new site id", "site", site, "before", old.Site)
	s.publish(Commit{Batch: crdt.Batch{Rows: rowsOf(done.changes), Marks: crdt.Known{site: done.known[site]}}, Known: done.known, Local: true}, done.changes)
	return true, nil
}

// rewrite moves the rows that from has written to a version of another site,
// and forgets the versions of from.
func (s *Store) rewrite(c *conn, from crdt.SiteID, to Version) (outcome, error) {
	out := outcome{known: s.file.known.Without(from).Union(crdt.Knows(to))}
	err := s.file.scanPlaces(c, func(old crdt.Row, at place) error {
		row := old
		row.Writers = slices.DeleteFunc(slices.Clone(old.Writers), func(v Version) bool { return v.Site == from })
		if len(row.Writers) < len(old.Writers) {
			row.Writers = crdt.MergeWriters(row.Writers, []Version{to}, out.known)
			out.changes = append(out.changes, change{old, row, at})
		}
		return nil
	})
	return out, err
}
