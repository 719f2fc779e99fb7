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
	bytes int
}

// pull asks a machine for what it has and nobody else was asked for. There is
// one request at a time on a link.
func (c *core) pull(l *link) {
	if !l.live || l.ask != nil || c.now.Before(l.pullAfter) {
		return
	}
	missing := l.known.Without(c.self.Site).Minus(c.known)
	if len(missing) == 0 {
		l.synced = c.now
		return
	}
	wants := missing.Minus(c.underWay())
	if len(wants) == 0 {
		return
	}
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
	all := crdt.Known{}
	for _, l := range c.live {
		if l.ask != nil {
			all = all.Union(l.ask.wants)
		}
		all = all.Union(l.merging)
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
	p := l.inbox[f.Req]
	if p == nil {
		p = &parts{}
		l.inbox[f.Req] = p
	}
	p.batch.Rows = append(p.batch.Rows, f.Batch.Rows...)
	if p.bytes += f.Batch.Size(); p.bytes > inboxBytes {
		c.drop(l.id, fmt.Errorf("a batch of more than %d bytes", inboxBytes))
		return
	}
	c.progress(l, f.Req)
	if f.More {
		return
	}
	delete(l.inbox, f.Req)
	p.batch.Marks = f.Batch.Marks
	c.hear(l, p.batch.Marks)
	if f.Req == 0 {
		c.hear(l, originKnows(l.site, p.batch.Marks))
	}
	l.merging = p.batch.Marks
	c.do(mergeBatch{Link: l.id, Req: f.Req, Batch: p.batch})
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
	if e.Err == nil {
		c.tellSoon()
	}
	if l == nil {
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

// finish ends a request.
func (c *core) finish(l *link, f done) {
	if l.ask == nil || l.ask.req != f.Req {
		return
	}
	switch {
	case f.Busy:
		l.pullAfter = c.jitter(busyPause, 2*busyPause)
	case !l.ask.progress:
		// It does not have what it said it has. Do not ask again at once.
		l.pullAfter = c.jitter(pullMin, pullMax)
	}
	l.ask = nil
	c.pullAll()
}
