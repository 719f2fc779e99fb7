package store

import (
	"context"
	"fmt"
	"slices"

	"uncloud/agent/internal/crdt"
)

// AdoptSnapshot joins all that another machine holds, though tombstones may
// have been collected there that never came here, or here that never came
// there. Of a row that only one side holds, the other one has either never
// heard, or it knows every version in which the row was written: then it has
// forgotten the row's removal, and the row goes, or does not come.
//
// What was written on one side under a version that the other side lacks
// stays: nothing that was acknowledged is lost. Such a row may have been removed
// all the same, and a third machine still have the tombstone. So this site
// writes it again, in a life above the Floor, and all come to hold it.
func (s *Store) AdoptSnapshot(ctx context.Context, got crdt.Snapshot) (crdt.Known, error) {
	release, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := s.checkBatch(got.Batch); err != nil {
		return nil, err
	}
	if !got.Marks.CoversAll(got.Floor.Known) {
		return nil, fmt.Errorf("%w: a floor among versions that are not known", crdt.ErrImpossible)
	}
	a := &adoption{store: s, got: got, had: s.file.known, below: s.Floor(), floor: s.Floor().Union(got.Floor)}
	done, err := a.write()
	if err != nil {
		return nil, fmt.Errorf("adopt a snapshot of %d rows: %w", len(got.Rows), err)
	}
	for _, ch := range a.gone {
		s.count(ch.old.Record, crdt.Record{})
	}
	s.recount()
	if len(a.lifted) > 0 {
		s.noteWritten(a.next)
	}
	a.publish(done.known)
	return done.known, nil
}

// adoption is one AdoptSnapshot in the making.
type adoption struct {
	store *Store
	got   crdt.Snapshot
	had   crdt.Known // here, before
	below Floor      // here, before
	floor Floor      // of both sides

	gone   []change // removed there
	joined []change
	lifted []change // written again by this site, as version next
	next   Version
}

// write runs the transaction. A version of this site may be given, so it must
// survive a power cut.
func (a *adoption) write() (done outcome, err error) {
	s := a.store
	err = s.raiseFloor(a.floor, func() error {
		done, err = s.write(false, s.file.saveAll, a.decide)
		if refusedByTable(err) {
			s.log.Warn("a row from another machine does not fit its table and is set aside", "err", err)
			done, err = s.write(false, s.file.saveEach, a.decide)
		}
		return err
	})
	return done, err
}

// decide reads and forgets within the transaction, and says what to write.
func (a *adoption) decide(c *conn) (outcome, error) {
	s := a.store
	a.gone, a.joined, a.lifted, a.next = nil, nil, nil, Version{}
	known := a.had.Union(a.got.Marks)
	joined, err := s.join(a.got.Rows, known)
	if err != nil {
		return outcome{}, err
	}
	for _, ch := range joined.changes {
		if ch.at != nowhere || !a.had.CoversAll(allOf(ch.row.Writers)) {
			a.joined = append(a.joined, ch)
		}
	}
	alone, err := a.alone(c)
	if err != nil {
		return outcome{}, err
	}
	for _, ch := range a.gone {
		if err := s.file.forget(c, ch.old, ch.at); err != nil {
			return outcome{}, err
		}
	}
	a.liftAll(alone, known)
	if err := c.setMeta(floorKey, crdt.AppendFloor(nil, a.floor)); err != nil {
		return outcome{}, err
	}
	return outcome{changes: slices.Concat(a.joined, a.lifted), known: known.Union(crdt.Knows(a.next))}, nil
}

// alone is the rows that the snapshot lacks and that stay. Those that the other
// side has removed are gone.
func (a *adoption) alone(c *conn) ([]change, error) {
	named := make(map[rowID]bool, len(a.got.Rows))
	for _, row := range a.got.Rows {
		named[rowID{row.Table, row.Key}] = true
	}
	var stay []change
	err := a.store.file.scanPlaces(c, func(row crdt.Row, at place) error {
		switch {
		case named[rowID{row.Table, row.Key}]:
		case a.got.Marks.CoversAll(allOf(row.Writers)):
			a.gone = append(a.gone, change{old: row, row: crdt.Row{Table: row.Table, Key: row.Key}, at: at})
		default:
			stay = append(stay, change{old: row, row: row, at: at})
		}
		return nil
	})
	return stay, err
}

// liftAll writes again what may have been removed by a tombstone that was
// collected: rows that the other side lacks, and if it does not cover the Floor
// of this one, rows that were not here. Those in a life above the floor already
// stay as they are, and so all do while nobody has collected.
func (a *adoption) liftAll(alone []change, known crdt.Known) {
	joined, mutual := a.joined[:0:0], !a.got.Marks.CoversAll(a.below.Known)
	for _, ch := range a.joined {
		if mutual && ch.at == nowhere && ch.row.Record.CL <= a.floor.CL {
			alone = append(alone, ch)
		} else {
			joined = append(joined, ch)
		}
	}
	a.joined = joined
	next := Version{Site: a.store.file.self, Seq: a.store.head().Seq + 1}
	with := known.Union(crdt.Knows(next))
	at := a.store.hlc.Next(a.store.clock())
	for _, ch := range alone {
		if ch.row.Record.CL <= a.floor.CL {
			ch.row.Record = a.floor.Lift(ch.row.Record, at, next.Site)
			ch.row.Writers = crdt.MergeWriters(ch.row.Writers, []Version{next}, with)
			a.lifted, a.next = append(a.lifted, ch), next
		}
	}
}

// publish shows what has come and gone, and gives to the others what this site
// has written again.
func (a *adoption) publish(known crdt.Known) {
	all, own := slices.Concat(a.gone, a.joined), crdt.Knows(a.next)
	before := known.Minus(own)
	a.store.publish(Commit{Batch: crdt.Batch{Rows: rowsOf(all), Marks: before.Minus(a.had)}, Known: before}, all)
	if len(a.lifted) > 0 {
		a.store.publish(Commit{Batch: crdt.Batch{Rows: rowsOf(a.lifted), Marks: own}, Known: known, Local: true}, a.lifted)
	}
}
