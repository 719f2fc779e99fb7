package store

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/spec"
)

// valueOf is a value of any kind.
func valueOf(kind byte, text string, number int64, real float64) crdt.Value {
	switch kind % 5 {
	case 0:
		return crdt.Text(text)
	case 1:
		return crdt.Integer(number)
	case 2:
		return crdt.Real(real)
	case 3:
		return crdt.Blob([]byte(text))
	}
	return crdt.Null()
}

// FuzzDecodeRow is for rows as peers may write them: any value in any column
// of any table of the state. A row is refused, or it is read as something that
// is written and read again as the same.
func FuzzDecodeRow(f *testing.F) {
	var tables []string
	for name := range typedTables {
		tables = append(tables, name)
	}
	slices.Sort(tables)
	for _, row := range everyRow() {
		set, err := typedTables[row.Table()].encode(row)
		if err != nil {
			f.Fatal(err)
		}
		n := slices.Index(tables, row.Table())
		for c, a := range set {
			f.Add(byte(n), byte(c), "id", byte(0), a.Value.Str(), a.Value.Int(), 0.5)
			f.Add(byte(n), byte(c), spec.ClusterKey, byte(1), "", a.Value.Int(), math.NaN())
		}
	}
	for _, text := range []string{"null", "[null]", `{"":null}`, `"x"`, "1e999", "2026-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z", "::ffff:1.2.3.4", "10.0.0.0/99", "fe80::1%eth0"} {
		for n := range tables {
			for c := range typedTables[tables[n]].columns()[1:] {
				f.Add(byte(n), byte(c), "id", byte(0), text, int64(0), 0.0)
			}
		}
	}
	f.Fuzz(func(t *testing.T, table, column byte, key string, kind byte, text string, number int64, real float64) {
		name := tables[int(table)%len(tables)]
		codec := typedTables[name]
		columns := codec.columns()[1:]
		cell := crdt.Cell{Column: columns[int(column)%len(columns)], Ver: 1, Value: valueOf(kind, text, number, real)}
		row, err := codec.decode(key, crdt.Record{CL: 1, Cells: []crdt.Cell{cell}})
		if err != nil {
			return
		}
		if row.Table() != name || row.Key() != key {
			t.Fatalf("%s %q is read as %s %q", name, key, row.Table(), row.Key())
		}
		set, err := codec.encode(row)
		if err != nil {
			t.Fatalf("%+v is read and cannot be written: %v", row, err)
		}
		var again crdt.Record
		again.CL = 1
		for _, a := range set {
			again.Cells = append(again.Cells, crdt.Cell{Column: a.Column, Ver: 1, Value: a.Value})
		}
		slices.SortFunc(again.Cells, func(a, b crdt.Cell) int { return strings.Compare(a.Column, b.Column) })
		same, err := codec.decode(key, again)
		if err != nil {
			t.Fatalf("%+v is written as %+v, which cannot be read: %v", row, set, err)
		}
		if once, err := codec.encode(same); err != nil || !reflect.DeepEqual(once, set) {
			t.Fatalf("%+v is written as %+v, read, and written as %+v, %v", row, set, once, err)
		}
	})
}

// FuzzUnpackKey is for keys as peers may write them: one is refused, or it is
// the only form of what it is read as.
func FuzzUnpackKey(f *testing.F) {
	s, err := Open(f.Context(), Options{Schema: `
		CREATE TABLE plain (id TEXT PRIMARY KEY);
		CREATE TABLE number (n INTEGER PRIMARY KEY);
		CREATE TABLE many (a, b, c, PRIMARY KEY (a, b, c));`})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := s.Close(); err != nil {
			f.Error(err)
		}
	})
	for _, key := range []string{
		"x", "", "[]", "[1]", "[01]", "[ 1]", "[1.0]", "[-0]", "[null]", "[true]", `["x"]`, `["\u0041"]`, `[{}]`, `[9223372036854775808]`,
		`[1,"x",{"real":"1.5"}]`, `[1,"x",{"real":"15e-1"}]`, `[1,"x",{"real":"NaN"}]`, `[1,"x",{"blob":"AQI="}]`, `[1,"x",{"blob":null}]`, `[1,"x",{"real":"1","blob":"AQI="}]`,
	} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		for _, name := range []string{"plain", "number", "many"} {
			table := s.Table(name)
			values, err := table.UnpackKey(key)
			if err != nil {
				continue
			}
			if again, err := table.pack(values); err != nil || again != key {
				t.Fatalf("key %q of table %s is read as %v, whose key is %q, %v", key, name, values, again, err)
			}
		}
	})
}
