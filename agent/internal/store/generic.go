package store

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mattn/go-sqlite3"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
)

// Table is one table of Options.Schema.
type Table struct {
	Name    string
	Columns []Column // in the order of the statement
	Key     []int    // indexes into Columns, in the order of the primary key
	sorted  []int    // the other columns, by name
	plain   bool     // the key is one column of text, which is then Row.Key itself
	byName  map[string]int
}

// Column is one column of a Table.
type Column struct {
	Name    string
	Type    string // as declared; empty for any
	NotNull bool
	Default crdt.Value // what a column that was never written reads as
	kind    affinity
}

// affinity is which values a column takes from a local write. What other
// machines send is kept as it is, whatever it is.
type affinity int

const (
	anyValue affinity = iota
	integers
	numbers // integers and reals
	reals
	texts
	blobs
)

// ParseSchema reads plain CREATE TABLE statements, each with a primary key. It
// refuses with faults.Invalid what two replicas can each satisfy and a merge
// cannot (unique columns, foreign keys, checks, autoincrement), and what has no
// meaning here (generated columns, collations, expressions as keys).
func ParseSchema(sql string) ([]Table, error) {
	c, err := openConn(":memory:", "", allowTablesOnly)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.close() }() // in memory
	if err := c.script(sql); err != nil {
		return nil, invalidSchema("%v", err)
	}
	var tables []Table
	err = c.query("SELECT type, name, sql FROM sqlite_schema ORDER BY rowid", nil, func(row []driver.Value) error {
		kind, name := row[0].(string), row[1].(string)
		text, _ := row[2].(string)
		switch {
		case kind == "index" && text == "":
			return nil // of a primary key; others are found by their table
		case kind != "table" || strings.HasPrefix(name, "_"):
			return invalidSchema("%s %s: only tables whose names do not begin with an underscore can be replicated", kind, name)
		case name == "sqlite_sequence":
			return invalidSchema("AUTOINCREMENT cannot be replicated: two machines would give the same number")
		}
		tables = append(tables, Table{Name: name, byName: map[string]int{}})
		return refuseClauses(name, text)
	})
	if err != nil {
		return nil, err
	}
	for i := range tables {
		if err := tables[i].read(c); err != nil {
			return nil, err
		}
	}
	return tables, nil
}

func invalidSchema(format string, args ...any) error {
	return faults.New(faults.Invalid, "the schema cannot be used: "+format, args...).
		WithHint("use plain CREATE TABLE statements, each with a primary key")
}

// allowTablesOnly lets a schema make tables and nothing else.
func allowTablesOnly(c *sqlite3.SQLiteConn) error {
	refused := []int{
		sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_CREATE_TRIGGER, sqlite3.SQLITE_CREATE_VIEW,
		sqlite3.SQLITE_CREATE_VTABLE, sqlite3.SQLITE_CREATE_TEMP_TABLE, sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_ALTER_TABLE, sqlite3.SQLITE_DELETE,
	}
	c.RegisterAuthorizer(func(op int, table, _, _ string) int {
		write := op == sqlite3.SQLITE_INSERT || op == sqlite3.SQLITE_UPDATE
		if slices.Contains(refused, op) || write && !strings.HasPrefix(table, "sqlite_") {
			return sqlite3.SQLITE_DENY
		}
		return sqlite3.SQLITE_OK
	})
	return nil
}

var clause = regexp.MustCompile(`(?i)\b(CHECK|COLLATE|REFERENCES|GENERATED)\b|\bAS\s*\(`)

func refuseClauses(table, sql string) error {
	if found := clause.FindString(sql); found != "" {
		return invalidSchema("table %s: %s cannot be replicated", table, strings.ToUpper(found))
	}
	return nil
}

