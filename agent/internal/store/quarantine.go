package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"

	"uncloud/agent/internal/crdt"
)

// A row that another machine sent and that its table refuses must not stop
// replication, nor be lost. It goes on the shelf like a row of an unknown
// table: merged, passed on, shown by State, and tried again with the next
// schema and with its next change. Quarantine lists such rows.

// refusedByTable tells errors of one row from those of the file or the disk.
func refusedByTable(err error) bool {
	e, ok := errors.AsType[sqlite3.Error](err)
	return ok && (e.Code == sqlite3.ErrConstraint || e.Code == sqlite3.ErrMismatch || e.Code == sqlite3.ErrTooBig)
}

// saveEach saves rows one by one, after saving them together has failed. A row
// that fails alone as well is quarantined.
func (f *file) saveEach(c *conn, changes []change) error {
	if err := f.intern(c, changes); err != nil {
		return err
	}
	for _, ch := range changes {
		err := f.attempt(c, func() error { return f.saveAll(c, []change{ch}) })
		if err == nil {
			continue
		}
		if !refusedByTable(err) {
			return err
		}
		if err := f.quarantine(c, ch, err); err != nil {
			return err
		}
	}
	return nil
}

// intern gives numbers to all that the rows name, so that none is given within
// an attempt that is undone.
func (f *file) intern(c *conn, changes []change) error {
	var scratch []byte
	for _, ch := range changes {
		f.dict.Name(ch.row.Table)
		scratch = crdt.AppendRecord(scratch[:0], ch.row.Record, ch.row.Writers, &f.dict, nil)
	}
	return f.dict.flush(c)
}

// attempt runs do so that its failure undoes only what it did.
func (f *file) attempt(c *conn, do func() error) error {
	if err := c.exec("SAVEPOINT attempt"); err != nil {
		return err
	}
	err := do()
	if err != nil {
		if !c.inTransaction() {
			return err
		}
		if back := c.exec("ROLLBACK TO attempt"); back != nil {
			return errors.Join(err, back)
		}
	}
	return errors.Join(err, c.exec("RELEASE attempt"))
}

func (f *file) quarantine(c *conn, ch change, why error) error {
	n := int64(f.dict.Name(ch.row.Table))
	var versions pointers
	err := errors.Join(
		f.saveOnShelf(c, f.tables[ch.row.Table], ch.row, ch.at),
		f.saveWriters(c, &ch, &versions, 1),
		versions.save(c, &f.dict),
		f.dict.flush(c),
		c.exec("INSERT INTO _quarantine (tbl, key, error) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET error = excluded.error", n, ch.row.Key, why.Error()),
	)
	if err == nil {
		f.quarantined = true
	}
	return err
}

// release takes rows that were saved out of the quarantine.
func (f *file) release(c *conn, row crdt.Row) error {
	if !f.quarantined {
		return nil
	}
	return c.exec("DELETE FROM _quarantine WHERE tbl = ? AND key = ?", int64(f.dict.Name(row.Table)), row.Key)
}

// countQuarantine reads how many rows are in the quarantine.
func (f *file) countQuarantine() (int64, error) {
	n, err := f.w.number("SELECT count(*) FROM _quarantine")
	f.quarantined = n > 0
	return n, err
}

// Quarantined is a row that its table refused.
type Quarantined struct{ Table, Key, Error string }

// Quarantine lists the rows that their tables refused.
func (s *Store) Quarantine(ctx context.Context) ([]Quarantined, error) {
	var out []Quarantined
	err := s.snapshot(ctx, func(c *conn) error {
		return c.query("SELECT n.name, q.key, q.error FROM _quarantine q JOIN _name n ON n.n = q.tbl ORDER BY 1, 2", nil, func(row []driver.Value) error {
			out = append(out, Quarantined{row[0].(string), row[1].(string), row[2].(string)})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the quarantine: %w", err)
	}
	return out, nil
}

// recount notes the size of the quarantine for Status.
func (s *Store) recount() {
	n, err := s.file.countQuarantine()
	if err != nil {
		s.log.Warn("cannot count the quarantine", "err", err)
		return
	}
	s.quarantined.Store(n)
}
