package store

import (
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"uncloud/agent/internal/crdt"
)

// shape is one replicated table as it is in the file, which may have been
// migrated by a newer agent than this one.
type shape struct {
	name    string
	key     string
	columns []string                 // without the key and the record
	outside func(column string) bool // it is none of columns: the record keeps its value
	sql     struct{ get, getMany, scan, insert, insertSome, insertMany, upsert, remove string }
}

func newShape(name string, columns []string) *shape {
	s := &shape{name: name, key: columns[0]}
	for _, c := range columns[1:] {
		if c != "_record" {
			s.columns = append(s.columns, c)
		}
	}
	s.outside = func(column string) bool { return !s.holds(column) }
	all := append([]string{quote(s.key), "_record"}, quoteAll(s.columns)...)
	list := strings.Join(all, ", ")
	sets := make([]string, len(all)-1)
	for i, c := range all[1:] {
		sets[i] = c + " = excluded." + c
	}
	s.sql.scan = fmt.Sprintf("SELECT %s FROM %s", list, quote(name))
	s.sql.get = s.sql.scan + fmt.Sprintf(" WHERE %s = ?", quote(s.key))
	s.sql.remove = fmt.Sprintf("DELETE FROM %s WHERE %s = ?", quote(name), quote(s.key))
	s.sql.getMany = fmt.Sprintf("SELECT t.%s FROM json_each(?) AS wanted CROSS JOIN %s AS t ON t.%s = wanted.value",
		strings.Join(all, ", t."), quote(name), quote(s.key))
	values := "(?" + strings.Repeat(", ?", len(all)-1) + ")"
	s.sql.insert = fmt.Sprintf("INSERT INTO %s (%s) VALUES %s", quote(name), list, values)
	s.sql.insertSome = s.sql.insert + strings.Repeat(", "+values, some-1)
	s.sql.insertMany = s.sql.insert + strings.Repeat(", "+values, many-1)
	s.sql.upsert = s.sql.insert + " ON CONFLICT DO UPDATE SET " + strings.Join(sets, ", ")
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

// width is how many arguments a row takes.
func (s *shape) width() int { return 2 + len(s.columns) }

// holds tells whether the table has a column of this name.
func (s *shape) holds(column string) bool { return slices.Contains(s.columns, column) }

// some and many are how many rows one statement writes where there are that
// many: most of the time of a small statement goes into starting it.
const (
	some = 8
	many = 32
)

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

// loadAll fills in what each change finds: its old row, of which it has the
// name, and the place. It is load for many rows, with a few statements for all.
func (f *file) loadAll(c *conn, changes []change) error {
	if len(changes) < some {
		return f.loadEach(c, changes)
	}
	var odd []int // whose keys do not fit into a list
	lists := map[string]*keyList{}
	for i := range changes {
		row := &changes[i].old
		list := lists[row.Table]
		if list == nil {
			list = &keyList{}
			lists[row.Table] = list
		}
		if !list.add(row.Key) {
			odd = append(odd, i)
		}
	}
	for _, i := range odd {
		if err := f.loadEach(c, changes[i:i+1]); err != nil {
			return err
		}
	}
	found := finder{changes: changes}
	for table, list := range lists {
		if err := f.loadMany(c, table, list, found.fill); err != nil {
			return err
		}
	}
	return nil
}

func (f *file) loadEach(c *conn, changes []change) (err error) {
	for i := range changes {
		ch := &changes[i]
		if ch.old, ch.at, err = f.load(c, ch.old.Table, ch.old.Key); err != nil {
			return err
		}
	}
	return nil
}

// finder fills rows in where they are wanted. The index is made for the first
// row that is found: rows that are all new need none.
type finder struct {
	changes []change
	index   map[rowID]int
}

func (f *finder) fill(row crdt.Row, at place) {
	if f.index == nil {
		f.index = make(map[rowID]int, len(f.changes))
		for i, ch := range f.changes {
			f.index[rowID{ch.old.Table, ch.old.Key}] = i
		}
	}
	i := f.index[rowID{row.Table, row.Key}]
	f.changes[i].old, f.changes[i].at = row, at
}

func (f *file) loadMany(c *conn, table string, keys *keyList, each func(crdt.Row, place)) error {
	list, hits := keys.json(), 0
	if s := f.tables[table]; s != nil {
		err := c.query(s.sql.getMany, []any{list}, func(values []driver.Value) error {
			row, err := f.unpack(s, values)
			each(row, inTable)
			hits++
			return err
		})
		if err != nil {
			return err
		}
	}
	n, ok := f.dict.find(table)
	if !ok || hits == keys.count {
		return nil
	}
	if any, err := c.number("SELECT EXISTS (SELECT 1 FROM _shelf WHERE tbl = ?)", int64(n)); any == 0 || err != nil {
		return err
	}
	return c.query("SELECT s.key, s.record FROM json_each(?) AS wanted CROSS JOIN _shelf AS s ON s.tbl = ? AND s.key = wanted.value", []any{list, int64(n)}, func(values []driver.Value) error {
		row, err := f.unpackShelved(table, values[0].(string), values[1])
		each(row, onShelf)
		return err
	})
}

// keyList is keys as a JSON array, by which a statement takes any number of them.
type keyList struct {
	text  []byte
	count int
}

// add appends a key, unless it would not come out of SQLite's JSON as it went in.
func (l *keyList) add(key string) bool {
	if !utf8.ValidString(key) {
		return false
	}
	start := len(l.text)
	if start == 0 {
		l.text = append(make([]byte, 0, some*(len(key)+4)), '[')
	} else {
		l.text = append(l.text, ',')
	}
	l.text = append(l.text, '"')
	for i := range len(key) {
		switch c := key[i]; {
		case c < ' ':
			l.text = l.text[:start]
			return false
		case c == '"' || c == '\\':
			l.text = append(l.text, '\\', c)
		default:
			l.text = append(l.text, c)
		}
	}
	l.text = append(l.text, '"')
	l.count++
	return true
}

// json is the array. No key can be added after it.
func (l *keyList) json() string {
	if l.count == 0 {
		return "[]"
	}
	l.text = append(l.text, ']')
	return string(l.text)
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

// scan calls each for every row, also for those on the shelf.
func (f *file) scan(c *conn, each func(crdt.Row) error) error {
	return f.scanPlaces(c, func(row crdt.Row, _ place) error { return each(row) })
}

func (f *file) scanPlaces(c *conn, each func(crdt.Row, place) error) error {
	for _, s := range f.tables {
		err := c.query(s.sql.scan, nil, func(values []driver.Value) error {
			row, err := f.unpack(s, values)
			if err != nil {
				return err
			}
			return each(row, inTable)
		})
		if err != nil {
			return fmt.Errorf("read table %s: %w", s.name, err)
		}
	}
	return c.query("SELECT tbl, key, record FROM _shelf", nil, func(values []driver.Value) error {
		row, err := f.shelved(values)
		if err != nil {
			return err
		}
		return each(row, onShelf)
	})
}

// shelved reads a line of the shelf: table, key, record.
func (f *file) shelved(values []driver.Value) (crdt.Row, error) {
	table, ok := f.dict.NameAt(uint64(values[0].(int64)))
	if !ok {
		return crdt.Row{}, fmt.Errorf("table %d of a shelved row has no name", values[0])
	}
	return f.unpackShelved(table, values[1].(string), values[2])
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