// read fills in the columns and the key.
func (t *Table) read(c *conn) error {
	type part struct{ order, column int }
	var key []part
	var defaults []string
	err := c.query("SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_xinfo(?)", []any{t.Name}, func(row []driver.Value) error {
		col := Column{Name: row[0].(string), Type: row[1].(string), NotNull: row[2].(int64) != 0}
		col.kind = affinityOf(col.Type)
		text, _ := row[3].(string)
		defaults = append(defaults, text)
		if pk := int(row[4].(int64)); pk > 0 {
			key = append(key, part{pk, len(t.Columns)})
		}
		t.byName[col.Name] = len(t.Columns)
		t.Columns = append(t.Columns, col)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(key, func(a, b part) int { return a.order - b.order })
	for _, p := range key {
		t.Key = append(t.Key, p.column)
	}
	if len(t.Key) == 0 {
		return invalidSchema("table %s has no primary key", t.Name)
	}
	for i := range t.Columns {
		if !slices.Contains(t.Key, i) {
			t.sorted = append(t.sorted, i)
		}
	}
	slices.SortFunc(t.sorted, func(a, b int) int { return strings.Compare(t.Columns[a].Name, t.Columns[b].Name) })
	t.plain = len(t.Key) == 1 && t.Columns[t.Key[0]].kind == texts
	return errors.Join(t.readDefaults(c, defaults), t.refuseIndexes(c))
}

func (t *Table) readDefaults(c *conn, defaults []string) error {
	for i, text := range defaults {
		col := &t.Columns[i]
		if strings.HasPrefix(col.Name, "_") {
			return invalidSchema("column %s.%s: names that begin with an underscore are taken", t.Name, col.Name)
		}
		if slices.Contains(t.Key, i) {
			continue
		}
		if text != "" {
			err := c.query("SELECT "+text, nil, func(row []driver.Value) error {
				col.Default = fromSQL(row[0])
				return nil
			})
			if err != nil {
				return invalidSchema("column %s.%s: default %s: %v", t.Name, col.Name, text, err)
			}
		}
		if col.NotNull && col.Default.IsNull() {
			return invalidSchema("column %s.%s is NOT NULL and has no default, which a row of another machine could not satisfy", t.Name, col.Name)
		}
	}
	return nil
}

func (t *Table) refuseIndexes(c *conn) error {
	return c.query("SELECT origin FROM pragma_index_list(?)", []any{t.Name}, func(row []driver.Value) error {
		if origin := row[0].(string); origin != "pk" {
			return invalidSchema("table %s: unique columns and indexes cannot be replicated", t.Name)
		}
		return nil
	})
}

// affinityOf follows SQLite's rules for declared types.
func affinityOf(declared string) affinity {
	d := strings.ToUpper(declared)
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(d, p) })
	}
	switch {
	case d == "" || d == "ANY":
		return anyValue
	case has("INT"):
		return integers
	case has("CHAR", "CLOB", "TEXT"):
		return texts
	case has("BLOB"):
		return blobs
	case has("REAL", "FLOA", "DOUB"): //nolint:misspell // as SQLite spells its rule
		return reals
	}
	return numbers
}

// fit is v as the column keeps it, or why it cannot.
func (col Column) fit(table string, v crdt.Value) (crdt.Value, error) {
	k := v.Kind()
	switch {
	case k == crdt.KindNull && col.NotNull:
		return v, faults.New(faults.Invalid, "column %s.%s is never NULL", table, col.Name)
	case k == crdt.KindText && !utf8.ValidString(v.Str()):
		return v, faults.New(faults.Invalid, "column %s.%s: the text is no valid UTF-8", table, col.Name)
	case k == crdt.KindNull || col.kind == anyValue:
		return v, nil
	case k == crdt.KindInteger && col.kind == reals && int64(float64(v.Int())) == v.Int() && v.Int() != math.MaxInt64:
		return crdt.Real(float64(v.Int())), nil
	case k == crdt.KindInteger && (col.kind == integers || col.kind == numbers),
		k == crdt.KindReal && (col.kind == reals || col.kind == numbers),
		k == crdt.KindText && col.kind == texts,
		k == crdt.KindBlob && col.kind == blobs:
		return v, nil
	}
	return v, faults.New(faults.Invalid, "column %s.%s is %s, the value is %s", table, col.Name, col.Type, kindName(k))
}

func kindName(k crdt.Kind) string {
	return [...]string{"NULL", "a blob", "text", "a real number", "an integer"}[k]
}

// extend makes the file hold the tables of a schema. Tables and columns are
// only ever added, and none of it is a change of any row.
func (f *file) extend(tables []Table) error {
	var sql []string
	for _, t := range tables {
		have := f.tables[t.Name]
		if have == nil {
			sql = append(sql, t.create())
			continue
		}
		if have.key != t.keyColumn() {
			return invalidSchema("table %s: the primary key cannot be changed", t.Name)
		}
		for i, col := range t.Columns {
			if !slices.Contains(t.Key, i) && !have.holds(col.Name) {
				sql = append(sql, fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s ANY", quote(t.Name), quote(col.Name)))
			}
		}
	}
	if len(sql) == 0 {
		return nil
	}
	version, err := f.w.number("PRAGMA user_version")
	if err != nil {
		return err
	}
	return asFault(f.w.within("BEGIN IMMEDIATE", func() error {
		f.writing = true
		defer func() { f.writing = false }()
		if err := f.w.script(strings.Join(sql, ";")); err != nil {
			return fmt.Errorf("extend the schema: %w", err)
		}
		return f.upgrade(int(version))
	}))
}

func (t *Table) keyColumn() string {
	if t.plain {
		return t.Columns[t.Key[0]].Name
	}
	return "_key"
}

func (t *Table) create() string {
	columns := []string{quote(t.keyColumn()) + " TEXT PRIMARY KEY NOT NULL"}
	for i, col := range t.Columns {
		if !slices.Contains(t.Key, i) {
			columns = append(columns, quote(col.Name)+" ANY")
		}
	}
	return fmt.Sprintf("CREATE TABLE %s (%s, _record BLOB NOT NULL) STRICT, WITHOUT ROWID", quote(t.Name), strings.Join(columns, ", "))
}
