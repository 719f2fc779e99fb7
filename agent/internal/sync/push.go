package statesync

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"uncloud/agent/internal/crdt"
)

// outbox is what is still to be pushed to one machine: the newest state of
// each row, whatever number of commits it is from.
type outbox struct {
	rows  map[rowID]crdt.Row
	marks crdt.Known
	bytes int
}

type rowID struct{ table, key string }

func (o *outbox) empty() bool { return len(o.marks) == 0 }

func (o *outbox) add(b crdt.Batch) {
	if o.rows == nil {
		o.rows = map[rowID]crdt.Row{}
	}
	for _, row := range b.Rows {
		id := rowID{row.Table, row.Key}
		if old, twice := o.rows[id]; twice {
			o.bytes -= old.Size()
		}
		o.rows[id] = row
		o.bytes += row.Size()
	}
	o.marks = o.marks.Union(b.Marks)
}

func (o *outbox) take() crdt.Batch {
	b := crdt.Batch{Marks: o.marks, Rows: slices.SortedFunc(maps.Values(o.rows), func(a, b crdt.Row) int {
		return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.Key, b.Key))
	})}
	*o = outbox{}
	return b
}

// push gives a local commit to every connected machine.
func (c *core) push(b crdt.Batch) {
	for _, l := range c.peers() {
		if l.known.CoversAll(b.Marks) {
			continue
		}
		l.outbox.add(b)
		if l.outbox.bytes > outboxBytes {
			// It cannot keep up. The rows are in the store; it pulls them once
			// it reads that they are there.
			l.outbox = outbox{}
			c.tell(l, false)
		}
		c.flush(l)
	}
}

// tell says what is here that the other machine neither has nor was told of.
func (c *core) tell(l *link, reply bool) {
	news := c.known.Minus(l.told).Minus(l.known).Minus(l.outbox.marks)
	l.tellAt = time.Time{}
	if len(news) == 0 && !reply {
		return
	}
	l.told = l.told.Union(news)
	c.post(l, tell{Known: news, Reply: reply})
	c.flush(l)
}

// tellSoon has everyone told, some time later, of what was merged: a machine
// that cannot reach the writer hears of it this way.
func (c *core) tellSoon() {
	for _, l := range c.peers() {
		if l.tellAt.IsZero() {
			l.tellAt = c.jitter(tellMin, tellMax)
		}
	}
}
