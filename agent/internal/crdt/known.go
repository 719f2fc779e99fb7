package crdt

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Known is a version vector with gaps: for each site the versions whose
// changes a replica holds. Sets of a site are never empty. It is immutable.
type Known map[SiteID]Ranges

// Knows is the vector of one version.
func Knows(v Version) Known {
	if v.Seq == 0 {
		return Known{}
	}
	return Known{v.Site: Single(v.Seq, v.Seq)}
}

// Head is the largest known version of a site, or 0.
func (k Known) Head(site SiteID) uint64 { return k[site].Head() }

// Covers tells whether v is known. Every vector covers Seq 0.
func (k Known) Covers(v Version) bool { return v.Seq == 0 || k[v.Site].Contains(v.Seq) }

// CoversAll tells whether all of other is known.
func (k Known) CoversAll(other Known) bool {
	for site, ranges := range other {
		if !k[site].Covers(ranges) {
			return false
		}
	}
	return true
}

// Union is what either vector knows.
func (k Known) Union(other Known) Known {
	out := make(Known, max(len(k), len(other)))
	maps.Copy(out, k)
	for site, ranges := range other {
		out[site] = out[site].Union(ranges)
	}
	return out
}

// Minus is what k knows and other does not.
func (k Known) Minus(other Known) Known {
	out := Known{}
	for site, ranges := range k {
		if rest := ranges.Minus(other[site]); len(rest) > 0 {
			out[site] = rest
		}
	}
	return out
}

// Intersect is what both know.
func (k Known) Intersect(other Known) Known {
	out := Known{}
	for site, ranges := range k {
		if both := ranges.Intersect(other[site]); len(both) > 0 {
			out[site] = both
		}
	}
	return out
}

// Without is k without one site.
func (k Known) Without(site SiteID) Known {
	out := maps.Clone(k)
	delete(out, site)
	return out
}

// Count is the number of versions known, over all sites.
func (k Known) Count() uint64 {
	var n uint64
	for _, ranges := range k {
		n += ranges.Count()
	}
	return n
}

// Sites is the sites of k in order.
func (k Known) Sites() []SiteID {
	return slices.SortedFunc(maps.Keys(k), SiteID.Compare)
}

// Equal tells whether both know the same.
func (k Known) Equal(other Known) bool {
	return maps.EqualFunc(k, other, func(a, b Ranges) bool { return slices.Equal(a, b) })
}

// Same tells whether both are one value, shared, which is quick: equal ones
// need not be the same.
func (k Known) Same(other Known) bool {
	return reflect.ValueOf(k).Pointer() == reflect.ValueOf(other).Pointer()
}

func (k Known) String() string {
	var parts []string
	for _, site := range k.Sites() {
		parts = append(parts, fmt.Sprintf("%s:%s", site, k[site]))
	}
	return strings.Join(parts, " ")
}
