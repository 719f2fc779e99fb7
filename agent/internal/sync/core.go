package statesync

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"uncloud/agent/internal/crdt"
)

const (
	// pullMin to pullMax is how often each link is looked at for something to
	// pull, though no event asked for it.
	pullMin, pullMax = 5 * time.Second, 15 * time.Second
	// tellMin to tellMax is how long what was merged is collected before other
	// machines are told. Those who hear first need not tell back.
	tellMin, tellMax = 500 * time.Millisecond, 1500 * time.Millisecond
	// pingEvery keeps an idle link known to be alive.
	pingEvery = 10 * time.Second
	// askPatience is how long an answer may stand still before its versions
	// are asked of another machine.
	askPatience = 5 * time.Second
	// busyPause to twice that is when a machine that is turned away may ask
	// again.
	busyPause = time.Second
	// window is how many frames of a link may be with the transport.
	window = 8
	// credits is how many batches of an answer may be unacknowledged.
	credits = 4
	// maxServing is how many answers are given at once.
	maxServing = 3
	// askVersions is how many versions one request names.
	askVersions = 2000
	// snapshotFrom is how many versions a machine that has nothing must lack
	// before it asks for everything in one piece.
	snapshotFrom = 64
	// lineRate is how many bytes of rows a second go to one machine, and
	// lineBurst how many may go at once after a pause.
	lineRate, lineBurst = 4 << 20, 1 << 20
	// pushGap is the least time from one push to the next. The first commit
	// after a pause goes at once. Of many in a row, each would cost the other
	// machine a transaction, and all machines together more than the writer.
	pushGap = 5 * time.Millisecond
	// outboxBytes bounds what waits for one machine. Beyond it the machine
	// pulls instead.
	outboxBytes = 4 << 20
	// inboxBytes bounds the batches of a link that arrive in parts.
	inboxBytes = 256 << 20
	// inboxBatches bounds the batches that arrive at one time.
	inboxBatches = 16
)

type linkID uint64

// Events are what happens to a core.
type (
	// connected is a new connection. To is the machine that was dialed, or
	// empty for a connection that was accepted.
	connected struct {
		Link linkID
		To   string
	}
	disconnected struct{ Link linkID }
	received     struct {
		Link  linkID
		Frame frame
	}
	// sent says that the transport took one frame off its hands.
	sent struct{ Link linkID }
	// committed is a local commit.
	committed struct{ Batch crdt.Batch }
	// merged answers a mergeBatch.
	merged struct {
		mergeBatch
		Repaired int // rows that a scrub has changed
		Err      error
	}
	// read answers a readRelay.
	read struct {
		From  linkID
		Batch crdt.Batch
	}
	// census asks all machines what they have.
	census struct{}
	// collected says that the store has forgotten tombstones.
	collected struct{}
	// exported answers an exportRange.
	exported struct {
		Link  linkID
		Req   uint64
		Batch crdt.Batch
		// Floor is the store's after the read: of a snapshot its own.
		Floor crdt.Floor
		Err   error
	}
	// reseated says that the store writes under another site id.
	reseated struct{ Site crdt.SiteID }
	// poked asks for an exchange with one machine now, or with all if empty.
	poked  struct{ Machine string }
	ticked struct{}
)

// Actions are what a core wants done.
type (
	sendFrame struct {
		Link  linkID
		Frame frame
	}
	// closeLink closes a connection once what was sent is out.
	closeLink struct {
		Link   linkID
		Reason error
	}
	// mergeBatch is done before more is read from the link.
	mergeBatch struct {
		Link  linkID
		Req   uint64
		Fresh bool // it holds versions that nothing else brings
		Mend  bool // rows of a scrub
		Batch crdt.Batch
		// Whole is a snapshot, to be adopted with its Floor.
		Whole bool
		Floor crdt.Floor
	}
	// readRelay reads the rows of versions that were pushed here, to be passed
	// on as they are here: the store may know of their removal.
	readRelay struct {
		From  linkID
		Marks crdt.Known
	}
	// exportRange reads from the store: a range, or everything if Snapshot.
	exportRange struct {
		Link     linkID
		Req      uint64
		Snapshot bool
		Site     crdt.SiteID
		Range    crdt.Range
	}
	// reseat says that another machine knows a version of this site that the
	// store does not have.
	reseat struct{ Seen crdt.Version }
)

