package statesync

import (
	"maps"
	"slices"
	"time"

	"uncloud/agent/internal/crdt"
)

// A tombstone that every member has may be forgotten; what is left of it is the
// floor. Between two machines of which one does not cover the floor of the
// other, rows flow as a whole snapshot only: by versions, the one would count a
// removal as known that it never saw, and give the other back what was removed.

// behind tells whether l's machine has forgotten tombstones that may be
// unknown here.
func (c *core) behind(l *link) bool { return !c.known.CoversAll(l.floor) }

// isBehind tells whether tombstones were forgotten here that l's machine may
// not know.
func (c *core) isBehind(l *link) bool { return !l.known.CoversAll(c.floor) }

// lags is behind. When it is over, the other machine is told all that is here:
// it cannot know, since what it has itself it is not told otherwise.
func (c *core) lags(l *link) bool {
	if c.behind(l) {
		l.lagged = true
		return true
	}
	if l.lagged {
		l.lagged, l.told = false, c.known
		c.post(l, tell{Known: c.known})
		c.flush(l)
	}
	return false
}

// raised tells the others of a higher floor.
func (c *core) raised() {
	for _, l := range c.peers() {
		c.post(l, floor{Known: c.floor})
		c.flush(l)
	}
}

// settleFor is how long it takes until rows that a machine has sent before it
// said what it knows have come, or its link is dead.
const settleFor = readTimeout

// sayings is what a connected machine has said to have. Small frames overtake
// rows: those on their way may be older than what it says. So only what it said
// some time ago counts.
type sayings struct {
	settled, recent crdt.Known
	at              time.Time // of recent
}

func (s *sayings) settle(now time.Time, known crdt.Known) {
	if now.Sub(s.at) >= settleFor {
		s.settled, s.recent, s.at = s.recent, known, now
	}
}

// ask has all connected machines say what they have. They do not say it by
// themselves of what this machine had first.
func (c *core) ask() {
	for _, l := range c.peers() {
		c.post(l, tell{Known: crdt.Known{}, Afresh: true})
		c.flush(l)
	}
}

// everyone is what all of members have said to have, also those that are down,
// and is here. It is false if some have said nothing since this machine
// started: in a cluster of more than directLimit machines, that is so for most.
func (c *core) everyone(members []string, known crdt.Known) (crdt.Known, bool) {
	maps.DeleteFunc(c.said, func(machine string, _ crdt.Known) bool { return !slices.Contains(members, machine) })
	for _, machine := range members {
		if machine == c.self.Machine {
			continue
		}
		has, told := c.said[machine]
		if l := c.live[machine]; l != nil {
			has, told = l.said.settled, true
		}
		if !told {
			return nil, false
		}
		known = known.Intersect(has)
	}
	return known, true
}
