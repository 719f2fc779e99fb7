package statesync

import (
	"fmt"
	"time"

	"uncloud/agent/internal/crdt"
)

// link is one connection to another machine, or on the way to become one.
type link struct {
	id      linkID
	to      string // the machine that was dialed; empty if it called
	live    bool   // greeted
	machine string
	site    crdt.SiteID
	nonce   uint64

	greeted crdt.Known // what it had when it connected
	known   crdt.Known // what it is known to have
	told    crdt.Known // what it has been told that is here
	floor   crdt.Known // of which it has forgotten tombstones
	lagged  bool       // this machine may not have covered that, and is to say when it does
	said    sayings

	control  []frame // small frames, first to go
	pushing  []frame // a push under way
	outbox   outbox  // the next push
	answers  []frame // batches that it asked for, last to go
	inFlight int     // frames with the transport
	tokens   int     // bytes of rows that may go now; a frame may overdraw it
	filledAt time.Time
	pushAt   time.Time // when the next push may begin
	flushAt  time.Time // when something that waits may go; zero: nothing waits for that

	inbox   map[uint64]*parts // batches that arrive, by serial
	merging crdt.Known        // marks of the batch that the store works on
	whole   bool              // that is a snapshot
	ask     *asking
	narrow  narrowing
	serving *serving
	hashing bool // the store hashes its rows for it
	mending bool // the store reads buckets for it

	tellAt    time.Time // zero: nothing to tell
	pullAt    time.Time
	pullAfter time.Time // not before; zero: whenever
	pingAt    time.Time
	synced    time.Time // when nothing was left to pull, last
}

// connect greets on a new connection.
func (c *core) connect(e connected) {
	l := &link{id: e.Link, to: e.To, inbox: map[uint64]*parts{}, tokens: lineBurst, filledAt: c.now}
	c.links[e.Link] = l
	l.told = c.known
	c.post(l, hello{Cluster: c.self.Cluster, Machine: c.self.Machine, Site: c.self.Site, Nonce: c.self.Nonce, Known: c.known, Floor: c.floor})
	c.flush(l)
}

// greet takes the first frame.
func (c *core) greet(l *link, f frame) {
	h, ok := f.(hello)
	if r, refused := f.(refuse); refused {
		c.drop(l.id, fmt.Errorf("refused by the other machine: %s", r.Reason))
		return
	}
	if !ok {
		c.drop(l.id, fmt.Errorf("frame of kind %d before a hello", f.kind()))
		return
	}
	if reason := c.objection(l, h); reason != "" {
		c.count.Refused++
		c.post(l, refuse{Reason: reason})
		c.flush(l)
		c.drop(l.id, fmt.Errorf("refused machine %s: %s", h.Machine, reason))
		return
	}
	l.machine, l.site, l.nonce = h.Machine, h.Site, h.Nonce
	if old := c.live[h.Machine]; old != nil {
		if !c.prefer(l, old) {
			c.drop(l.id, errDouble)
			return
		}
		c.drop(old.id, errDouble)
	}
	c.begin(l, h)
}

var errDouble = fmt.Errorf("there is another connection to this machine")

// objection is why a machine is no peer, or empty.
func (c *core) objection(l *link, h hello) string {
	switch {
	case h.Cluster != c.self.Cluster:
		return "it belongs to another cluster"
	case h.Site == c.self.Site && h.Nonce == c.self.Nonce:
		return "it is this machine itself"
	case h.Site == c.self.Site:
		c.clone = h.Machine
		return fmt.Sprintf("machines %s and %s have copies of one database; remove the store of one of them", c.self.Machine, h.Machine)
	case l.to != "" && h.Machine != l.to:
		return fmt.Sprintf("machine %s was called, %s answered", l.to, h.Machine)
	}
	if err := c.admit(h.Machine); err != nil {
		return err.Error()
	}
	if c.large() && len(c.live) >= maxLinks && c.live[h.Machine] == nil {
		return "it has enough connections; call another machine"
	}
	for _, other := range c.peers() {
		if other.site == h.Site && other.machine != h.Machine {
			return fmt.Sprintf("machines %s and %s have copies of one database; remove the store of one of them", other.machine, h.Machine)
		}
	}
	return ""
}

