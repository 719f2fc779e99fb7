package store

import (
	"encoding/json"
	"fmt"
	"slices"

	"uncloud/agent/internal/crdt"
)

const (
	versionInsert     = "INSERT INTO _version (site, seq, tbl, key) VALUES (?, ?, ?, ?)"
	versionInsertMany = "INSERT INTO _version (site, seq, tbl, key) SELECT ?, ?, ?, value FROM json_each(?)"
	versionDelete     = "DELETE FROM _version WHERE site = ? AND seq = ? AND tbl = ? AND key = ?"
)

// bulk collects the arguments of one insert until there are enough of them for
// a statement over many rows.
type bulk struct {
	one, some, many string // statements over 1, some and many rows
	args            []any  // of whole rows
	each            int    // arguments of a row
}

// full writes the rows in args if there are many.
func (b *bulk) full(c *conn) error {
	if len(b.args) < many*b.each {
		return nil
	}
	err := c.exec(b.many, b.args...)
	b.args = b.args[:0]
	return err
}

func (b *bulk) flush(c *conn) error {
	for rest := b.args; len(rest) > 0; {
		sql, n := b.one, b.each
		if len(rest) >= some*b.each {
			sql, n = b.some, some*b.each
		}
		if err := c.exec(sql, rest[:n]...); err != nil {
			return err
		}
		rest = rest[n:]
	}
	b.args = b.args[:0]
	return nil
}

// pointers is the keys of rows that versions have come to point to.
type pointers map[versionOf][]string

type versionOf struct {
	crdt.Version
	table int64
}

func (p pointers) save(c *conn, d *dict) error {
	for v, keys := range p {
		site := int64(d.Site(v.Site))
		if err := d.flush(c); err != nil {
			return err
		}
		if len(keys) >= some && !slices.ContainsFunc(keys, func(k string) bool { return !plainText(k) }) {
			list, err := json.Marshal(keys)
			if err == nil {
				err = c.exec(versionInsertMany, site, int64(v.Seq), v.table, string(list))
			}
			if err != nil {
				return err
			}
			continue
		}
		for _, key := range keys {
			if err := c.exec(versionInsert, site, int64(v.Seq), v.table, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// saveAll writes each row over its old one, which load gave with its place. No
// row may be named twice.
func (f *file) saveAll(c *conn, changes []change) error {
	fresh := map[*shape]*bulk{}
	versions := pointers{}
	for _, ch := range changes {
		if err := f.save(c, ch, fresh); err != nil {
			return fmt.Errorf("save %s %q: %w", ch.row.Table, ch.row.Key, err)
		}
		if err := f.saveWriters(c, ch, versions); err != nil {
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
	return f.dict.flush(c)
}

func (f *file) save(c *conn, ch change, fresh map[*shape]*bulk) error {
	s := f.tables[ch.row.Table]
	if s == nil || !ch.row.Record.Alive() {
		return f.saveOnShelf(c, s, ch.row, ch.at)
	}
	if ch.at == nowhere {
		b := fresh[s]
		if b == nil {
			b = &bulk{one: s.sql.insert, some: s.sql.insertSome, many: s.sql.insertMany, each: 2 + len(s.columns)}
			fresh[s] = b
		}
		b.args = f.pack(b.args, s, ch.row)
		return b.full(c)
	}
	if ch.at == onShelf {
		if err := c.exec("DELETE FROM _shelf WHERE tbl = ? AND key = ?", int64(f.dict.Name(ch.row.Table)), ch.row.Key); err != nil {
			return err
		}
	}
	return c.exec(s.sql.upsert, f.pack(nil, s, ch.row)...)
}

// pack appends a row as the insert statements of its table take it.
func (f *file) pack(dst []any, s *shape, row crdt.Row) []any {
	start, width := len(dst), 2+len(s.columns)
	dst = slices.Grow(dst, width)[:start+width]
	args := dst[start:]
	clear(args)
	args[0] = row.Key
	for _, cell := range row.Record.Cells {
		if i := slices.Index(s.columns, cell.Column); i >= 0 {
			args[2+i] = toSQL(cell.Value)
		}
	}
	outside := func(column string) bool { return !s.holds(column) }
	args[1] = crdt.AppendRecord(make([]byte, 0, 48+12*len(row.Record.Cells)), row.Record, row.Writers, &f.dict, outside)
	return dst
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
func (f *file) saveWriters(c *conn, ch change, versions pointers) error {
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
			versions[versionOf{v, table}] = append(versions[versionOf{v, table}], ch.row.Key)
		}
	}
	return nil
}
