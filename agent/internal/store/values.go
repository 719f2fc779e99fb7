package store

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
)

// Values is cells by their column.
type Values map[string]crdt.Value

// valueRow is what a Tx does to a row of Options.Schema.
type valueRow struct {
	table *Table
	base  valueBase
	set   []setCell // by column
}

// setCell is what one column was set to, if it was.
type setCell struct {
	value crdt.Value
	given bool
}

// valueBase is what the columns hold that were not set.
type valueBase int

const (
	present  valueBase = iota // what is there; there must be a row
	defaults                  // their defaults
	removed                   // nothing: the row goes
)

// PutValues writes a whole row of a table of Options.Schema: columns that set
// does not name get their default. Only columns that differ from the row that
// is there count as changed. A key or value that does not fit makes the Update
// fail with faults.Invalid, an unknown table or column with faults.NotFound.
func (tx *Tx) PutValues(table string, key, set Values) {
	tx.change(table, key, func(r *valueRow) error {
		r.base = defaults
		clear(r.set)
		return r.assign(set)
	})
}

// PatchValues writes some columns of a row that is there; where it is not, the
// Update fails with faults.NotFound.
func (tx *Tx) PatchValues(table string, key, set Values) {
	tx.change(table, key, func(r *valueRow) error {
		if r.base == removed {
			return faults.New(faults.NotFound, "the row of table %s to patch is not there", table)
		}
		return r.assign(set)
	})
}

// DeleteKey removes a row. Deleting what is not there changes nothing.
func (tx *Tx) DeleteKey(table string, key Values) {
	tx.change(table, key, func(r *valueRow) error {
		r.base = removed
		return nil
	})
}

func (tx *Tx) change(table string, key Values, do func(*valueRow) error) {
	if tx.err != nil {
		return
	}
	r, err := tx.valueRow(table, key)
	if err == nil {
		err = do(r)
	}
	tx.err = err
}

func (tx *Tx) valueRow(table string, key Values) (*valueRow, error) {
	t := tx.store.generic[table]
	if t == nil {
		return nil, faults.New(faults.NotFound, "there is no table %q", table)
	}
	packed, err := t.pack(key)
	if err != nil {
		return nil, err
	}
	id := rowID{table, packed}
	r := tx.values[id]
	if r == nil {
		if tx.values == nil {
			tx.values = map[rowID]*valueRow{}
		}
		r = tx.rows.next(t)
		tx.values[id] = r
		tx.order = append(tx.order, id)
	}
	return r, nil
}

// rowRoom makes value rows many at a time.
type rowRoom struct {
	rows []valueRow
	set  []setCell
	size int // of the next piece
}

func (room *rowRoom) next(t *Table) *valueRow {
	width := len(t.Columns)
	if len(room.rows) == 0 || len(room.set) < width {
		room.size = min(max(1, 2*room.size), many)
		room.rows, room.set = make([]valueRow, room.size), make([]setCell, room.size*width)
	}
	r := &room.rows[0]
	r.table, r.set = t, room.set[:width:width]
	room.rows, room.set = room.rows[1:], room.set[width:]
	return r
}

func (r *valueRow) assign(set Values) error {
	for name, v := range set {
		i, ok := r.table.byName[name]
		if !ok {
			return faults.New(faults.NotFound, "table %s has no column %q", r.table.Name, name)
		}
		if slices.Contains(r.table.Key, i) {
			return faults.New(faults.Invalid, "column %s.%s is part of the key and cannot be set", r.table.Name, name)
		}
		v, err := r.table.Columns[i].fit(r.table.Name, v)
		if err != nil {
			return err
		}
		r.set[i] = setCell{v, true}
	}
	return nil
}

// assignments is what to write over the row that is there; nil to delete it.
// They take the place of those in set, which may be nil.
func (r *valueRow) assignments(set []crdt.Assignment, old crdt.Row) ([]crdt.Assignment, error) {
	alive := old.Record.Alive()
	switch {
	case r.base == removed:
		return nil, nil
	case r.base == present && !alive:
		return nil, faults.New(faults.NotFound, "table %s has no row %q", old.Table, old.Key)
	}
	if set = set[:0]; set == nil {
		set = make([]crdt.Assignment, 0, len(r.set))
	}
	for _, i := range r.table.sorted {
		col, v, given := &r.table.Columns[i], r.set[i].value, r.set[i].given
		if !given {
			v = col.Default
		}
		// A row that is born has cells only for what was given: who adds a
		// default later means it for this row too.
		write := given && !alive || alive && (given || r.base == defaults) && col.of(old.Record) != v
		if write {
			set = append(set, crdt.Assignment{Column: col.Name, Value: v})
		}
	}
	return set, nil
}

// of is what the column holds in a living row.
func (col Column) of(r crdt.Record) crdt.Value {
	if cell, ok := r.Find(col.Name); ok {
		return cell.Value
	}
	return col.Default
}

