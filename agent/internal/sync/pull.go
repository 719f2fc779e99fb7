package statesync

import (
	"errors"
	"fmt"
	"time"

	"uncloud/agent/internal/crdt"
)

// asking is a request that has not been answered in full.
type asking struct {
	req      uint64
	wants    crdt.Known
	snapshot bool
	progress bool
	spoilt   bool // a batch of the answer cannot be used
	deadline time.Time
}

// parts is a batch of which not all frames are here.
type parts struct {
	batch crdt.Batch
	count uint64
	bytes int
}

// pull asks a machine for what it has and nobody else was asked for. There is
// one request at a time on a link.
func (c *core) pull(l *link) {
	whole := c.lags(l)
	if !l.live || l.ask != nil || c.now.Before(l.pullAfter) {
		return
	}
	var missing crdt.Known
	if !c.known.CoversAll(l.known) {
		missing = l.known.Minus(c.known)
		delete(missing, c.self.Site)
	}
	if len(missing) == 0 && !whole {
		l.synced = c.now
		return
	}
	wants := l.narrow.worth(c.now, missing.Minus(c.underWay()))
	mayWhole := !c.now.Before(l.narrow.whole) && !c.adopting()
	switch {
	case whole && !mayWhole, !whole && (len(wants) == 0 || c.isBehind(l)):
		return
	case mayWhole && c.fresh() && wants.Count() >= snapshotFrom:
		whole = true
	}
	c.count.Asked++
	c.reqs++
	l.ask = &asking{req: c.reqs, snapshot: whole, wants: l.known, deadline: c.now.Add(askPatience)}
	if !whole {
		l.ask.wants = newest(wants, l.narrow.versions())
	}
	c.post(l, ask{Req: l.ask.req, Snapshot: l.ask.snapshot, Wants: l.ask.wants})
	c.flush(l)
}

// fresh tells whether nothing of another site is here.
func (c *core) fresh() bool {
	_, own := c.known[c.self.Site]
	return len(c.known) == 0 || own && len(c.known) == 1
}

// adopting tells whether a snapshot is on its way.
func (c *core) adopting() bool {
	for _, l := range c.peers() {
		if l.whole || l.ask != nil && l.ask.snapshot {
			return true
		}
	}
	return false
}

// underWay is what some machine was asked for, and what the store works on.
func (c *core) underWay() crdt.Known {
	all := c.merging()
	for _, l := range c.peers() {
		if l.ask != nil {
			all = all.Union(l.ask.wants)
		}
	}
	return all
}

// newest is about n versions of wants: the newest of each site, so that fresh
// state comes before history.
func newest(wants crdt.Known, n uint64) crdt.Known {
	each := max(1, n/uint64(len(wants)))
	out := crdt.Known{}
	for _, site := range wants.Sites() {
		if uint64(len(out)) < n {
			out[site] = wants[site].Newest(each)
		}
	}
	return out
}

// collect takes a part of a batch, and has the whole merged.
func (c *core) collect(l *link, f rows) {
	p := l.inbox[f.Serial]
	if p == nil {
		p = &parts{}
		l.inbox[f.Serial] = p
	}
	if f.Spoilt != nil {
		c.spoil(l, f.Req)
	}
	if f.Part != p.count || f.Spoilt != nil {
		// A part is lost or cannot be read, so the batch is void. Its marks do
		// not count, and its versions are asked for again, when the rest is over.
		delete(l.inbox, f.Serial)
		c.awaitMore(l, f.Req)
		c.void(l, f)
		return
	}
	p.count++
	p.batch.Rows = append(p.batch.Rows, f.Batch.Rows...)
	p.bytes += f.Batch.Size()
	if len(l.inbox) > inboxBatches {
		c.drop(l.id, fmt.Errorf("more than %d batches at once", inboxBatches))
		return
	}
	if l.inboxed() > inboxBytes {
		// A snapshot that is too large for this machine. By versions it is not.
		delete(l.inbox, f.Serial)
		c.spoil(l, f.Req)
		c.void(l, f)
		return
	}
	c.progress(l, f.Req)
	if f.More {
		return
	}
	delete(l.inbox, f.Serial)
	p.batch.Marks = f.Batch.Marks
	if !f.Whole && (c.behind(l) || c.isBehind(l)) {
		c.hear(l, f.Batch.Marks)
		c.void(l, f)
		return
	}
	if f.Mend {
		c.do(mergeBatch{Link: l.id, Mend: true, Batch: p.batch})
		return
	}
	c.take(l, f, p.batch)
}

