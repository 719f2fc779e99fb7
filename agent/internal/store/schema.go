package store

import (
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
)

// Migrations are applied once each, in the order of their names. They only
// ever add: tables, columns, indexes. An older agent, after the host was
// rolled back, then works on with the newer file. A migration that takes this
// away raises min_reader in _meta.
//
//go:embed migrations/*.sql
var migrations embed.FS

// onlyBooks is the scripts that make the bookkeeping and no replicated tables.
type onlyBooks struct{ fs.FS }

func (o onlyBooks) Glob(string) ([]string, error) {
	return fs.Glob(o.FS, "migrations/*_books*.sql")
}

// The guards let a write pass if the guard function says so. It is a call into
// Go for every row; for many rows the writer inserts passMark into a table of
// its connection, which guards see for less. Without the function, as on other
// connections, a write fails before either is asked.
const (
	guardFunction = "uncloud_store_writes"
	passMark      = 0x756e636c6f7564
	passTable     = "CREATE TEMP TABLE _pass (mark INTEGER PRIMARY KEY);"
	passSet       = "INSERT OR REPLACE INTO temp._pass (mark) VALUES (?)"
)

// passing runs do while the guards let everything on c pass. It is for the
// writer within a store transaction.
func (c *conn) passing(do func() error) (err error) {
	if err := c.exec(passSet, int64(passMark)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.exec(passSet, int64(0))) }()
	return do()
}

// migrate brings the file's schema up to this agent's, or leaves a newer one
// as it is. None of it is a change of any row: nothing is replicated for it.
func (f *file) migrate(schema fs.FS) error {
	scripts, err := fs.Glob(schema, "migrations/*.sql")
	if err != nil {
		return err
	}
	version, err := f.w.number("PRAGMA user_version")
	if err != nil {
		return asFault(fmt.Errorf("read the schema version: %w", err))
	}
	if int(version) >= len(scripts) {
		return f.adopt(len(scripts))
	}
	err = f.w.within("BEGIN IMMEDIATE", func() error {
		f.writing = true
		defer func() { f.writing = false }()
		if err := f.run(schema, scripts[version:]); err != nil {
			return err
		}
		return f.upgrade(len(scripts))
	})
	if err != nil {
		return asFault(fmt.Errorf("migrate the store: %w", err))
	}
	return nil
}

func (f *file) run(schema fs.FS, scripts []string) error {
	for _, name := range scripts {
		sql, err := fs.ReadFile(schema, name)
		if err != nil {
			return err
		}
		if err := f.w.script(string(sql)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// upgrade makes the rest of the file fit the new schema.
func (f *file) upgrade(version int) error {
	if err := f.adopt(version); err != nil {
		return err
	}
	if err := f.guardTables(); err != nil {
		return err
	}
	if err := f.settle(); err != nil {
		return err
	}
	return f.w.script(fmt.Sprintf("PRAGMA user_version = %d", version))
}

// adopt reads the schema that the file has. version is this agent's.
func (f *file) adopt(version int) error {
	least, err := f.w.number("SELECT value FROM _meta WHERE key = 'min_reader'")
	if err != nil {
		return asFault(fmt.Errorf("read the store's minimal version: %w", err))
	}
	if int(least) > version {
		return faults.New(faults.Conflict, "the store was written by a newer agent (schema %d, this agent has %d)", least, version).
			WithHint("start the newer agent again")
	}
	f.tables = map[string]*shape{}
	err = f.w.query(`SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE '\_%' ESCAPE '\' AND m.name NOT LIKE 'sqlite%' ORDER BY m.name, c.pk = 0, c.cid`, nil, f.adoptColumn())
	if err != nil {
		return fmt.Errorf("read the schema: %w", err)
	}
	return f.reload()
}

func (f *file) adoptColumn() func([]driver.Value) error {
	columns := map[string][]string{}
	return func(row []driver.Value) error {
		table, column := row[0].(string), row[1].(string)
		columns[table] = append(columns[table], column)
		f.tables[table] = newShape(table, columns[table])
		return nil
	}
}

// guardTables makes every write to a replicated table fail outside of a store
// transaction, so that none escapes being recorded. Guards that earlier agents
// made are made anew. They look after the row was written, which costs less and
// undoes the statement just as well.
func (f *file) guardTables() error {
	var sql []string
	err := f.w.query(`SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '\_guard\_%' ESCAPE '\'`, nil, func(row []driver.Value) error {
		sql = append(sql, "DROP TRIGGER "+quote(row[0].(string)))
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the guards: %w", err)
	}
	for name := range f.tables {
		for _, verb := range []string{"INSERT", "UPDATE", "DELETE"} {
			sql = append(sql, fmt.Sprintf("CREATE TRIGGER %s AFTER %s ON %s WHEN last_insert_rowid() IS NOT %d AND NOT %s() BEGIN SELECT RAISE(ABORT, 'write outside of a store transaction'); END",
				quote("_guard_"+name+"_"+strings.ToLower(verb)), verb, quote(name), passMark, guardFunction))
		}
	}
	if err := f.w.script(strings.Join(sql, ";")); err != nil {
		return fmt.Errorf("guard the tables: %w", err)
	}
	return nil
}

// settle moves what newer agents wrote, and was kept packed, into the tables
// and columns that a migration has just made. Records stay as they are.
func (f *file) settle() error {
	var all []change
	err := f.scanPlaces(f.w, func(row crdt.Row, at place) error {
		all = append(all, change{old: row, row: row, at: at})
		return nil
	})
	if err != nil {
		return err
	}
	err = f.attempt(f.w, func() error { return f.saveAll(f.w, all) })
	if refusedByTable(err) {
		return f.saveEach(f.w, all)
	}
	return err
}

// number runs a query for one integer, 0 where there is no row.
func (c *conn) number(sql string, args ...any) (n int64, err error) {
	err = c.query(sql, args, func(row []driver.Value) error {
		var ok bool
		if n, ok = row[0].(int64); !ok {
			return fmt.Errorf("%q gave %T", sql, row[0])
		}
		return nil
	})
	return n, err
}
