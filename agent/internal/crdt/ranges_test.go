package crdt

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

const worldSize = 24

// model is the same set as one flag a version.
type model [worldSize + 1]bool

func drawRanges(t *rapid.T, label string) (Ranges, model) {
	var s Ranges
	var m model
	for range rapid.IntRange(0, 6).Draw(t, label) {
		first := rapid.Uint64Range(1, worldSize).Draw(t, "first")
		last := rapid.Uint64Range(first, worldSize).Draw(t, "last")
		s = s.Union(Single(first, last))
		for v := first; v <= last; v++ {
			m[v] = true
		}
	}
	return s, m
}

func (m model) ranges() Ranges {
	var out Ranges
	for v := uint64(1); v <= worldSize; v++ {
		switch {
		case !m[v]:
		case m[v-1]:
			out[len(out)-1].Last = v
		default:
			out = append(out, Range{v, v})
		}
	}
	return out
}

func combine(a, b model, f func(x, y bool) bool) (out model) {
	for v := 1; v <= worldSize; v++ {
		out[v] = f(a[v], b[v])
	}
	return out
}

func TestRangesAgainstBitmap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, ma := drawRanges(t, "a")
		b, mb := drawRanges(t, "b")
		same := func(what string, got Ranges, want model) {
			if !slices.Equal(got, want.ranges()) {
				t.Fatalf("%s of %v and %v: %v, want %v", what, a, b, got, want.ranges())
			}
		}
		same("itself", a, ma)
		same("union", a.Union(b), combine(ma, mb, func(x, y bool) bool { return x || y }))
		same("minus", a.Minus(b), combine(ma, mb, func(x, y bool) bool { return x && !y }))
		same("intersection", a.Intersect(b), combine(ma, mb, func(x, y bool) bool { return x && y }))
		checkQueries(t, a, b, ma, mb)
	})
}

func checkQueries(t *rapid.T, a, b Ranges, ma, mb model) {
	count, head, covers := uint64(0), uint64(0), true
	for v := uint64(1); v <= worldSize; v++ {
		if a.Contains(v) != ma[v] {
			t.Fatalf("%v contains %d: %v", a, v, a.Contains(v))
		}
		if ma[v] {
			count, head = count+1, v
		}
		covers = covers && (ma[v] || !mb[v])
	}
	if a.Count() != count || a.Head() != head || a.Covers(b) != covers {
		t.Fatalf("%v: count %d, head %d, covers %v: %v", a, a.Count(), a.Head(), b, a.Covers(b))
	}
	if whole := a.Union(a.Gaps()); head > 0 && !slices.Equal(whole, Single(1, head)) || len(a.Gaps().Intersect(a)) > 0 {
		t.Fatalf("%v and its gaps %v are not 1 to %d", a, a.Gaps(), head)
	}
	n := rapid.Uint64Range(1, worldSize).Draw(t, "n")
	if newest := a.Newest(n); newest.Count() != min(n, count) || !a.Covers(newest) || newest.Head() != head {
		t.Fatalf("newest %d of %v: %v", n, a, newest)
	}
}

func TestRangesAtTheEnd(t *testing.T) {
	top := uint64(math.MaxUint64)
	s := Single(top-1, top).Union(Single(top-3, top-2))
	if len(s) != 1 || !s.Contains(top) || s.Contains(top-4) {
		t.Fatalf("%v", s)
	}
	if rest := s.Minus(Single(top, top)); rest.Head() != top-1 {
		t.Fatalf("%v", rest)
	}
}

func TestKnownIsASetOfVersions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) Known {
			k := Known{}
			for n := range byte(3) {
				if r, _ := drawRanges(t, label); len(r) > 0 {
					k[site(n+1)] = r
				}
			}
			return k
		}
		a, b := draw("a"), draw("b")
		u := a.Union(b)
		if !u.CoversAll(a) || !u.CoversAll(b) || !u.Equal(b.Union(a)) || !u.Minus(a).Union(a).Equal(u) {
			t.Fatalf("union of %v and %v: %v", a, b, u)
		}
		if len(a.Minus(b).Intersect(b)) > 0 || a.Intersect(b).Count()+a.Minus(b).Count() != a.Count() {
			t.Fatalf("%v without %v: %v", a, b, a.Minus(b))
		}
		if a.CoversAll(b) != (len(b.Minus(a)) == 0) {
			t.Fatalf("%v covers %v: %v", a, b, a.CoversAll(b))
		}
	})
	if !(Known{}).Covers(Version{}) || (Known{}).Covers(Version{site(1), 1}) {
		t.Fatal("the empty vector covers version 0 and no other")
	}
}

func TestMergeWritersStaysWithinKnown(t *testing.T) {
	known := Known{site(1): Single(1, 5), site(2): Single(1, 2)}
	have := []Version{{site(1), 2}, {site(2), 2}}
	got := MergeWriters(have, []Version{{site(1), 4}, {site(2), 9}, {site(3), 1}}, known)
	if want := []Version{{site(1), 4}, {site(2), 2}}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if have[0].Seq != 2 {
		t.Fatal("wrote into what it was given")
	}
}
