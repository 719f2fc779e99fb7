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
	one, many string
	args      []any // of whole rows
	each      int   // arguments of a row
}

func (b *bulk) add(c *conn, args ...any) error {
	b.args, b.each = append(b.args, args...), len(args)
	if len(b.args) < many*b.each {
		return nil
	}
	err := c.exec(b.many, b.args...)
	b.args = b.args[:0]
	return err
}

func (b *bulk) flush(c *conn) error {
	for rest := b.args; len(rest) > 0; rest = rest[b.each:] {
		if err := c.exec(b.one, rest[:b.each]...); err != nil {
			return err
		}
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
		if len(keys) >= many && !slices.ContainsFunc(keys, func(k string) bool { return !plainText(k) }) {
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
	args := f.pack(s, ch.row)
	switch ch.at {
	case nowhere:
		if fresh[s] == nil {
			fresh[s] = &bulk{one: s.sql.insert, many: s.sql.insertMany}
		}
		return fresh[s].add(c, args...)
	case onShelf:
		if err := c.exec("DELETE FROM _shelf WHERE tbl = ? AND key = ?", int64(f.dict.Name(ch.row.Table)), ch.row.Key); err != nil {
			return err
		}
	}
	return c.exec(s.sql.upsert, args...)
}

// pack is a row as the insert statements of its table take it.
func (f *file) pack(s *shape, row crdt.Row) []any {
	args := make([]any, 2+len(s.columns))
	args[0] = row.Key
	for _, cell := range row.Record.Cells {
		if i := slices.Index(s.columns, cell.Column); i >= 0 {
			args[2+i] = toSQL(cell.Value)
		}
	}
	outside := func(column string) bool { return !s.holds(column) }
	args[1] = crdt.AppendRecord(make([]byte, 0, 48+12*len(row.Record.Cells)), row.Record, row.Writers, &f.dict, outside)
	return args
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
