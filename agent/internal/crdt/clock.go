package crdt

import "time"

// MaxDrift is how far the clock follows stamps of other sites, and its own
// past, beyond the wall clock.
const MaxDrift = 300 * time.Millisecond

const counterBits = 16

// Stamp is a hybrid time: milliseconds since 1970 in the upper 48 bits, a
// counter that keeps stamps of one millisecond apart in the lower 16.
type Stamp uint64

// StampAt is the first stamp of t's millisecond. Times before 1970 give 0.
func StampAt(t time.Time) Stamp {
	return Stamp(max(t.UnixMilli(), 0)) << counterBits
}

// Time is the wall time within s, to the millisecond.
func (s Stamp) Time() time.Time { return time.UnixMilli(int64(s >> counterBits)).UTC() }

// Clock is a hybrid logical clock. Its stamps rise as long as the wall clock
// is not set back by more than MaxDrift; the merge rules need no more, since
// the edit counters and not the stamps carry causality. The zero Clock is
// ready. It is not safe for concurrent use.
type Clock struct{ last Stamp }

// Next is the stamp for a write at wall time now.
func (c *Clock) Next(now time.Time) Stamp {
	wall := StampAt(now)
	if c.last < wall || c.last.Time().After(now.Add(MaxDrift)) {
		c.last = wall
	} else {
		c.last++
	}
	return c.last
}

// Observe takes note of another site's stamp, so that the next write here is
// stamped later. It reports false for a stamp more than MaxDrift ahead of now:
// such a stamp does not move the clock (the change it came with counts all
// the same), and one of the two machines has a wrong time.
func (c *Clock) Observe(seen Stamp, now time.Time) bool {
	if seen > StampAt(now.Add(MaxDrift)) {
		return false
	}
	c.last = max(c.last, seen)
	return true
}
