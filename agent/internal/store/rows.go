package store

import (
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"

	"uncloud/agent/internal/crdt"
)

// shape is one replicated table as it is in the file, which may have been
// migrated by a newer agent than this one.
type shape struct {
	name    string
	key     string
	columns []string // without the key and the record
	sql     struct{ get, scan, upsert, remove string }
}

func newShape(name string, columns []string) *shape {
	s := &shape{name: name, key: columns[0]}
	for _, c := range columns[1:] {
		if c != "_record" {
			s.columns = append(s.columns, c)
		}
	}
	all := append([]string{quote(s.key), "_record"}, quoteAll(s.columns)...)
	list := strings.Join(all, ", ")
	sets := make([]string, len(all)-1)
	for i, c := range all[1:] {
		sets[i] = c + " = excluded." + c
	}
	s.sql.scan = fmt.Sprintf("SELECT %s FROM %s", list, quote(name))
	s.sql.get = s.sql.scan + fmt.Sprintf(" WHERE %s = ?", quote(s.key))
	s.sql.remove = fmt.Sprintf("DELETE FROM %s WHERE %s = ?", quote(name), quote(s.key))
	s.sql.upsert = fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s) ON CONFLICT DO UPDATE SET %s",
		quote(name), list, strings.Repeat(", ?", len(all)-1), strings.Join(sets, ", "))
	return s
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func quoteAll(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = quote(n)
	}
	return out
}

// holds tells whether the table has a column of this name.
func (s *shape) holds(column string) bool { return slices.Contains(s.columns, column) }

// place is where a row was found.
type place int

const (
	nowhere place = iota
	inTable
	onShelf
)

// load reads a row with its record; the zero record where there is none.
func (f *file) load(c *conn, table, key string) (row crdt.Row, at place, err error) {
	row = crdt.Row{Table: table, Key: key}
	if s := f.tables[table]; s != nil {
		err = c.query(s.sql.get, []any{key}, func(values []driver.Value) (err error) {
			at = inTable
			row, err = f.unpack(s, values)
			return err
		})
		if err != nil || at == inTable {
			return row, at, err
		}
	}
	n, ok := f.dict.find(table)
	if !ok {
		return row, nowhere, nil
	}
	err = c.query("SELECT record FROM _shelf WHERE tbl = ? AND key = ?", []any{int64(n), key}, func(values []driver.Value) (err error) {
		at = onShelf
		row, err = f.unpackShelved(table, key, values[0])
		return err
	})
	return row, at, err
}

// unpack reads a row as the get and scan statements of its table give it.
func (f *file) unpack(s *shape, values []driver.Value) (crdt.Row, error) {
	row := crdt.Row{Table: s.name, Key: values[0].(string)}
	d := crdt.NewDecoder(values[1].([]byte))
	row.Record, row.Writers = d.Record(&f.dict, func(column string) crdt.Value {
		if i := slices.Index(s.columns, column); i >= 0 {
			return fromSQL(values[2+i])
		}
		return crdt.Null()
	})
	if err := d.Done(); err != nil {
		return row, fmt.Errorf("record of %s %q: %w", row.Table, row.Key, err)
	}
	return row, nil
}

func (f *file) unpackShelved(table, key string, record driver.Value) (crdt.Row, error) {
	row := crdt.Row{Table: table, Key: key}
	d := crdt.NewDecoder(record.([]byte))
	row.Record, row.Writers = d.Record(&f.dict, nil)
	if err := d.Done(); err != nil {
		return row, fmt.Errorf("record of %s %q: %w", table, key, err)
	}
	return row, nil
}

// save writes a row over old, which load gave with its place.
func (f *file) save(c *conn, row, old crdt.Row, at place) error {
	var err error
	if s := f.tables[row.Table]; s != nil && row.Record.Alive() {
		err = f.saveInTable(c, s, row, at)
	} else {
		err = f.saveOnShelf(c, s, row, at)
	}
	if err != nil {
		return fmt.Errorf("save %s %q: %w", row.Table, row.Key, err)
	}
	return f.saveWriters(c, row, old)
}

