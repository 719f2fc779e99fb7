package crdt

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func drawBatch(t *rapid.T) Batch {
	b := Batch{Marks: Known{}}
	for n := range byte(2) {
		if r, _ := drawRanges(t, "marks"); len(r) > 0 {
			b.Marks[site(n+1)] = r
		}
	}
	for range rapid.IntRange(0, 4).Draw(t, "rows") {
		row := Row{Table: rapid.SampledFrom([]string{"t", "u"}).Draw(t, "table"), Key: rapid.StringN(1, 5, -1).Draw(t, "key"), Record: drawRecord(t)}
		for n := range byte(3) {
			if rapid.Bool().Draw(t, "writer") {
				row.Writers = append(row.Writers, Version{site(n + 1), rapid.Uint64Range(1, math.MaxUint64).Draw(t, "seq")})
			}
		}
		b.Rows = append(b.Rows, row)
	}
	return b
}

func sameBatch(a, b Batch) bool {
	return a.Marks.Equal(b.Marks) && slices.EqualFunc(a.Rows, b.Rows, func(x, y Row) bool {
		return x.Table == y.Table && x.Key == y.Key && x.Record.Equal(y.Record) && slices.Equal(x.Writers, y.Writers)
	})
}

func TestBatchRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawBatch(t)
		d := NewDecoder(AppendBatch(nil, want))
		got := d.Batch()
		if err := d.Done(); err != nil || !sameBatch(got, want) {
			t.Fatalf("%v\ngot  %+v\nwant %+v", err, got, want)
		}
	})
}

func TestRecordWithValuesElsewhere(t *testing.T) {
	r := Record{CL: 1, Stamp: 7, Site: site(1), Cells: []Cell{
		{"here", 1, 9, site(2), Text("kept inside")}, {"there", 2, 3, site(1), Integer(5)},
	}}
	d := newDict()
	packed := AppendRecord(nil, r, []Version{{site(1), 3}}, d, func(c string) bool { return c == "here" })
	dec := NewDecoder(packed)
	got, writers := dec.Record(d, func(string) Value { return Integer(5) })
	if err := dec.Done(); err != nil || !got.Equal(r) || !slices.Equal(writers, []Version{{site(1), 3}}) {
		t.Fatalf("%v %+v %v", err, got, writers)
	}
	dec = NewDecoder(packed)
	if dec.Record(d, nil); dec.Err() == nil {
		t.Fatal("a missing value was not noticed")
	}
}

func TestDecoderRefusesTornInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		packed := AppendBatch(nil, drawBatch(t))
		d := NewDecoder(packed[:rapid.IntRange(0, len(packed)-1).Draw(t, "length")])
		if d.Batch(); d.Done() == nil {
			t.Fatal("a torn batch was accepted")
		}
	})
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(AppendBatch(nil, Batch{}))
	f.Add(AppendBatch(nil, Batch{
		Marks: Known{site(1): {{1, 4}, {7, 9}}},
		Rows: []Row{
			{"t", "k", Record{1, 5, site(1), []Cell{{"a", 1, 5, site(1), Text("x")}, {"b", 2, 6, site(2), Real(1.5)}}}, []Version{{site(1), 4}}},
			{"t", "gone", Record{2, 6, site(2), nil}, nil},
		},
	}))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := NewDecoder(in)
		b := d.Batch()
		if d.Done() != nil {
			return
		}
		again := NewDecoder(AppendBatch(nil, b))
		if got := again.Batch(); again.Done() != nil || !sameBatch(got, b) {
			t.Fatalf("%v: %+v became %+v", again.Err(), b, got)
		}
	})
}

// FuzzDecodeStored is what a database file holds: records whose values and names
// are kept elsewhere, and the floor. A file may be damaged anywhere.
func FuzzDecodeStored(f *testing.F) {
	names := newDict()
	for i := range 4 {
		names.Site(site(byte(i)))
		names.Name(string(rune('a' + i)))
	}
	inline := func(column string) bool { return column == "b" }
	r := Record{1, 5, site(1), []Cell{{"a", 1, 5, site(1), Text("x")}, {"b", 2, 6, site(2), Real(1.5)}}}
	f.Add(AppendRecord(nil, r, []Version{{site(1), 4}}, names, inline))
	f.Add(AppendRecord(nil, Record{2, 6, site(2), nil}, nil, names, inline))
	f.Add(AppendFloor(nil, Floor{Known: Known{site(1): {{1, 4}, {7, 9}}}, CL: 6}))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := NewDecoder(in)
		got, writers := d.Record(names, func(string) Value { return Integer(7) })
		if d.Done() == nil {
			again := NewDecoder(AppendRecord(nil, got, writers, names, inline))
			same, too := again.Record(names, func(string) Value { return Integer(7) })
			if again.Done() != nil || len(same.Cells) != len(got.Cells) || same.CL != got.CL || same.Stamp != got.Stamp || !slices.Equal(too, writers) {
				t.Fatalf("%v: %+v became %+v", again.Err(), got, same)
			}
		}
		d = NewDecoder(in)
		if floor := d.Floor(); d.Done() == nil {
			again := NewDecoder(AppendFloor(nil, floor))
			if same := again.Floor(); again.Done() != nil || same.CL != floor.CL || !same.Known.Equal(floor.Known) {
				t.Fatalf("%v: %+v became %+v", again.Err(), floor, same)
			}
		}
	})
}

func TestRealIsWhatSQLiteKeeps(t *testing.T) {
	if Real(math.NaN()) != Null() {
		t.Error("NaN is not NULL")
	}
	if Real(math.Copysign(0, -1)) != Real(0) {
		t.Error("-0 is not 0")
	}
	if v := Real(math.Inf(-1)); v.Float() != math.Inf(-1) {
		t.Error("infinity was lost")
	}
}
