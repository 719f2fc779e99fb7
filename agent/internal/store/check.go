package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"reflect"

	"uncloud/agent/internal/crdt"
)

// Report is what Check found.
type Report struct {
	Rows, Tombstones, Pointers int
	Problems                   []string // empty: all is well
}

// maxProblems bounds a report: after that many the file is lost anyway.
const maxProblems = 100

func (r *Report) problem(format string, args ...any) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// Check reads the whole database in one transaction and compares all that has
// to agree: pages and indexes, records, the versions that rows point to with
// the lists of versions, these with what is known, and the file with memory.
// It keeps no writer waiting, however large the database is.
func (s *Store) Check(ctx context.Context) (Report, error) {
	var r Report
	err := s.asOfNow(ctx, func() {}, func(c *conn, memory *view) error {
		if err := r.pages(c); err != nil {
			return err
		}
		return s.checkRows(c, &r, memory)
	})
	if err != nil {
		return r, fmt.Errorf("check the store: %w", asFault(err))
	}
	return r, nil
}

func (r *Report) pages(c *conn) error {
	return c.query("PRAGMA integrity_check", nil, func(row []driver.Value) error {
		if text, _ := row[0].(string); text != "ok" {
			r.problem("database: %s", text)
		}
		return nil
	})
}

func (s *Store) checkRows(c *conn, r *Report, memory *view) error {
	known, err := s.file.readKnown(c)
	if err != nil {
		return err
	}
	r.known(known, memory.known)
	pointers, err := s.pointers(c)
	if err != nil {
		return err
	}
	r.Pointers = len(pointers)
	d := s.draftOf(emptyState())
	err = s.file.scan(c, func(row crdt.Row) error {
		r.row(row, known, pointers)
		_ = d.apply(row) // what cannot be read is in Status.Unreadable
		return nil
	})
	for p := range pointers {
		r.problem("version %v points to %s %q, which does not point back", p.v, p.id.table, p.id.key)
	}
	if s.typed != nil && !reflect.DeepEqual(d.freeze(), memory.state) {
		r.problem("the state in memory is not that of the file")
	}
	return err
}

// known checks the sets of versions on disk.
func (r *Report) known(disk, memory crdt.Known) {
	if !disk.Equal(memory) {
		r.problem("memory knows %v, the file %v", memory, disk)
	}
	for site, ranges := range disk {
		for i, one := range ranges {
			if one.First == 0 || one.Last < one.First || i > 0 && one.First <= ranges[i-1].Last+1 {
				r.problem("the known versions of site %v overlap or touch: %v", site, ranges)
			}
		}
	}
}

type pointer struct {
	v  Version
	id rowID
}

func (s *Store) pointers(c *conn) (map[pointer]bool, error) {
	out := map[pointer]bool{}
	err := c.query("SELECT site, seq, tbl, key FROM _version", nil, func(row []driver.Value) error {
		site, known := s.file.dict.SiteAt(uint64(row[0].(int64)))
		table, named := s.file.dict.NameAt(uint64(row[2].(int64)))
		if !known || !named {
			return fmt.Errorf("site %v or table %v of a version has no name", row[0], row[2])
		}
		out[pointer{Version{Site: site, Seq: uint64(row[1].(int64))}, rowID{table, row[3].(string)}}] = true
		return nil
	})
	return out, err
}

// row checks one row, and strikes out the pointers to it.
func (r *Report) row(row crdt.Row, known crdt.Known, pointers map[pointer]bool) {
	if row.Record.Alive() {
		r.Rows++
	} else {
		r.Tombstones++
	}
	if err := row.Check(); err != nil {
		r.problem("%v", err)
	}
	for _, v := range row.Writers {
		p := pointer{v, rowID{row.Table, row.Key}}
		if !pointers[p] {
			r.problem("%s %q is not in the list of version %v", row.Table, row.Key, v)
		}
		if !known.Covers(v) {
			r.problem("%s %q points to version %v, which is not known", row.Table, row.Key, v)
		}
		delete(pointers, p)
	}
}
