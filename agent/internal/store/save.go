package store

import (
	"fmt"
	"slices"

	"uncloud/agent/internal/crdt"
)

const (
	versionInsert     = "INSERT INTO _version (site, seq, tbl, key) VALUES (?, ?, ?, ?)"
	versionInsertMany = "INSERT INTO _version (site, seq, tbl, key) SELECT ?, ?, ?, value FROM json_each(?)"
	versionDelete     = "DELETE FROM _version WHERE site = ? AND seq = ? AND tbl = ? AND key = ?"
)

// bulk collects the new rows of one table until there are enough of them for a
// statement over many.
type bulk struct {
	shape   *shape
	args    []any  // of whole rows
	records []byte // those in args, one after another
}

// full writes the rows in args if there are many.
func (b *bulk) full(c *conn) error {
	if len(b.args) < many*b.shape.width() {
		return nil
	}
	err := c.exec(b.shape.sql.insertMany, b.args...)
	b.args, b.records = b.args[:0], b.records[:0]
	return err
}

func (b *bulk) flush(c *conn) error {
	width := b.shape.width()
	for rest := b.args; len(rest) > 0; {
		sql, n := b.shape.sql.insert, width
		if len(rest) >= some*width {
			sql, n = b.shape.sql.insertSome, some*width
		}
		if err := c.exec(sql, rest[:n]...); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// pointers is the rows that versions have come to point to.
type pointers struct {
	lists map[versionOf]*pointed
	last  *pointed // used last, and most likely next
}

type versionOf struct {
	crdt.Version
	table int64
}

// pointed is the keys of one version and table.
type pointed struct {
	of   versionOf
	keys []string
}

func (p *pointers) add(v versionOf, key string, room int) {
	if p.last == nil || p.last.of != v {
		if p.lists == nil {
			p.lists = map[versionOf]*pointed{}
		}
		p.last = p.lists[v]
		if p.last == nil {
			p.last = &pointed{of: v, keys: make([]string, 0, room)}
			p.lists[v] = p.last
		}
	}
	p.last.keys = append(p.last.keys, key)
}

func (p *pointers) save(c *conn, d *dict) error {
	for v, list := range p.lists {
		site := int64(d.Site(v.Site))
		if err := d.flush(c); err != nil {
			return err
		}
		if err := list.save(c, site); err != nil {
			return err
		}
	}
	return nil
}

func (p *pointed) save(c *conn, site int64) error {
	one, together := p.keys, keyList{}
	if len(p.keys) >= some {
		one = nil
		for _, key := range p.keys {
			if !together.add(key) {
				one = append(one, key)
			}
		}
	}
	for _, key := range one {
		if err := c.exec(versionInsert, site, int64(p.of.Seq), p.of.table, key); err != nil {
			return err
		}
	}
	if together.count == 0 {
		return nil
	}
	return c.exec(versionInsertMany, site, int64(p.of.Seq), p.of.table, together.json())
}

// saveAll writes each row over its old one, which load gave with its place. No
// row may be named twice.
func (f *file) saveAll(c *conn, changes []change) error {
	save := func() error { return f.saveRows(c, changes) }
	var err error
	if len(changes) < many {
		err = save()
	} else {
		err = c.passing(save)
	}
	if err != nil {
		return err
	}
	return f.dict.flush(c)
}

func (f *file) saveRows(c *conn, changes []change) error {
	fresh := map[*shape]*bulk{}
	var versions pointers
	for i := range changes {
		ch, left := &changes[i], len(changes)-i
		if err := f.save(c, ch, fresh, left); err != nil {
			return fmt.Errorf("save %s %q: %w", ch.row.Table, ch.row.Key, err)
		}
		if err := f.saveWriters(c, ch, &versions, left); err != nil {
			return fmt.Errorf("save the versions of %s %q: %w", ch.row.Table, ch.row.Key, err)
		}
		if err := f.release(c, ch.row); err != nil {
			return err
		}
	}
	for s, b := range fresh {
		if err := b.flush(c); err != nil {
			return fmt.Errorf("insert into %s: %w", s.name, err)
		}
	}
	if err := versions.save(c, &f.dict); err != nil {
		return fmt.Errorf("insert versions: %w", err)
	}
	return nil
}

// save writes one row, or puts it into the bulk of its table in fresh. left is
// how many rows may be expected there, this one included.
func (f *file) save(c *conn, ch *change, fresh map[*shape]*bulk, left int) error {
	s := f.tables[ch.row.Table]
	if s == nil || !ch.row.Record.Alive() {
		return f.saveOnShelf(c, s, ch.row, ch.at)
	}
	if ch.at == nowhere {
		b := fresh[s]
		if b == nil {
			room := min(left, many)
			b = &bulk{shape: s, args: make([]any, 0, room*s.width()), records: make([]byte, 0, room*recordRoom(s))}
			fresh[s] = b
		}
		f.pack(b, ch.row)
		return b.full(c)
	}
	if ch.at == onShelf {
		if err := c.exec("DELETE FROM _shelf WHERE tbl = ? AND key = ?", int64(f.dict.Name(ch.row.Table)), ch.row.Key); err != nil {
			return err
		}
	}
	one := bulk{shape: s}
	f.pack(&one, ch.row)
	return c.exec(s.sql.upsert, one.args...)
}

// recordRoom is about how many bytes a packed record of the table takes, with
// one writer and without values.
func recordRoom(s *shape) int { return 24 + 5*len(s.columns) }

// pack appends a row to a bulk.
func (f *file) pack(b *bulk, row crdt.Row) {
	s, start := b.shape, len(b.args)
	b.args = slices.Grow(b.args, s.width())[:start+s.width()]
	args := b.args[start:]
	clear(args)
	args[0] = row.Key
	for _, cell := range row.Record.Cells {
		if i := slices.Index(s.columns, cell.Column); i >= 0 {
			args[2+i] = toSQL(cell.Value)
		}
	}
	begin := len(b.records)
	b.records = crdt.AppendRecord(b.records, row.Record, row.Writers, &f.dict, s.outside)
	args[1] = b.records[begin:len(b.records):len(b.records)]
}

func (f *file) saveOnShelf(c *conn, s *shape, row crdt.Row, at place) error {
	record := crdt.AppendRecord(nil, row.Record, row.Writers, &f.dict, nil)
	if at == inTable {
		if err := c.exec(s.sql.remove, row.Key); err != nil {
			return err
		}
	}
	return c.exec("INSERT INTO _shelf (tbl, key, record) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET record = excluded.record", int64(f.dict.Name(row.Table)), row.Key, record)
}

// saveWriters moves the row to its newest version in each site's list.
func (f *file) saveWriters(c *conn, ch *change, versions *pointers, left int) error {
	table := int64(f.dict.Name(ch.row.Table))
	for _, v := range ch.old.Writers {
		if !slices.Contains(ch.row.Writers, v) {
			if err := c.exec(versionDelete, int64(f.dict.Site(v.Site)), int64(v.Seq), table, ch.row.Key); err != nil {
				return err
			}
		}
	}
	for _, v := range ch.row.Writers {
		if !slices.Contains(ch.old.Writers, v) {
			versions.add(versionOf{v, table}, ch.row.Key, left)
		}
	}
	return nil
}