// self is who a core speaks for.
type self struct {
	Cluster string
	Machine string
	Site    crdt.SiteID
	Nonce   uint64
}

// core is the protocol without any I/O. It is not safe for concurrent use.
type core struct {
	self  self
	rand  *rand.Rand
	links map[linkID]*link
	live  map[string]*link      // by machine
	known crdt.Known            // what the store has, as of the present event
	floor crdt.Known            // of which it has forgotten tombstones
	said  map[string]crdt.Known // what machines had that are not connected any more, by id
	reqs  uint64
	// members is the size of the cluster, and distance how far another machine
	// is: false where that is unknown. Both decide who is pushed to.
	members  int
	distance func(machine string) (time.Duration, bool)
	admit    func(machine string) error
	serials  uint64
	scrubAt  time.Time
	movedAt  time.Time // when anything was committed or merged, last
	tries    int       // to scrub, though something moved
	count    Counters
	clone    string  // machine that was seen to have this site's id
	epoch    uint64  // counts changes of live
	sorted   []*link // live, as of sortedAt
	sortedAt uint64
	summedOf crdt.Known
	summedTo uint64 // hash of summedOf
	out      []action
	now      time.Time
}

type action any

func newCore(who self, random *rand.Rand) *core {
	return &core{
		self: who, rand: random, links: map[linkID]*link{}, live: map[string]*link{}, said: map[string]crdt.Known{},
		distance: func(string) (time.Duration, bool) { return 0, false },
		admit:    func(string) error { return nil },
	}
}

// handle takes one event at a time. known is what the store has now, and floor
// of what it has forgotten tombstones.
func (c *core) handle(now time.Time, known, floor crdt.Known, event any) []action {
	c.now, c.known, c.floor, c.out = now, known, floor, nil
	switch e := event.(type) {
	case connected:
		c.connect(e)
	case committed:
		c.movedAt = now
		c.push(e.Batch)
	case reseated:
		c.self.Site = e.Site
		for _, id := range slices.Sorted(maps.Keys(c.links)) {
			c.drop(id, fmt.Errorf("this machine took a new site id"))
		}
	case poked:
		for _, l := range c.peers() {
			if e.Machine == "" || e.Machine == l.machine {
				c.tell(l, true)
				c.pull(l)
			}
		}
	case scrubNow:
		for _, l := range c.peers() {
			c.hash(l, nil)
		}
	case census:
		c.ask()
	case collected:
		c.raised()
	case read:
		c.relay(e)
	case ticked:
		c.tick()
	default:
		c.handleOf(event)
	}
	return c.out
}

// handleOf takes the events of one link; those of a closed one are late.
func (c *core) handleOf(event any) {
	switch e := event.(type) {
	case disconnected:
		c.forget(e.Link)
	case received:
		if l := c.links[e.Link]; l != nil {
			c.receive(l, e.Frame)
			c.flush(l)
		}
	case sent:
		if l := c.links[e.Link]; l != nil {
			l.inFlight--
			c.flush(l)
		}
	case merged:
		c.afterMerge(c.links[e.Link], e)
	case exported:
		if l := c.links[e.Link]; l != nil {
			c.answer(l, e)
			c.flush(l)
		}
	case summed:
		if l := c.links[e.Link]; l != nil {
			c.summed(l, e)
			c.flush(l)
		}
	case bucketsRead:
		if l := c.links[e.Link]; l != nil {
			c.sendBuckets(l, e)
			c.flush(l)
		}
	}
}

func (c *core) do(a action) { c.out = append(c.out, a) }

// serial numbers the batches that are sent.
func (c *core) serial() uint64 {
	c.serials++
	return c.serials
}

func (c *core) jitter(from, to time.Duration) time.Time {
	return c.now.Add(from + time.Duration(c.rand.Int64N(int64(to-from))))
}