// prefer tells whether a new link to a machine replaces an old one. Both ends
// must come to one answer: the connection that the lower machine dialed stays.
// Of two from one dialer the newer stays, since who dials again has lost the
// older; so it is with a machine that was started anew.
func (c *core) prefer(l, old *link) bool {
	if l.nonce != old.nonce {
		return true
	}
	a, b := c.dialer(l), c.dialer(old)
	return a == b || a < b
}

func (c *core) dialer(l *link) string {
	if l.to != "" {
		return c.self.Machine
	}
	return l.machine
}

// begin makes l the link to its machine.
func (c *core) begin(l *link, h hello) {
	l.live, l.greeted, l.known, l.floor = true, h.Known, crdt.Known{}, h.Floor
	l.said = sayings{settled: h.Known, recent: h.Known, at: c.now}
	l.pullAt, l.pingAt = c.jitter(pullMin, pullMax), c.now.Add(pingEvery)
	c.live[l.machine] = l
	c.epoch++
	if c.clone == l.machine {
		c.clone = "" // it was reset
	}
	// Commits since the hello went out were not pushed on this link yet.
	if !l.told.CoversAll(c.known) {
		c.tell(l, false)
	}
	c.hear(l, h.Known)
	c.pull(l)
}

// drop closes a link.
func (c *core) drop(id linkID, reason error) {
	c.do(closeLink{Link: id, Reason: reason})
	c.forget(id)
}

func (c *core) forget(id linkID) {
	l := c.links[id]
	if l == nil {
		return
	}
	delete(c.links, id)
	if c.live[l.machine] == l {
		delete(c.live, l.machine)
		c.said[l.machine] = l.known
		c.epoch++
		// What was asked of it has to be asked of others.
		c.pullAll()
	}
}

// post queues a small frame.
func (c *core) post(l *link, f frame) { l.control = append(l.control, f) }

// flush hands frames to the transport while it takes them: small ones first,
// then news, then answers. A link that was dropped has no transport any more.
func (c *core) flush(l *link) {
	for l.inFlight < window && c.links[l.id] == l {
		f := c.next(l)
		if f == nil {
			return
		}
		l.inFlight++
		l.pingAt = c.now.Add(pingEvery)
		c.do(sendFrame{Link: l.id, Frame: f})
	}
}

func (c *core) next(l *link) frame {
	if f := pop(&l.control); f != nil {
		return f
	}
	l.flushAt = time.Time{}
	if len(l.pushing)+len(l.answers) == 0 && l.outbox.empty() || !c.mayPour(l) {
		return nil
	}
	if len(l.pushing) == 0 && !l.outbox.empty() {
		c.beginPush(l)
	}
	f := pop(&l.pushing)
	if f == nil {
		f = pop(&l.answers)
	}
	if r, ok := f.(rows); ok {
		l.tokens -= r.Batch.Size()
	}
	return f
}

// beginPush makes frames of what is in the outbox, unless the last push has
// only just begun: what is committed one after another then goes together.
func (c *core) beginPush(l *link) {
	if c.now.Before(l.pushAt) {
		l.flushAt = l.pushAt
		return
	}
	l.pushAt = c.now.Add(pushGap)
	batch := l.outbox.take()
	l.told = l.told.Union(batch.Marks)
	l.pushing = split(rows{Serial: c.serial()}, batch)
}

func pop(queue *[]frame) frame {
	if len(*queue) == 0 {
		return nil
	}
	f := (*queue)[0]
	*queue = (*queue)[1:]
	return f
}

// mayPour tells whether rows may go to a machine now. What waits meanwhile is
// kept by row in the outbox, or was not read from the store yet.
func (c *core) mayPour(l *link) bool {
	if passed := c.now.Sub(l.filledAt); passed > 0 {
		l.tokens = min(lineBurst, l.tokens+int(min(passed, time.Minute).Seconds()*lineRate))
		l.filledAt = c.now
	}
	if l.tokens <= 0 {
		l.flushAt = c.now.Add(time.Duration(1-l.tokens) * time.Second / lineRate).Add(time.Millisecond)
	}
	return l.tokens > 0
}
