package crdt

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func site(n byte) SiteID { return SiteID{15: n} }

func drawValue(t *rapid.T) Value {
	return rapid.SampledFrom([]Value{
		Null(), Blob(nil), Blob([]byte("z")), Text(""), Text("a"), Text("b"), Real(-1.5), Real(9.9), Integer(-3), Integer(7),
	}).Draw(t, "value")
}

// drawRecord draws from a small world, so that equal counts, stamps and
// values are common.
func drawRecord(t *rapid.T) Record {
	r := Record{
		CL:    rapid.Uint64Range(1, 4).Draw(t, "cl"),
		Stamp: Stamp(rapid.Uint64Range(1, 3).Draw(t, "stamp")),
		Site:  site(rapid.ByteRange(1, 3).Draw(t, "site")),
	}
	if !r.Alive() {
		return r
	}
	for _, column := range []string{"a", "b", "c"} {
		if rapid.Bool().Draw(t, "has "+column) {
			r.Cells = append(r.Cells, Cell{
				Column: column,
				Ver:    rapid.Uint64Range(1, 3).Draw(t, "ver"),
				Stamp:  Stamp(rapid.Uint64Range(1, 3).Draw(t, "cell stamp")),
				Site:   site(rapid.ByteRange(1, 3).Draw(t, "cell site")),
				Value:  drawValue(t),
			})
		}
	}
	return r
}

func mustEqual(t interface {
	Helper()
	Fatalf(string, ...any)
}, what string, a, b Record) {
	t.Helper()
	if !a.Equal(b) {
		t.Fatalf("%s:\n%+v\n%+v", what, a, b)
	}
}

func TestMergeIsAJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawRecord(t), drawRecord(t), drawRecord(t)
		ab := Merge(a, b)
		mustEqual(t, "commutative", ab, Merge(b, a))
		mustEqual(t, "associative", Merge(ab, c), Merge(a, Merge(b, c)))
		mustEqual(t, "idempotent", Merge(a, a), a)
		mustEqual(t, "absorbs", Merge(ab, a), ab)
		if err := ab.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMergeNeverGoesDown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawRecord(t), drawRecord(t)
		m := Merge(a, b)
		if m.CL < max(a.CL, b.CL) {
			t.Fatalf("causal length fell to %d", m.CL)
		}
		for _, r := range []Record{a, b} {
			for _, c := range r.Cells {
				if now, _ := m.Find(c.Column); r.CL == m.CL && now.Ver < c.Ver {
					t.Fatalf("column %s fell from %d to %d", c.Column, c.Ver, now.Ver)
				}
			}
		}
	})
}

// A write that has seen a record beats it under any clock.
func TestCausalWriteWins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seen := drawRecord(t)
		at := Stamp(rapid.Uint64Range(0, 5).Draw(t, "at"))
		value := drawValue(t)
		next, changed := seen.Put([]Assignment{{"a", value}}, at, site(rapid.ByteRange(1, 3).Draw(t, "by")))
		merged := Merge(seen, next)
		mustEqual(t, "put after seen", merged, next)
		if got, _ := merged.Find("a"); got.Value != value {
			t.Fatalf("%v was not written over %v (changed %v)", value, seen, changed)
		}
		gone, _ := next.Delete(at, site(1))
		mustEqual(t, "delete after put", Merge(next, gone), gone)
	})
}

func TestPutCountsOnlyWhatDiffers(t *testing.T) {
	r, changed := Record{}.Put([]Assignment{{"b", Text("x")}, {"a", Integer(1)}}, 5, site(1))
	if !changed || r.CL != 1 || len(r.Cells) != 2 || r.Cells[0].Column != "a" {
		t.Fatalf("first put: %+v", r)
	}
	same, changed := r.Put([]Assignment{{"a", Integer(1)}, {"c", Null()}}, 6, site(2))
	if changed {
		t.Fatalf("equal put changed %+v", same)
	}
	mustEqual(t, "equal put", same, r)
	next, changed := r.Put([]Assignment{{"a", Integer(2)}, {"b", Text("x")}}, 6, site(2))
	a, _ := next.Find("a")
	b, _ := next.Find("b")
	if !changed || a.Ver != 2 || a.Site != site(2) || b.Ver != 1 || b.Site != site(1) {
		t.Fatalf("patch: %+v", next)
	}
	if old, _ := r.Find("a"); old.Value != Integer(1) {
		t.Fatal("put wrote into the record it was given")
	}
}

// living is a row at cl with one column v, all stamps equal.
func living(cl, ver uint64, v Value, s byte) Record {
	return Record{CL: cl, Stamp: 1, Site: site(s), Cells: []Cell{{"v", ver, 1, site(s), v}}}
}

func dead(cl uint64, s byte) Record { return Record{CL: cl, Stamp: 1, Site: site(s)} }