// receive takes a frame from a link.
func (c *core) receive(l *link, f frame) {
	if !l.live {
		c.greet(l, f)
		return
	}
	switch f := f.(type) {
	case tell:
		c.hear(l, f.Known)
		c.answerTell(l, f)
		c.pull(l)
	case rows:
		c.collect(l, f)
	case ask:
		c.serve(l, f)
	case ack:
		c.acknowledged(l, f)
	case done:
		c.finish(l, f)
	case refuse:
		c.drop(l.id, fmt.Errorf("refused by the other machine: %s", f.Reason))
	case ping:
		c.checkView(l, f)
	case sums:
		c.compare(l, f)
	case mend:
		c.readBuckets(l, f.Buckets)
	case floor:
		l.floor, l.lagged = l.floor.Union(f.Known), true
		c.pull(l)
	case hello:
		c.drop(l.id, fmt.Errorf("a second hello"))
	}
}

// hear notes what the other machine has.
func (c *core) hear(l *link, known crdt.Known) {
	if !l.known.CoversAll(known) {
		l.known = l.known.Union(known)
	}
	if head := known.Head(c.self.Site); head > c.known.Head(c.self.Site) {
		c.do(reseat{Seen: crdt.Version{Site: c.self.Site, Seq: head}})
	}
}

// checkView compares what the other machine has with what it is thought to
// have. They differ when news are under way, and else when some were lost.
func (c *core) checkView(l *link, f ping) {
	switch f.Sum {
	case c.sum():
		// It has all that is here. An idle cluster so keeps one vector a machine
		// in memory, and not several for each link.
		l.known, l.told = c.known, c.known
	case sumOf(l.known):
	default:
		c.post(l, tell{Known: crdt.Known{}, Afresh: true})
	}
}

// tick does what is due on every link.
func (c *core) tick() {
	c.giveUpWaiting()
	if c.scrubAt.IsZero() {
		c.scrubAt = c.jitter(0, scrubMax)
	}
	if !c.now.Before(c.scrubAt) {
		c.scrub()
	}
	for _, l := range c.peers() {
		if !l.tellAt.IsZero() && !c.now.Before(l.tellAt) {
			c.tell(l, false)
		}
		if !c.now.Before(l.pullAt) {
			l.pullAt = c.jitter(pullMin, pullMax)
			c.pull(l)
		}
		if !l.pullAfter.IsZero() && !c.now.Before(l.pullAfter) {
			l.pullAfter = time.Time{}
			c.pull(l)
		}
		if !c.now.Before(l.pingAt) {
			l.pingAt = c.now.Add(pingEvery)
			l.said.settle(c.now, l.known)
			if l.inFlight == 0 {
				c.tell(l, false)
				c.post(l, ping{Sum: c.sum()})
			}
		}
		c.flush(l)
	}
}

// giveUpWaiting lets go of requests that stand still: others may answer them.
func (c *core) giveUpWaiting() {
	late := false
	for _, l := range c.peers() {
		if l.ask != nil && !c.now.Before(l.ask.deadline) {
			l.ask, l.pullAfter, late = nil, c.now.Add(askPatience), true
		}
	}
	if late {
		c.pullAll()
	}
}

func (c *core) pullAll() {
	for _, l := range c.peers() {
		c.pull(l)
	}
}

// peers is the live links in a fixed order, so that a simulation with one seed
// runs the same way each time. Nobody may write to it.
func (c *core) peers() []*link {
	if c.sortedAt != c.epoch {
		c.sortedAt = c.epoch
		c.sorted = slices.SortedFunc(maps.Values(c.live), func(a, b *link) int { return strings.Compare(a.machine, b.machine) })
	}
	return c.sorted
}

// deadline is when the core next wants to be ticked; zero for not at all.
func (c *core) deadline() time.Time {
	var next time.Time
	if len(c.live) > 0 {
		next = c.scrubAt
	}
	for _, l := range c.peers() {
		asked := time.Time{}
		if l.ask != nil {
			asked = l.ask.deadline
		}
		for _, t := range [...]time.Time{l.tellAt, l.pullAt, l.pullAfter, l.pingAt, l.flushAt, asked} {
			if !t.IsZero() && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}

// caughtUp tells whether all is here that the connected machines had when they
// connected.
func (c *core) caughtUp(known crdt.Known) bool {
	for _, l := range c.peers() {
		if !known.CoversAll(l.greeted.Without(c.self.Site)) {
			return false
		}
		l.greeted = nil // what is known stays so
	}
	return len(c.live) > 0
}