// pack is the Row.Key of a key: the text itself where the key is one column of
// text, else a JSON array in which reals and blobs are marked, so that equal
// keys and only those have equal forms.
func (t *Table) pack(key Values) (string, error) {
	if len(key) != len(t.Key) {
		return "", faults.New(faults.Invalid, "the key of table %s has %d columns, %d were given", t.Name, len(t.Key), len(key))
	}
	out := []byte{'['}
	for n, i := range t.Key {
		v, ok := key[t.Columns[i].Name]
		if !ok || v.IsNull() {
			return "", faults.New(faults.Invalid, "column %s.%s of the key is missing", t.Name, t.Columns[i].Name)
		}
		v, err := t.Columns[i].fit(t.Name, v)
		if err != nil {
			return "", err
		}
		if t.plain {
			if v.Str() == "" {
				return "", faults.New(faults.Invalid, "the key of table %s is empty", t.Name)
			}
			return v.Str(), nil
		}
		if n > 0 {
			out = append(out, ',')
		}
		out = appendKey(out, v)
	}
	return string(append(out, ']')), nil
}

func appendKey(out []byte, v crdt.Value) []byte {
	switch v.Kind() {
	case crdt.KindInteger:
		return strconv.AppendInt(out, v.Int(), 10)
	case crdt.KindReal:
		return fmt.Appendf(out, `{"real":"%s"}`, strconv.FormatFloat(v.Float(), 'g', -1, 64))
	case crdt.KindBlob:
		return fmt.Appendf(out, `{"blob":"%s"}`, base64.StdEncoding.EncodeToString([]byte(v.Str())))
	}
	text, _ := json.Marshal(v.Str()) // valid UTF-8 always can be
	return append(out, text...)
}

// UnpackKey is the key columns of a Row.Key of the table. A key has one form:
// a peer's row with any other is none that anybody could name, and an error.
func (t *Table) UnpackKey(key string) (Values, error) {
	out, err := t.unpack(key)
	if err != nil {
		return nil, err
	}
	if again, err := t.pack(out); err != nil || again != key {
		return nil, fmt.Errorf("key %q is none of table %s", key, t.Name)
	}
	return out, nil
}

func (t *Table) unpack(key string) (Values, error) {
	if t.plain {
		return Values{t.Columns[t.Key[0]].Name: crdt.Text(key)}, nil
	}
	var parts []json.RawMessage
	if err := json.Unmarshal([]byte(key), &parts); err != nil || len(parts) != len(t.Key) {
		return nil, fmt.Errorf("key %q is none of table %s", key, t.Name)
	}
	out := Values{}
	for n, i := range t.Key {
		v, err := parseKey(parts[n])
		if err != nil {
			return nil, fmt.Errorf("key %q of table %s: %w", key, t.Name, err)
		}
		out[t.Columns[i].Name] = v
	}
	return out, nil
}

func parseKey(part json.RawMessage) (crdt.Value, error) {
	switch part[0] {
	case '"':
		var s string
		err := json.Unmarshal(part, &s)
		return crdt.Text(s), err
	case '{':
		var m struct {
			Real string `json:"real"`
			Blob []byte `json:"blob"`
		}
		if err := json.Unmarshal(part, &m); err != nil {
			return crdt.Value{}, err
		}
		if m.Real == "" {
			return crdt.Blob(m.Blob), nil
		}
		f, err := strconv.ParseFloat(m.Real, 64)
		return crdt.Real(f), err
	}
	i, err := strconv.ParseInt(string(part), 10, 64)
	return crdt.Integer(i), err
}

// Table is a table of Options.Schema, or nil.
func (s *Store) Table(name string) *Table { return s.generic[name] }

// Rows is the living rows of a table of Options.Schema with all its columns,
// sorted by key. It fails with faults.NotFound for an unknown table.
func (s *Store) Rows(ctx context.Context, table string) ([]Values, error) {
	t := s.generic[table]
	if t == nil {
		return nil, faults.New(faults.NotFound, "there is no table %q", table)
	}
	records, err := s.Records(ctx, table)
	if err != nil {
		return nil, err
	}
	var out []Values
	for _, row := range records {
		if !row.Record.Alive() {
			continue
		}
		v, err := t.Values(row)
		if err != nil {
			s.log.Debug("row with an impossible key is left out", "table", table, "key", row.Key, "err", err)
			continue
		}
		out = append(out, v)
	}
	slices.SortFunc(out, t.compare)
	return out, nil
}

// Values is every column of a living row.
func (t *Table) Values(row crdt.Row) (Values, error) {
	out, err := t.UnpackKey(row.Key)
	if err != nil {
		return nil, err
	}
	for _, i := range t.sorted {
		out[t.Columns[i].Name] = t.Columns[i].of(row.Record)
	}
	return out, nil
}

func (t *Table) compare(a, b Values) int {
	for _, i := range t.Key {
		if c := a[t.Columns[i].Name].Compare(b[t.Columns[i].Name]); c != 0 {
			return c
		}
	}
	return 0
}

// Records is every row of a table as it is replicated, tombstones too, sorted
// by its packed key. The table need not be one of Options.Schema: rows of a
// table that only newer agents know are given as well.
func (s *Store) Records(ctx context.Context, table string) ([]crdt.Row, error) {
	var out []crdt.Row
	err := s.snapshot(ctx, func(c *conn) error {
		return s.file.scan(c, func(row crdt.Row) error {
			if row.Table == table {
				out = append(out, row)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the records of %s: %w", table, err)
	}
	slices.SortFunc(out, func(a, b crdt.Row) int { return cmp.Compare(a.Key, b.Key) })
	return out, nil
}