func TestMergeRules(t *testing.T) {
	for _, c := range []struct {
		rule        string
		a, b, winds Record
	}{
		{"R1 lower cl is ignored", living(3, 1, Text("new"), 1), living(1, 9, Text("old"), 2), living(3, 1, Text("new"), 1)},
		{"R1 higher even cl deletes", living(1, 9, Text("x"), 2), dead(2, 1), dead(2, 1)},
		{"R1 higher odd cl creates", dead(2, 2), living(3, 1, Text("x"), 1), living(3, 1, Text("x"), 1)},
		{"R2 more edits win", living(1, 2, Null(), 1), living(1, 1, Integer(9), 1), living(1, 2, Null(), 1)},
		{"R3 larger value wins", living(1, 1, Text("a"), 1), living(1, 1, Text("b"), 1), living(1, 1, Text("b"), 1)},
		{"R4 larger site owns", living(1, 1, Text("a"), 1), living(1, 1, Text("a"), 2), living(1, 1, Text("a"), 2)},
		{"R5 larger site owns a delete", dead(2, 1), dead(2, 2), dead(2, 2)},
		{"R6 late update of an old life", dead(2, 1), living(1, 99, Text("late"), 2), dead(2, 1)},
	} {
		t.Run(c.rule, func(t *testing.T) {
			mustEqual(t, "a+b", Merge(c.a, c.b), c.winds)
			mustEqual(t, "b+a", Merge(c.b, c.a), c.winds)
		})
	}
}

func TestTimeDecidesBeforeValue(t *testing.T) {
	early, late := living(1, 1, Text("z"), 2), living(1, 1, Text("a"), 1)
	late.Cells[0].Stamp = 2
	got, _ := Merge(early, late).Find("v")
	if got.Value != Text("a") {
		t.Fatalf("%v won over the later write", got.Value)
	}
}

// R3: any INTEGER beats any REAL beats any TEXT beats any BLOB beats NULL.
func TestValueOrder(t *testing.T) {
	ordered := []Value{
		Null(), Blob(nil), Blob([]byte{0}), Blob([]byte("zz")), Text(""), Text("10"), Text("9"), Text("ä"),
		Real(-1e300), Real(9.9), Integer(-3), Integer(2),
	}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := a.Compare(b); sign(got) != sign(i-j) {
				t.Errorf("%v against %v: %d", a, b, got)
			}
		}
	}
}

func sign(n int) int { return max(-1, min(1, n)) }

// R8: insert and delete in one go leave a tombstone of cl 2 only.
func TestInsertThenDelete(t *testing.T) {
	r, _ := Record{}.Put([]Assignment{{"v", Integer(1)}}, 1, site(1))
	r, _ = r.Delete(1, site(1))
	mustEqual(t, "tombstone", r, dead(2, 1))
	if _, changed := r.Delete(2, site(2)); changed {
		t.Fatal("deleting a tombstone changed it")
	}
	r, _ = r.Put([]Assignment{{"v", Integer(5)}}, 2, site(2))
	if c, _ := r.Find("v"); r.CL != 3 || c.Ver != 1 {
		t.Fatalf("second life: %+v", r)
	}
}

// R7 and R9: a history with a delete and a new life ends alike in any order,
// also who owns what, and nothing of the old life shines through.
func TestAnyOrderOfAHistory(t *testing.T) {
	first, _ := Record{}.Put([]Assignment{{"a", Integer(1)}, {"b", Integer(1)}}, 1, site(1))
	second, _ := first.Put([]Assignment{{"a", Integer(2)}}, 2, site(2))
	stale, _ := first.Put([]Assignment{{"b", Integer(5)}}, 9, site(3))
	gone, _ := second.Delete(3, site(1))
	gone2, _ := second.Delete(3, site(2))
	again, _ := gone.Put([]Assignment{{"a", Integer(10)}}, 4, site(2))
	again2, _ := gone2.Put([]Assignment{{"a", Integer(11)}}, 4, site(3))
	late, _ := again.Put([]Assignment{{"a", Integer(12)}}, 5, site(1))
	history := []Record{first, second, stale, gone, gone2, again, again2, late}
	want := history[0]
	for _, r := range history {
		want = Merge(want, r)
	}
	if _, found := want.Find("b"); found {
		t.Fatal("a column of the old life is still there")
	}
	rapid.Check(t, func(t *rapid.T) {
		var got Record
		for _, r := range rapid.Permutation(history).Draw(t, "order") {
			got = Merge(got, r)
		}
		mustEqual(t, "history", got, want)
	})
}

func TestCheckRefuses(t *testing.T) {
	for name, r := range map[string]Record{
		"no cl":         {},
		"endless cl":    {CL: math.MaxUint64},
		"endless edits": {CL: 1, Cells: []Cell{{Column: "a", Ver: math.MaxUint64}}},
		"dead, cells":   {CL: 2, Cells: []Cell{{Column: "a", Ver: 1}}},
		"no version":    {CL: 1, Cells: []Cell{{Column: "a"}}},
		"out of order":  {CL: 1, Cells: []Cell{{Column: "b", Ver: 1}, {Column: "a", Ver: 1}}},
		"column, twice": {CL: 1, Cells: []Cell{{Column: "a", Ver: 1}, {Column: "a", Ver: 1}}},
	} {
		if r.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func ExampleMerge() {
	base, _ := Record{}.Put([]Assignment{{"replicas", Integer(1)}, {"revision", Text("r1")}}, 1, site(1))
	deployed, _ := base.Put([]Assignment{{"revision", Text("r2")}}, 2, site(1))
	scaled, _ := base.Put([]Assignment{{"replicas", Integer(5)}}, 2, site(2))
	for _, c := range Merge(deployed, scaled).Cells {
		fmt.Println(c.Column, c.Value)
	}
	// Output:
	// replicas 5
	// revision "r2"
}
