package store

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
)

const genericSchema = `
	CREATE TABLE t (id TEXT PRIMARY KEY, a INTEGER, b REAL DEFAULT 1.5, c BLOB, d);
	CREATE TABLE pairs (x INTEGER NOT NULL, y, z TEXT NOT NULL DEFAULT 'none', PRIMARY KEY (y, x));`

func alter(t testing.TB, s *Store, do func(tx *Tx)) Version {
	t.Helper()
	v, err := s.Update(t.Context(), func(tx *Tx) error { do(tx); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func rowsIn(t testing.TB, s *Store, table string) []Values {
	t.Helper()
	rows, err := s.Rows(t.Context(), table)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestRowsOfAGivenSchema(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Schema: genericSchema})
	key := func(v crdt.Value) Values { return Values{"id": v} }
	alter(t, s, func(tx *Tx) {
		tx.PutValues("t", key(crdt.Text("k")), Values{"a": crdt.Integer(math.MinInt64), "b": crdt.Integer(2), "c": crdt.Blob([]byte{0, 255}), "d": crdt.Text("x")})
		tx.PutValues("t", key(crdt.Text("j\x00\"")), nil)
		tx.PatchValues("t", key(crdt.Text("k")), Values{"a": crdt.Integer(7)})
		tx.PutValues("t", key(crdt.Text("gone")), nil)
		tx.DeleteKey("t", key(crdt.Text("gone")))
		for _, y := range []crdt.Value{crdt.Text("1"), crdt.Integer(1), crdt.Real(1), crdt.Blob([]byte("1"))} {
			tx.PutValues("pairs", Values{"x": crdt.Integer(-5), "y": y}, nil)
		}
	})
	other := open(t, Options{Schema: genericSchema})
	pull(t, other, s)
	wantT := []Values{
		{"id": crdt.Text("j\x00\""), "a": crdt.Null(), "b": crdt.Real(1.5), "c": crdt.Null(), "d": crdt.Null()},
		{"id": crdt.Text("k"), "a": crdt.Integer(7), "b": crdt.Real(2), "c": crdt.Blob([]byte{0, 255}), "d": crdt.Text("x")},
	}
	var wantPairs []Values
	for _, y := range []crdt.Value{crdt.Blob([]byte("1")), crdt.Text("1"), crdt.Real(1), crdt.Integer(1)} {
		wantPairs = append(wantPairs, Values{"x": crdt.Integer(-5), "y": y, "z": crdt.Text("none")})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, Options{Dir: dir, Schema: genericSchema})
	for _, s := range []*Store{other, again} {
		if got := rowsIn(t, s, "t"); !reflect.DeepEqual(got, wantT) {
			t.Errorf("got  %v\nwant %v", got, wantT)
		}
		if got := rowsIn(t, s, "pairs"); !reflect.DeepEqual(got, wantPairs) {
			t.Errorf("got  %v\nwant %v", got, wantPairs)
		}
	}
	before := again.Known()
	alter(t, again, func(tx *Tx) {
		tx.PutValues("t", key(crdt.Text("k")), Values{"a": crdt.Integer(7), "b": crdt.Real(2), "c": crdt.Blob([]byte{0, 255}), "d": crdt.Text("x")})
		tx.DeleteKey("t", key(crdt.Text("never")))
	})
	if !again.Known().Equal(before) {
		t.Error("writing what is there made a version")
	}
	alter(t, again, func(tx *Tx) {
		tx.PutValues("t", key(crdt.Text("k")), nil)
		tx.DeleteKey("t", key(crdt.Text("j\x00\"")))
	})
	if got := rowsIn(t, again, "t"); len(got) != 1 || !got[0]["a"].IsNull() || got[0]["b"] != crdt.Real(1.5) {
		t.Errorf("a put without columns left %v", got)
	}
	records, err := again.Records(t.Context(), "t")
	if err != nil || len(records) != 2 || records[0].Record.CL != 2 {
		t.Errorf("records %v, %v", records, err)
	}
}

// What a local write cannot mean is refused, whole, with a code.
func TestValuesThatDoNotFit(t *testing.T) {
	s := open(t, Options{Schema: genericSchema})
	id := Values{"id": crdt.Text("k")}
	alter(t, s, func(tx *Tx) { tx.PutValues("t", id, nil) })
	before, known := digest(t, s), s.Known()
	for name, c := range map[string]struct {
		code faults.Code
		do   func(tx *Tx)
	}{
		"unknown table":    {faults.NotFound, func(tx *Tx) { tx.PutValues("u", id, nil) }},
		"unknown column":   {faults.NotFound, func(tx *Tx) { tx.PutValues("t", id, Values{"e": crdt.Null()}) }},
		"text for integer": {faults.Invalid, func(tx *Tx) { tx.PutValues("t", id, Values{"a": crdt.Text("7")}) }},
		"real for integer": {faults.Invalid, func(tx *Tx) { tx.PatchValues("t", id, Values{"a": crdt.Real(7)}) }},
		"text for blob":    {faults.Invalid, func(tx *Tx) { tx.PutValues("t", id, Values{"c": crdt.Text("7")}) }},
		"lossy real":       {faults.Invalid, func(tx *Tx) { tx.PutValues("t", id, Values{"b": crdt.Integer(1<<53 + 1)}) }},
		"bad UTF-8":        {faults.Invalid, func(tx *Tx) { tx.PutValues("t", id, Values{"d": crdt.Text("\xff")}) }},
		"null": {faults.Invalid, func(tx *Tx) {
			tx.PutValues("pairs", Values{"x": crdt.Integer(1), "y": crdt.Integer(1)}, Values{"z": crdt.Null()})
		}},
		"null key":         {faults.Invalid, func(tx *Tx) { tx.PutValues("t", Values{"id": crdt.Null()}, nil) }},
		"empty key":        {faults.Invalid, func(tx *Tx) { tx.PutValues("t", Values{"id": crdt.Text("")}, nil) }},
		"half a key":       {faults.Invalid, func(tx *Tx) { tx.DeleteKey("pairs", Values{"x": crdt.Integer(1)}) }},
		"key in set":       {faults.Invalid, func(tx *Tx) { tx.PutValues("t", id, Values{"id": crdt.Text("x")}) }},
		"patch of nothing": {faults.NotFound, func(tx *Tx) { tx.PatchValues("t", Values{"id": crdt.Text("l")}, nil) }},
		"too large":        {faults.Invalid, func(tx *Tx) { tx.PutValues("t", id, Values{"d": crdt.Text(strings.Repeat("x", MaxRowBytes))}) }},
	} {
		_, err := s.Update(t.Context(), func(tx *Tx) error {
			tx.PutValues("t", Values{"id": crdt.Text("good")}, nil)
			c.do(tx)
			tx.PutValues("t", Values{"id": crdt.Text("good too")}, nil)
			return nil
		})
		if faults.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if digest(t, s) != before || !s.Known().Equal(known) {
		t.Error("a refused write left something behind")
	}
}

func TestSchemasThatCannotBeReplicated(t *testing.T) {
	for _, sql := range []string{
		"CREATE TABLE t (a)",
		"CREATE TABLE t (a TEXT PRIMARY KEY, b UNIQUE)",
		"CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT)",
		"CREATE TABLE t (a TEXT PRIMARY KEY, b REFERENCES t(a))",
		"CREATE TABLE t (a TEXT PRIMARY KEY, b, FOREIGN KEY (b) REFERENCES t(a))",
		"CREATE TABLE t (a TEXT PRIMARY KEY, b CHECK (b > 0))",
		"CREATE TABLE t (a TEXT PRIMARY KEY, b AS (a || a))",
		"CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY)",
		"CREATE TABLE t (a TEXT PRIMARY KEY, b TEXT NOT NULL)",
		"CREATE TABLE t (a TEXT PRIMARY KEY, _b)",
		"CREATE TABLE _t (a TEXT PRIMARY KEY)",
		"CREATE TABLE t (a TEXT PRIMARY KEY); CREATE INDEX i ON t (a)",
		"CREATE TABLE t (a TEXT PRIMARY KEY); CREATE UNIQUE INDEX i ON t (a)",
		"CREATE TABLE t (a TEXT PRIMARY KEY); INSERT INTO t VALUES (1)",
		"CREATE TABLE t (a, PRIMARY KEY (a + 1))",
		"CREATE VIEW v AS SELECT 1",
		"CREATE TEMP TABLE t (a TEXT PRIMARY KEY)",
		"ATTACH '/nowhere' AS x",
		"CREATE TABLE",
	} {
		if _, err := Open(t.Context(), Options{Schema: sql}); faults.CodeOf(err) != faults.Invalid {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// R10: a new column makes no change of any row, and reads as its default.
func TestNewColumnMakesNoChanges(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Schema: "CREATE TABLE t (id TEXT PRIMARY KEY, a)"})
	alter(t, s, func(tx *Tx) {
		for i := range 1000 {
			tx.PutValues("t", Values{"id": crdt.Text(fmt.Sprint(i))}, Values{"a": crdt.Integer(int64(i))})
		}
	})
	before, known := digest(t, s), s.Known()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Dir: dir, Schema: "CREATE TABLE t (id TEXT PRIMARY KEY, a, b, c INTEGER NOT NULL DEFAULT 5); CREATE TABLE u (x INTEGER PRIMARY KEY)"})
	if digest(t, s) != before || !s.Known().Equal(known) {
		t.Fatal("the new columns changed rows")
	}
	got := rowsIn(t, s, "t")
	if len(got) != 1000 || got[0]["c"] != crdt.Integer(5) || !got[0]["b"].IsNull() {
		t.Fatalf("%d rows, %v", len(got), got[0])
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Dir: dir, Schema: "CREATE TABLE t (id INTEGER PRIMARY KEY)"}); faults.CodeOf(err) != faults.Invalid {
		t.Fatal("the key of a table was changed:", err)
	}
}
