package crdt

import (
	"fmt"
	"slices"
	"strings"
)

// Range is the versions First to Last of one site, both included. First is at
// least 1 and Last at least First.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// Len is the number of versions in r.
func (r Range) Len() uint64 { return r.Last - r.First + 1 }

// Ranges is a set of versions of one site: sorted, apart from one another and
// never adjacent, so that equal sets are equal slices. It is immutable.
type Ranges []Range

// Single is the set of the versions from first to last; empty if first > last
// or first is 0.
func Single(first, last uint64) Ranges {
	if first == 0 || first > last {
		return nil
	}
	return Ranges{{first, last}}
}

// Head is the largest version in the set, or 0.
func (s Ranges) Head() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].Last
}

// Gaps is what is missing below Head.
func (s Ranges) Gaps() Ranges { return Single(1, s.Head()).Minus(s) }

// Count is the number of versions in the set.
func (s Ranges) Count() uint64 {
	var n uint64
	for _, r := range s {
		n += r.Len()
	}
	return n
}

// Contains tells whether v is in the set.
func (s Ranges) Contains(v uint64) bool {
	_, found := slices.BinarySearchFunc(s, v, func(r Range, v uint64) int {
		switch {
		case r.Last < v:
			return -1
		case r.First > v:
			return 1
		}
		return 0
	})
	return found
}

// Covers tells whether every version of t is in s.
func (s Ranges) Covers(t Ranges) bool {
	for _, r := range t {
		i, found := slices.BinarySearchFunc(s, r.First, func(a Range, v uint64) int {
			switch {
			case a.Last < v:
				return -1
			case a.First > v:
				return 1
			}
			return 0
		})
		if !found || s[i].Last < r.Last {
			return false
		}
	}
	return true
}

// Union is what is in s or t.
func (s Ranges) Union(t Ranges) Ranges {
	if len(t) == 0 {
		return s
	}
	if len(s) == 0 {
		return t
	}
	all := slices.Concat(s, t)
	slices.SortFunc(all, func(a, b Range) int {
		if a.First < b.First {
			return -1
		}
		return 1
	})
	return collapse(all)
}

// collapse joins what overlaps or touches in sorted ranges, in place.
func collapse(sorted []Range) Ranges {
	out := sorted[:1]
	for _, r := range sorted[1:] {
		last := &out[len(out)-1]
		// Written without +1 so that a range up to the largest number cannot wrap.
		if r.First <= last.Last || r.First-1 == last.Last {
			last.Last = max(last.Last, r.Last)
		} else {
			out = append(out, r)
		}
	}
	return slices.Clip(out)
}

// Minus is what is in s and not in t.
func (s Ranges) Minus(t Ranges) Ranges {
	var out Ranges
	for _, r := range s {
		for len(t) > 0 && t[0].Last < r.First {
			t = t[1:]
		}
		out = appendMinus(out, r, t)
	}
	return out
}

// appendMinus appends r without t, whose first range ends in r or later.
func appendMinus(out Ranges, r Range, t Ranges) Ranges {
	for _, cut := range t {
		if cut.First > r.Last {
			break
		}
		if cut.First > r.First {
			out = append(out, Range{r.First, cut.First - 1})
		}
		if cut.Last >= r.Last {
			return out
		}
		r.First = cut.Last + 1
	}
	return append(out, r)
}

// Intersect is what is in both s and t.
func (s Ranges) Intersect(t Ranges) Ranges { return s.Minus(s.Minus(t)) }

// Newest is the n largest versions of the set, or all of it.
func (s Ranges) Newest(n uint64) Ranges {
	for i := len(s) - 1; i >= 0; i-- {
		if l := s[i].Len(); l < n {
			n -= l
			continue
		}
		return append(Ranges{{s[i].Last - n + 1, s[i].Last}}, s[i+1:]...)
	}
	return s
}

func (s Ranges) String() string {
	parts := make([]string, len(s))
	for i, r := range s {
		parts[i] = fmt.Sprintf("%d-%d", r.First, r.Last)
	}
	return strings.Join(parts, ",")
}
