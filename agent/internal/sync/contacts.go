package statesync

import (
	"cmp"
	"hash/fnv"
	"maps"
	"slices"
	"time"
)

const (
	// directLimit is the size up to which every machine is connected to every
	// other, and pushes to all.
	directLimit = 64
	// fanout is how many machines of a larger cluster a machine calls, and how
	// many it pushes to. As many call it, on the average.
	fanout = 8
	// maxLinks is how many connections a machine of a larger cluster takes.
	maxLinks = 64
	// coolMin to coolMax is how long a machine that could not be reached is
	// passed over for others; it doubles each time.
	coolMin, coolMax = 10 * time.Second, 5 * time.Minute
)

// contacts decides whom a machine calls. Up to directLimit that is everyone.
// Above, half of the machines it calls are the nearest, so that most traffic
// is short, and half are drawn by a hash that differs on each machine, so that
// the whole hangs together. Whoever is called stays so while it answers.
type contacts struct {
	self     string
	distance func(machine string) (time.Duration, bool)
	chosen   map[string]bool
	cooling  map[string]cooling
}

type cooling struct {
	until time.Time
	wait  time.Duration
}

func newContacts(self string, distance func(string) (time.Duration, bool)) *contacts {
	return &contacts{self: self, distance: distance, chosen: map[string]bool{}, cooling: map[string]cooling{}}
}

// choose is whom to call now, of members.
func (c *contacts) choose(now time.Time, members []string) []string {
	others := slices.DeleteFunc(slices.Clone(members), func(m string) bool { return m == c.self })
	c.forget(others)
	if len(others) <= directLimit {
		return others
	}
	warm := func(m string) bool { return !now.Before(c.cooling[m].until) }
	next := map[string]bool{}
	take := func(from []string, fit func(string) bool) {
		for _, m := range from {
			if len(next) < fanout && fit(m) {
				next[m] = true
			}
		}
	}
	old := slices.Sorted(maps.Keys(c.chosen))
	take(old, warm)
	if len(next) < fanout {
		take(c.rank(others), warm)
		take(old, func(string) bool { return true }) // none answers: stay with some
	}
	c.chosen = next
	return slices.Sorted(maps.Keys(next))
}

// forget lets go of machines that are no members any more.
func (c *contacts) forget(members []string) {
	is := make(map[string]bool, len(members))
	for _, m := range members {
		is[m] = true
	}
	gone := func(m string) bool { return !is[m] || len(members) <= directLimit }
	maps.DeleteFunc(c.chosen, func(m string, _ bool) bool { return gone(m) })
	maps.DeleteFunc(c.cooling, func(m string, _ cooling) bool { return gone(m) })
}

// failed has a machine passed over for some time.
func (c *contacts) failed(machine string, now time.Time) {
	wait := min(max(2*c.cooling[machine].wait, coolMin), coolMax)
	c.cooling[machine] = cooling{now.Add(wait), wait}
}

// reached forgets failures.
func (c *contacts) reached(machine string) { delete(c.cooling, machine) }

// rank orders machines: in turn the nearest that is left, and the next by lot.
func (c *contacts) rank(machines []string) []string {
	near, lot := slices.Clone(machines), slices.Clone(machines)
	slices.SortFunc(near, func(a, b string) int {
		x, known := c.distance(a)
		y, both := c.distance(b)
		switch {
		case known && both:
			return cmp.Or(cmp.Compare(x, y), cmp.Compare(c.lot(a), c.lot(b)))
		case known:
			return -1
		case both:
			return 1
		}
		return cmp.Compare(c.lot(a), c.lot(b))
	})
	slices.SortFunc(lot, func(a, b string) int { return cmp.Compare(c.lot(a), c.lot(b)) })
	out, seen := make([]string, 0, 2*len(machines)), map[string]bool{}
	for i := range machines {
		for _, m := range []string{near[i], lot[i]} {
			if !seen[m] {
				seen[m] = true
				out = append(out, m)
			}
		}
	}
	return out
}

func (c *contacts) lot(machine string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(machine + " as seen by " + c.self)) // never fails
	// The last bytes alone would decide little in FNV.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}