// inboxed is the size of what has arrived of batches.
func (l *link) inboxed() (bytes int) {
	for _, p := range l.inbox {
		bytes += p.bytes
	}
	return bytes
}

// void lets the sender of an answer go on, though a batch of it was of no use.
func (c *core) void(l *link, f rows) {
	if f.Req != 0 && !f.More {
		c.post(l, ack{Req: f.Req})
	}
}

// take has the store merge a batch.
func (c *core) take(l *link, f rows, b crdt.Batch) {
	c.hear(l, b.Marks)
	if f.Req == 0 {
		c.hear(l, originKnows(l.site, b.Marks))
		if c.known.CoversAll(b.Marks) {
			c.count.Repeated++
			c.pull(l)
			return
		}
	}
	fresh := !c.known.Union(c.merging()).CoversAll(b.Marks)
	l.merging, l.whole = b.Marks, f.Whole
	c.do(mergeBatch{Link: l.id, Req: f.Req, Fresh: fresh, Batch: b, Whole: f.Whole, Floor: f.Floor})
}

// merging is what the store works on.
func (c *core) merging() crdt.Known {
	all := crdt.Known{}
	for _, l := range c.peers() {
		if len(l.merging) > 0 {
			all = all.Union(l.merging)
		}
	}
	return all
}

// originKnows is what follows from a push: a site has all of its own versions
// up to the one that it pushes. A gap below shows that a push was lost.
func originKnows(site crdt.SiteID, marks crdt.Known) crdt.Known {
	if head := marks.Head(site); head > 0 {
		return crdt.Known{site: crdt.Single(1, head)}
	}
	return nil
}

func (c *core) progress(l *link, req uint64) {
	if l.ask != nil && l.ask.req == req {
		l.ask.progress = true
		c.awaitMore(l, req)
	}
}

// awaitMore gives a request time while its answer moves, of use or not.
func (c *core) awaitMore(l *link, req uint64) {
	if l.ask != nil && l.ask.req == req {
		l.ask.deadline = c.now.Add(askPatience)
	}
}

// afterMerge goes on when the store has taken a batch, or could not.
func (c *core) afterMerge(l *link, e merged) {
	c.noteMerge(e)
	if l == nil || e.Mend {
		return
	}
	l.merging, l.whole = nil, false
	c.progress(l, e.Req)
	bad := errors.Is(e.Err, crdt.ErrImpossible)
	switch {
	case bad:
		c.spoil(l, e.Req)
	case e.Err != nil:
		// What ails the store will not be better at once. The versions are not
		// known, so they are asked for again.
		l.ask, l.pullAfter = nil, c.jitter(pullMin, pullMax)
	}
	if e.Req != 0 && (bad || e.Err == nil) {
		c.post(l, ack{Req: e.Req})
	}
	if e.Whole && e.Err == nil {
		c.raised()
		c.pullAll()
	}
	c.pull(l)
	c.flush(l)
}

// noteMerge lets others know of what the store has taken.
func (c *core) noteMerge(e merged) {
	switch {
	case e.Err != nil:
		c.count.MergeErrors++
		return
	case e.Mend:
		c.count.Repaired += uint64(e.Repaired)
		return
	}
	c.count.Merged++
	c.movedAt = c.now
	if e.Fresh && e.Req == 0 && c.large() {
		c.do(readRelay{From: e.Link, Marks: e.Batch.Marks})
	}
	c.tellSoon()
}

// finish ends a request.
func (c *core) finish(l *link, f done) {
	if l.ask == nil || l.ask.req != f.Req {
		return
	}
	switch {
	case f.RetryAfter > 0:
		wait := time.Duration(min(f.RetryAfter, uint64(time.Minute.Milliseconds()))) * time.Millisecond
		l.pullAfter = c.jitter(wait, wait+wait/4+1)
	case !l.ask.progress:
		// It does not have what it said it has. Do not ask again at once.
		l.pullAfter = c.jitter(pullMin, pullMax)
	}
	l.narrow.note(c.now, l.ask, l.ask.wants.Minus(c.known))
	l.ask = nil
	c.pullAll()
}
