package statesync

import (
	"slices"
	"time"

	"uncloud/agent/internal/crdt"
)

// serving is the answer to one request, as far as it is not sent.
type serving struct {
	req      uint64
	snapshot bool
	todo     []piece // newest ranges first
	credits  int
	reading  bool // the store was asked for the next batch
}

type piece struct {
	site crdt.SiteID
	crdt.Range
}

// serve begins to answer. A new request on a link replaces the one before: the
// other machine has given up on that. But what was read for that one is sent,
// however long it took to read or waits to go: begun anew each time, an answer
// that takes longer than the other machine's patience would never come, and
// what waits would have no bound.
func (c *core) serve(l *link, f ask) {
	if l.serving != nil && l.serving.reading || len(l.answers) > 0 {
		c.post(l, done{Req: f.Req, RetryAfter: uint64(busyPause.Milliseconds())})
		return
	}
	l.serving = nil
	if !f.Snapshot && c.isBehind(l) {
		// It reads that it is: what says so was sent before this.
		c.post(l, done{Req: f.Req, RetryAfter: uint64(busyPause.Milliseconds())})
		return
	}
	busy := 0
	for _, other := range c.peers() {
		if other.serving != nil {
			busy++
		}
	}
	if busy >= maxServing {
		c.count.TurnedAway++
		wait := busyPause + time.Duration(c.rand.Int64N(int64(busyPause)))
		c.post(l, done{Req: f.Req, RetryAfter: uint64(wait.Milliseconds())})
		return
	}
	c.count.Served++
	if f.Snapshot {
		c.count.Snapshots++
	}
	l.serving = &serving{req: f.Req, snapshot: f.Snapshot, credits: credits}
	if !f.Snapshot {
		l.serving.todo = pieces(f.Wants.Intersect(c.known))
	}
	c.readOn(l)
}

func pieces(wants crdt.Known) []piece {
	var out []piece
	for _, site := range wants.Sites() {
		for _, r := range slices.Backward(wants[site]) {
			out = append(out, piece{site, r})
		}
	}
	return out
}

// readOn has the next batch read, if the other machine has taken enough of
// those before, or ends the answer.
func (c *core) readOn(l *link) {
	s := l.serving
	switch {
	case s.reading || s.credits == 0:
	case !s.snapshot && c.isBehind(l):
		// Since it asked, tombstones were forgotten that it has never seen.
		s.todo = nil
		l.answers = append(l.answers, done{Req: s.req})
		l.serving = nil
	case s.snapshot:
		s.reading = true
		c.do(exportRange{Link: l.id, Req: s.req, Snapshot: true})
	case len(s.todo) > 0:
		s.reading = true
		c.do(exportRange{Link: l.id, Req: s.req, Site: s.todo[0].site, Range: s.todo[0].Range})
	default:
		l.answers = append(l.answers, done{Req: s.req})
		l.serving = nil
	}
}

// answer sends what was read.
func (c *core) answer(l *link, e exported) {
	s := l.serving
	if s == nil || s.req != e.Req || !s.reading {
		return // of a request that was replaced, or came twice
	}
	s.reading = false
	switch {
	case e.Err != nil:
	case s.snapshot:
		l.answers = append(l.answers, split(rows{Req: s.req, Serial: c.serial(), Whole: true, Floor: e.Floor}, e.Batch)...)
		s.credits--
	case l.known.CoversAll(e.Floor.Known):
		l.answers = append(l.answers, split(rows{Req: s.req, Serial: c.serial()}, e.Batch)...)
		s.credits--
	}
	if s.snapshot {
		s.snapshot = false
	} else {
		s.todo = after(s.todo, e)
	}
	c.readOn(l)
}

// after is what is left of todo. A range that could not be read is left out;
// it is not in any marks, so the other machine asks for it again.
func after(todo []piece, e exported) []piece {
	marks := e.Batch.Marks[todo[0].site]
	if e.Err != nil || len(marks) == 0 || marks[0].First <= todo[0].First {
		return todo[1:]
	}
	todo[0].Last = marks[0].First - 1
	return todo
}

func (c *core) acknowledged(l *link, f ack) {
	if l.serving != nil && l.serving.req == f.Req {
		l.serving.credits = min(l.serving.credits+1, credits)
		c.readOn(l)
	}
}
