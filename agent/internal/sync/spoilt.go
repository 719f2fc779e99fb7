package statesync

import (
	"time"

	"uncloud/agent/internal/crdt"
)

// refusedFor is how long what cannot be used of a machine's answers is not
// asked of it again. It may be an upgrade of either machine that mends it.
const refusedFor = 10 * time.Minute

// narrowing finds the versions that spoil a machine's answers, so that all its
// others come: it asks for ever fewer at a time, down to the single one that
// is refused, and for more again as long as answers are good.
type narrowing struct {
	max     uint64 // versions to ask for at a time; 0: no other limit
	refused crdt.Known
	until   time.Time // refused is not asked for
	whole   time.Time // until then no snapshot is asked for
}

func (n *narrowing) versions() uint64 {
	if n.max == 0 {
		return askVersions
	}
	return n.max
}

// worth is wants without what is refused.
func (n *narrowing) worth(now time.Time, wants crdt.Known) crdt.Known {
	if len(n.refused) == 0 || !now.Before(n.until) {
		n.refused = nil
		return wants
	}
	return wants.Minus(n.refused)
}

// note learns from an answer of which rest did not come.
func (n *narrowing) note(now time.Time, a *asking, rest crdt.Known) {
	switch {
	case !a.spoilt:
		if n.max *= 2; n.max >= askVersions {
			n.max = 0
		}
	case a.snapshot:
		n.whole = now.Add(refusedFor)
	case len(rest) == 0: // it came from others
	case rest.Count() == 1:
		n.refused, n.until = n.refused.Union(rest), now.Add(refusedFor)
	default:
		n.max = max(1, rest.Count()/2)
	}
}

// spoil notes that a batch of a link cannot be used. Its versions are not
// known, so that they are asked for again, of this machine or another.
func (c *core) spoil(l *link, req uint64) {
	c.count.Spoilt++
	c.progress(l, req)
	if l.ask != nil && l.ask.req == req {
		l.ask.spoilt = true
	}
}
