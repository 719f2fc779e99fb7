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
			row = both(old, row)
		}
		o.rows[id] = row
		o.bytes += row.Size()
	}
	o.marks = o.marks.Union(b.Marks)
}

// both is two states of one row as one. Neither needs to be the newer: one may
// have been relayed.
func both(a, b crdt.Row) crdt.Row {
	all := crdt.Known{}
	for _, v := range b.Writers {
		all[v.Site] = crdt.Single(v.Seq, v.Seq)
	}
	b.Writers = crdt.MergeWriters(a.Writers, b.Writers, all)
	b.Record = crdt.Merge(a.Record, b.Record)
	return b
}

func (o *outbox) take() crdt.Batch {
	b := crdt.Batch{Marks: o.marks, Rows: slices.SortedFunc(maps.Values(o.rows), func(a, b crdt.Row) int {
		return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.Key, b.Key))
	})}
	*o = outbox{}
	return b
}

// large tells whether the cluster is too large for each machine to talk to
// each other one.
func (c *core) large() bool { return c.members > directLimit }

// push gives a local commit to every connected machine; in a large cluster to
// a few of them, who relay it.
func (c *core) push(b crdt.Batch) {
	c.count.Pushed++
	to := c.peers()
	if c.large() {
		to = c.few(to)
	}
	for _, l := range to {
		c.pushTo(l, b)
	}
}

// relay passes on what was pushed here, at its first arrival only. Who is
// missed by chance hears of it from a neighbour a second later, and pulls.
func (c *core) relay(e read) {
	if len(e.Batch.Marks) == 0 {
		return
	}
	c.count.Relayed++
	for _, l := range c.few(c.peers()) {
		if l.id != e.From {
			c.pushTo(l, e.Batch)
		}
	}
}

func (c *core) pushTo(l *link, b crdt.Batch) {
	if l.known.CoversAll(b.Marks) || c.isBehind(l) {
		return
	}
	l.outbox.add(b)
	if l.outbox.bytes > outboxBytes {
		// It cannot keep up. The rows are in the store; it pulls them once
		// it reads that they are there.
		l.outbox = outbox{}
		c.count.OutboxesDropped++
		c.tell(l, false)
	}
	c.flush(l)
}

// few is fanout of the links, drawn by lot: the nearer of two each time.
func (c *core) few(links []*link) []*link {
	var out []*link
	links = slices.Clone(links)
	for len(links) > 0 && len(out) < fanout {
		i, j := c.rand.IntN(len(links)), c.rand.IntN(len(links))
		if c.further(links[i], links[j]) {
			i = j
		}
		out = append(out, links[i])
		links = slices.Delete(links, i, i+1)
	}
	return out
}

func (c *core) further(a, b *link) bool {
	x, known := c.distance(a.machine)
	y, both := c.distance(b.machine)
	return known && both && x > y
}

// answerTell tells back, if that was asked for.
func (c *core) answerTell(l *link, f tell) {
	switch {
	case f.Afresh:
		l.told, l.tellAt = c.known, time.Time{}
		c.post(l, tell{Known: c.known})
	case f.Reply:
		c.tell(l, false)
	}
}

// tell says what is here that the other machine neither has nor was told of.
func (c *core) tell(l *link, reply bool) {
	var news crdt.Known
	if !l.told.CoversAll(c.known) {
		news = c.known.Minus(l.told).Minus(l.known).Minus(l.outbox.marks)
	}
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
