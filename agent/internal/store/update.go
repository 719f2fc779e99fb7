package store

import (
	"context"
	"fmt"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Tx is one Update in the making. It is used by one goroutine and only until
// the function of Update returns.
type Tx struct {
	store  *Store
	draft  *draft
	before *spec.State
	order  []rowID
	seen   map[rowID]bool
	values map[rowID]*valueRow // those of Options.Schema
	rows   rowRoom             // of which values are made
	err    error
}

// State is the state with what this Tx has put and deleted so far.
func (tx *Tx) State() *spec.State { return tx.draft.freeze() }

// Put writes whole rows. Only columns that differ from the row that is there
// count as changed. A row that cannot be kept makes the Update fail.
func (tx *Tx) Put(rows ...spec.Row) {
	for _, row := range rows {
		if err := tx.put(row); err != nil && tx.err == nil {
			tx.err = err
		}
	}
}

func (tx *Tx) put(row spec.Row) error {
	table, key := row.Table(), row.Key()
	t := tx.store.typed[table]
	if t == nil || key == "" {
		return fmt.Errorf("put row %q into table %q: no such table, or no key", key, table)
	}
	cells, err := t.encode(row)
	if err != nil {
		return err
	}
	// What readers will see is what was encoded, and shares nothing with the
	// caller's slices and maps.
	record, _ := crdt.Record{}.Put(cells, 0, crdt.SiteID{})
	kept, err := t.decode(key, record)
	if err != nil {
		return fmt.Errorf("put row %q into table %q: %w", key, table, err)
	}
	tx.touch(rowID{table, key})
	tx.draft.set(t, kept)
	return nil
}

// Delete removes a row. Removal wins over changes that other machines make to
// the row meanwhile. Deleting what is not there changes nothing.
func (tx *Tx) Delete(table, key string) {
	t := tx.store.typed[table]
	if t == nil {
		tx.err = fmt.Errorf("delete row %q of table %q: no such table", key, table)
		return
	}
	tx.touch(rowID{table, key})
	tx.draft.remove(t, key)
}

func (tx *Tx) touch(id rowID) {
	if tx.seen[id] {
		return
	}
	if tx.seen == nil {
		tx.seen = map[rowID]bool{}
	}
	tx.seen[id] = true
	tx.order = append(tx.order, id)
}

// Update runs do and commits what it put and deleted: all of it, durably, or
// nothing if do or the commit fails. It returns the version of the commit.
// What is true already is not written; if nothing is left to write, Update
// consumes no version, touches no disk and returns this site's newest version.
//
// Updates run one after another, so do must not wait for anything. ctx bounds
// the wait for the turn; a commit that was begun is finished. Errors of do
// come back as they are; faults.Invalid and faults.DiskFull are the store's.
func (s *Store) Update(ctx context.Context, do func(tx *Tx) error) (Version, error) {
	release, err := s.acquire(ctx)
	if err != nil {
		return Version{}, err
	}
	defer release()
	before := s.State()
	tx := &Tx{store: s, draft: s.draftOf(before), before: before}
	if err := do(tx); err != nil {
		return Version{}, err
	}
	if tx.err != nil {
		return Version{}, tx.err
	}
	edits, err := s.edits(tx)
	if err != nil {
		return Version{}, err
	}
	return s.commit(edits)
}

// edit is one row that an Update changes.
type edit struct {
	id  rowID
	set []crdt.Assignment // nil: delete

	values *valueRow // instead of set, for a row of Options.Schema
}

// edits compares what tx made with what was there. Only the end counts: a row
// put and deleted in one Update was never there.
func (s *Store) edits(tx *Tx) ([]edit, error) {
	out := make([]edit, 0, len(tx.order))
	for _, id := range tx.order {
		if r := tx.values[id]; r != nil {
			out = append(out, edit{id: id, values: r})
			continue
		}
		t := s.typed[id.table]
		was, had := t.get(tx.before, id.key)
		is, has := t.get(&tx.draft.st, id.key)
		_, unreadable := s.bad[id]
		switch {
		case has && had:
			set, err := difference(t, was, is)
			if err != nil {
				return nil, err
			}
			if len(set) > 0 {
				out = append(out, edit{id: id, set: set})
			}
		case has:
			set, err := t.encode(is)
			if err != nil {
				return nil, err
			}
			out = append(out, edit{id: id, set: set})
		case had || unreadable:
			out = append(out, edit{id: id})
		}
	}
	return out, nil
}

// difference compares the encoded forms of two rows: what this agent cannot
// read of a column, as a newer one wrote it, stays until the column changes.
func difference(t typed, was, is spec.Row) ([]crdt.Assignment, error) {
	old, err := t.encode(was)
	if err != nil {
		return nil, err
	}
	now, err := t.encode(is)
	if err != nil {
		return nil, err
	}
	var set []crdt.Assignment
	for i := range now {
		if now[i] != old[i] {
			set = append(set, now[i])
		}
	}
	return set, nil
}

// change is one row before and after a transaction.
type change struct {
	old, row crdt.Row
	at       place
}

// outcome is what a transaction changes, and the versions known after it.
type outcome struct {
	changes []change
	known   crdt.Known
}

// saver is saveAll, or saveEach.
type saver func(*conn, []change) error

// write runs one transaction. decide reads within it and says what to change;
// if that is nothing, nothing is written. With lazy the disk is not waited for.
func (s *Store) write(lazy bool, save saver, decide func(*conn) (outcome, error)) (out outcome, err error) {
	err = s.file.write(lazy, func(c *conn) error {
		if out, err = decide(c); err != nil {
			return err
		}
		if err := save(c, out.changes); err != nil {
			return err
		}
		return s.file.saveKnown(c, out.known)
	})
	if err != nil {
		return outcome{}, err
	}
	s.file.known = out.known
	for i := range out.changes {
		s.count(out.changes[i].old.Record, out.changes[i].row.Record)
	}
	return out, nil
}

// commit stamps and writes the edits as the next version of this site.
func (s *Store) commit(edits []edit) (Version, error) {
	if len(edits) == 0 {
		return s.head(), nil
	}
	next := Version{Site: s.file.self, Seq: s.head().Seq + 1}
	done, err := s.write(false, s.file.saveAll, func(*conn) (outcome, error) { return s.stamp(edits, next) })
	switch {
	case refusedByTable(err):
		return Version{}, faults.New(faults.Invalid, "the change does not fit its table").Because(err)
	case faults.CodeOf(err) == faults.DiskFull:
		return Version{}, err // a sentence for people, who do not count versions
	case err != nil:
		return Version{}, fmt.Errorf("commit version %v: %w", next, err)
	case len(done.changes) == 0:
		return s.head(), nil
	}
	s.noteWritten(next)
	s.publish(Commit{Batch: crdt.Batch{Rows: rowsOf(done.changes), Marks: crdt.Knows(next)}, Known: done.known, Local: true}, done.changes)
	return next, nil
}

// noteWritten has the witness know a version before anyone can see it.
func (s *Store) noteWritten(v Version) {
	if err := s.file.witness.note(v.Site, v.Seq); err != nil {
		s.log.Error("the store's witness cannot be written; a disk that is set back may go unnoticed", "err", err)
	}
}

func (s *Store) stamp(edits []edit, next Version) (outcome, error) {
	out := outcome{known: s.file.known}
	all := make([]change, len(edits))
	for i, e := range edits {
		all[i].old.Table, all[i].old.Key = e.id.table, e.id.key
	}
	if err := s.file.loadAll(s.file.w, all); err != nil {
		return out, err
	}
	by := stamper{at: s.hlc.Next(s.clock()), mine: []Version{next}, known: s.file.known.Union(crdt.Knows(next)), floor: s.Floor().CL}
	out.changes = all[:0]
	var size sizeCheck
	for i := range all {
		ch := all[i]
		changed, err := by.apply(edits[i], &ch)
		if err == nil && changed {
			err = size.add(ch.row)
			out.changes, out.known = append(out.changes, ch), by.known
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// stamper makes the rows of one version.
type stamper struct {
	at    crdt.Stamp
	mine  []Version // the version
	known crdt.Known
	floor uint64            // the causal length from which rows are born
	set   []crdt.Assignment // of one edit after another
}

// apply makes the new row of a change from its old one, and tells whether they
// differ.
func (st *stamper) apply(e edit, ch *change) (changed bool, err error) {
	set := e.set
	if e.values != nil {
		if set, err = e.values.assignments(st.set, ch.old); err != nil {
			return false, err
		}
		st.set = set
	}
	ch.row = ch.old
	if ch.old.Record.CL == 0 {
		ch.row.Record.CL = st.floor
	}
	if set == nil {
		ch.row.Record, changed = ch.row.Record.Delete(st.at, st.mine[0].Site)
	} else {
		ch.row.Record, changed = ch.row.Record.Put(set, st.at, st.mine[0].Site)
	}
	if changed {
		ch.row.Writers = crdt.MergeWriters(ch.old.Writers, st.mine, st.known)
	}
	return changed, nil
}

// count keeps the numbers of living and deleted rows.
func (s *Store) count(old, now crdt.Record) {
	s.countOne(old.CL, -1)
	s.countOne(now.CL, 1)
}

func (s *Store) countOne(cl uint64, by int64) {
	switch {
	case cl%2 == 1:
		s.rows.Add(by)
	case cl > 0:
		s.deleted.Add(by)
	}
}

func rowsOf(changes []change) []crdt.Row {
	out := make([]crdt.Row, len(changes))
	for i := range changes {
		out[i] = changes[i].row
	}
	return out
}