func (f *file) saveInTable(c *conn, s *shape, row crdt.Row, at place) error {
	args := make([]any, 2+len(s.columns))
	args[0] = row.Key
	args[1] = crdt.AppendRecord(nil, row.Record, row.Writers, &f.dict, func(column string) bool { return !s.holds(column) })
	for _, cell := range row.Record.Cells {
		if i := slices.Index(s.columns, cell.Column); i >= 0 {
			args[2+i] = toSQL(cell.Value)
		}
	}
	if err := f.dict.flush(c); err != nil {
		return err
	}
	if at == onShelf {
		if err := c.exec("DELETE FROM _shelf WHERE tbl = ? AND key = ?", int64(f.dict.Name(row.Table)), row.Key); err != nil {
			return err
		}
	}
	return c.exec(s.sql.upsert, args...)
}

func (f *file) saveOnShelf(c *conn, s *shape, row crdt.Row, at place) error {
	record := crdt.AppendRecord(nil, row.Record, row.Writers, &f.dict, nil)
	table := int64(f.dict.Name(row.Table))
	if err := f.dict.flush(c); err != nil {
		return err
	}
	if at == inTable {
		if err := c.exec(s.sql.remove, row.Key); err != nil {
			return err
		}
	}
	return c.exec("INSERT INTO _shelf (tbl, key, record) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET record = excluded.record", table, row.Key, record)
}

// saveWriters moves the row to its newest version in each site's list.
func (f *file) saveWriters(c *conn, row, old crdt.Row) error {
	table := int64(f.dict.Name(row.Table))
	for _, v := range old.Writers {
		if !slices.Contains(row.Writers, v) {
			if err := c.exec("DELETE FROM _version WHERE site = ? AND seq = ? AND tbl = ? AND key = ?", int64(f.dict.Site(v.Site)), int64(v.Seq), table, row.Key); err != nil {
				return err
			}
		}
	}
	for _, v := range row.Writers {
		if !slices.Contains(old.Writers, v) {
			if err := c.exec("INSERT INTO _version (site, seq, tbl, key) VALUES (?, ?, ?, ?)", int64(f.dict.Site(v.Site)), int64(v.Seq), table, row.Key); err != nil {
				return err
			}
		}
	}
	return f.dict.flush(c)
}

// scan calls each for every row, also for those on the shelf.
func (f *file) scan(c *conn, each func(crdt.Row) error) error {
	for _, s := range f.tables {
		err := c.query(s.sql.scan, nil, func(values []driver.Value) error {
			row, err := f.unpack(s, values)
			if err != nil {
				return err
			}
			return each(row)
		})
		if err != nil {
			return fmt.Errorf("read table %s: %w", s.name, err)
		}
	}
	return c.query("SELECT tbl, key, record FROM _shelf", nil, func(values []driver.Value) error {
		table, ok := f.dict.NameAt(uint64(values[0].(int64)))
		if !ok {
			return fmt.Errorf("table %d of a shelved row has no name", values[0])
		}
		row, err := f.unpackShelved(table, values[1].(string), values[2])
		if err != nil {
			return err
		}
		return each(row)
	})
}

func toSQL(v crdt.Value) any {
	switch v.Kind() {
	case crdt.KindInteger:
		return v.Int()
	case crdt.KindReal:
		return v.Float()
	case crdt.KindText:
		return v.Str()
	case crdt.KindBlob:
		return []byte(v.Str())
	default:
		return nil
	}
}

func fromSQL(v driver.Value) crdt.Value {
	switch v := v.(type) {
	case int64:
		return crdt.Integer(v)
	case float64:
		return crdt.Real(v)
	case string:
		return crdt.Text(v)
	case []byte:
		return crdt.Blob(v)
	default:
		return crdt.Null()
	}
}
