package statesync

import (
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
	if !l.live || l.ask != nil || c.now.Before(l.pullAfter) {
		return
	}
	missing := l.known.Minus(c.known)
	delete(missing, c.self.Site)
	if len(missing) == 0 {
		l.synced = c.now
		return
	}
	wants := missing.Minus(c.underWay())
	if len(wants) == 0 {
		return
	}
	c.count.Asked++
	c.reqs++
	l.ask = &asking{req: c.reqs, deadline: c.now.Add(askPatience)}
	if c.fresh() && wants.Count() >= snapshotFrom {
		l.ask.snapshot, l.ask.wants = true, l.known
	} else {
		l.ask.wants = newest(wants, askVersions)
	}
	c.post(l, ask{Req: l.ask.req, Snapshot: l.ask.snapshot, Wants: l.ask.wants})
	c.flush(l)
}

// fresh tells whether nothing of another site is here or on its way.
func (c *core) fresh() bool {
	for _, l := range c.live {
		if l.ask != nil && l.ask.snapshot {
			return false
		}
	}
	return len(c.known.Without(c.self.Site)) == 0
}

// underWay is what some machine was asked for, and what the store works on.
func (c *core) underWay() crdt.Known {
	all := c.merging()
	for _, l := range c.live {
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
	for site, ranges := range wants {
		out[site] = ranges.Newest(each)
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
	if f.Part != p.count {
		// A part is lost, so the batch is void. Its marks do not count, and its
		// versions are asked for again.
		delete(l.inbox, f.Serial)
		return
	}
	p.count++
	p.batch.Rows = append(p.batch.Rows, f.Batch.Rows...)
	if p.bytes += f.Batch.Size(); p.bytes > inboxBytes || len(l.inbox) > inboxBatches {
		c.drop(l.id, fmt.Errorf("more than %d bytes or %d batches at once", inboxBytes, inboxBatches))
		return
	}
	c.progress(l, f.Req)
	if f.More {
		return
	}
	delete(l.inbox, f.Serial)
	p.batch.Marks = f.Batch.Marks
	if f.Mend {
		c.do(mergeBatch{Link: l.id, Mend: true, Batch: p.batch})
		return
	}
	c.take(l, f.Req, p.batch)
}

// take has the store merge a batch.
func (c *core) take(l *link, req uint64, b crdt.Batch) {
	c.hear(l, b.Marks)
	if req == 0 {
		c.hear(l, originKnows(l.site, b.Marks))
		if c.known.CoversAll(b.Marks) {
			c.count.Repeated++
			c.pull(l)
			return
		}
	}
	fresh := !c.known.Union(c.merging()).CoversAll(b.Marks)
	l.merging = b.Marks
	c.do(mergeBatch{Link: l.id, Req: req, Fresh: fresh, Batch: b})
}

// merging is what the store works on.
func (c *core) merging() crdt.Known {
	all := crdt.Known{}
	for _, l := range c.live {
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
		l.ask.progress, l.ask.deadline = true, c.now.Add(askPatience)
	}
}

// afterMerge goes on when the store has taken a batch, or could not.
func (c *core) afterMerge(l *link, e merged) {
	c.noteMerge(l, e)
	if l == nil || e.Mend {
		return
	}
	l.merging = nil
	c.progress(l, e.Req)
	switch {
	case e.Err != nil:
		// What ails the store will not be better at once. The versions are not
		// known, so they are asked for again.
		l.ask, l.pullAfter = nil, c.jitter(pullMin, pullMax)
	case e.Req != 0:
		c.post(l, ack{Req: e.Req})
	}
	c.pull(l)
	c.flush(l)
}

// noteMerge lets others know of what the store has taken.
func (c *core) noteMerge(from *link, e merged) {
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
		c.relay(from, e.Batch)
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
	l.ask = nil
	c.pullAll()
}
