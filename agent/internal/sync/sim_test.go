package statesync

import (
	"container/heap"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"uncloud/agent/internal/crdt"
)

// sim is a cluster in one goroutine and in virtual time: cores with replicas,
// and a network that delays, breaks and partitions. One seed is one history.
type sim struct {
	now    time.Time
	rand   *rand.Rand
	queue  events
	seq    int
	nodes  []*node
	conns  []*simConn
	cut    map[[2]int]bool // pairs that cannot connect
	double bool            // connect also where there is a connection
	frame  int             // frames delivered
	bytes  int
	delay  func() time.Duration
	disk   func() time.Duration
	// lineRate is bytes a second that a connection carries; 0: no limit.
	lineRate int
}

type simEvent struct {
	at  time.Time
	seq int
	do  func()
}

type events []simEvent

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(simEvent)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

type node struct {
	sim     *sim
	n       int
	core    *core
	rep     *replica
	up      bool
	ends    map[linkID]*end
	nextID  linkID
	tickAt  time.Time
	skew    time.Duration
	clock   crdt.Clock
	version crdt.Known // acknowledged writes
}

type simConn struct {
	a, b   *end
	broken bool
}

// end is one side of a connection.
type end struct {
	node    *node
	id      linkID
	conn    *simConn
	peer    *end
	arrives time.Time // of the last frame sent towards it
	inbox   [][]byte
	merging bool
}

func newSim(seed uint64, size int) *sim {
	s := &sim{
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), rand: rand.New(rand.NewPCG(seed, 1)),
		cut: map[[2]int]bool{},
	}
	s.delay = func() time.Duration { return time.Millisecond + s.random(20*time.Millisecond) }
	s.disk = func() time.Duration { return s.random(3 * time.Millisecond) }
	for range size {
		s.add()
	}
	return s
}

func (s *sim) random(below time.Duration) time.Duration {
	return time.Duration(s.rand.Int64N(int64(below)))
}

// add brings up one more node, which connects to all others.
func (s *sim) add() *node {
	n := &node{sim: s, n: len(s.nodes), rep: newReplica(len(s.nodes) + 1), version: crdt.Known{}}
	n.rep.hook = func(b crdt.Batch) { n.step(committed{Batch: b}) }
	for _, other := range s.nodes {
		s.connectSoon(n, other)
	}
	s.nodes = append(s.nodes, n)
	n.start()
	return n
}

func (n *node) start() {
	who := self{Cluster: "c", Machine: fmt.Sprintf("mch_%03d", n.n), Site: n.rep.site, Nonce: n.sim.rand.Uint64()}
	n.core = newCore(who, rand.New(rand.NewPCG(n.sim.rand.Uint64(), 2)))
	n.ends, n.up, n.tickAt = map[linkID]*end{}, true, time.Time{}
}

func (s *sim) after(d time.Duration, do func()) {
	s.seq++
	heap.Push(&s.queue, simEvent{s.now.Add(d), s.seq, do})
}

// run lets virtual time pass.
func (s *sim) run(d time.Duration) {
	end := s.now.Add(d)
	for len(s.queue) > 0 && !s.queue[0].at.After(end) {
		e := heap.Pop(&s.queue).(simEvent)
		s.now = e.at
		e.do()
	}
	s.now = end
}

// until runs until cond holds, and says how long that took; false after limit.
func (s *sim) until(limit time.Duration, cond func() bool) (time.Duration, bool) {
	began := s.now
	for s.now.Sub(began) < limit {
		if cond() {
			return s.now.Sub(began), true
		}
		s.run(time.Millisecond)
	}
	return limit, cond()
}

func pair(a, b *node) [2]int { return [2]int{min(a.n, b.n), max(a.n, b.n)} }

// connectSoon keeps trying to have two nodes connected.
func (s *sim) connectSoon(a, b *node) {
	s.after(s.random(2*time.Second), func() {
		// Now and then both call at once, or one calls twice.
		if a.up && b.up && !s.cut[pair(a, b)] && (!s.linked(a, b) || s.double && s.rand.IntN(20) == 0) {
			if s.rand.IntN(2) == 0 {
				a, b = b, a
			}
			s.connect(a, b)
		}
		s.connectSoon(a, b)
	})
}

func (s *sim) linked(a, b *node) bool {
	for _, c := range s.conns {
		if c.a.node == a && c.b.node == b || c.a.node == b && c.b.node == a {
			return true
		}
	}
	return false
}

// connect is a calling b.
func (s *sim) connect(a, b *node) {
	c := &simConn{}
	open := func(n *node) *end {
		n.nextID++
		e := &end{node: n, id: n.nextID, conn: c, arrives: s.now}
		n.ends[e.id] = e
		return e
	}
	c.a, c.b = open(a), open(b)
	c.a.peer, c.b.peer = c.b, c.a
	s.conns = append(s.conns, c)
	a.step(connected{Link: c.a.id, To: b.core.self.Machine})
	b.step(connected{Link: c.b.id})
}

// breakConn loses what is under way; the ends notice at different times.
func (s *sim) breakConn(c *simConn) {
	if c.broken {
		return
	}
	c.broken = true
	s.conns = slices.DeleteFunc(s.conns, func(other *simConn) bool { return other == c })
	for _, e := range []*end{c.a, c.b} {
		s.after(s.random(500*time.Millisecond), func() { e.node.lose(e) })
	}
}

func (n *node) lose(e *end) {
	if n.ends[e.id] == e {
		delete(n.ends, e.id)
		n.step(disconnected{Link: e.id})
	}
}

// partition cuts all pairs for which apart holds, and heals the others.
func (s *sim) partition(apart func(a, b *node) bool) {
	for i, a := range s.nodes {
		for _, b := range s.nodes[:i] {
			s.cut[pair(a, b)] = apart(a, b)
		}
	}
	for _, c := range slices.Clone(s.conns) {
		if s.cut[pair(c.a.node, c.b.node)] {
			s.breakConn(c)
		}
	}
}

func (s *sim) heal() { s.partition(func(a, b *node) bool { return false }) }

// crash takes a node down, as a power cut does, and up again later.
func (n *node) crash(down time.Duration) {
	if !n.up {
		return
	}
	n.up = false
	for _, id := range slices.Sorted(maps.Keys(n.ends)) {
		e := n.ends[id]
		n.sim.breakConn(e.conn)
	}
	n.ends = map[linkID]*end{}
	n.rep.crash()
	n.sim.after(down, n.start)
}

func (n *node) write(value string, keys ...string) {
	if n.up {
		at := n.clock.Next(n.sim.now.Add(n.skew))
		n.version = n.version.Union(crdt.Knows(n.rep.write(at, value, keys...)))
	}
}

// step is what the Syncer does with a core.
func (n *node) step(event any) {
	if !n.up {
		return
	}
	for _, a := range n.core.handle(n.sim.now, n.rep.known, event) {
		n.act(a)
	}
	if next := n.core.deadline(); !next.IsZero() && (n.tickAt.IsZero() || next.Before(n.tickAt)) {
		n.tickAt = next
		core := n.core
		n.sim.after(next.Sub(n.sim.now), func() {
			if n.core == core && n.tickAt.Equal(next) {
				n.tickAt = time.Time{}
				n.step(ticked{})
			}
		})
	}
}

func (n *node) act(a any) {
	switch a := a.(type) {
	case sendFrame:
		n.send(n.ends[a.Link], a.Frame)
	case closeLink:
		if e := n.ends[a.Link]; e != nil {
			delete(n.ends, a.Link)
			// What was sent still arrives.
			n.sim.after(100*time.Millisecond, func() { n.sim.breakConn(e.conn) })
		}
	case mergeBatch:
		e := n.ends[a.Link]
		if e != nil {
			e.merging = true
		}
		n.later(n.sim.disk(), func() {
			_, err := n.rep.Merge(context.Background(), a.Batch)
			n.step(merged{Link: a.Link, Req: a.Req, Err: err})
			if e != nil {
				e.merging = false
				e.deliver()
			}
		})
	case exportRange:
		n.later(n.sim.disk(), func() {
			var b crdt.Batch
			var err error
			if a.Snapshot {
				b, err = n.rep.Snapshot(context.Background())
			} else {
				b, err = n.rep.Export(context.Background(), a.Site, a.Range.First, a.Range.Last, 2000)
			}
			n.step(exported{Link: a.Link, Req: a.Req, Batch: b, Err: err})
		})
	default:
		panic(fmt.Sprintf("action %T", a))
	}
}

// later does something unless the node has crashed until then.
func (n *node) later(d time.Duration, do func()) {
	core := n.core
	n.sim.after(d, func() {
		if n.up && n.core == core {
			do()
		}
	})
}

func (n *node) send(e *end, f frame) {
	if e == nil {
		return
	}
	s, packed := n.sim, appendFrame(nil, f)
	s.frame, s.bytes = s.frame+1, s.bytes+len(packed)+4
	took := time.Duration(0)
	if s.lineRate > 0 {
		took = time.Duration(len(packed)) * time.Second / time.Duration(s.lineRate)
	}
	begin := s.now
	if e.peer.arrives.After(begin) && s.lineRate > 0 {
		begin = e.peer.arrives
	}
	arrives := begin.Add(took + s.delay())
	if arrives.Before(e.peer.arrives) {
		arrives = e.peer.arrives
	}
	e.peer.arrives = arrives
	n.later(begin.Add(took).Sub(s.now), func() {
		if n.ends[e.id] == e {
			n.step(sent{Link: e.id})
		}
	})
	s.after(arrives.Sub(s.now), func() {
		if !e.conn.broken && e.peer.node.ends[e.peer.id] == e.peer {
			e.peer.inbox = append(e.peer.inbox, packed)
			e.peer.deliver()
		}
	})
}

// deliver reads on, unless the store is at work on what was read.
func (e *end) deliver() {
	for len(e.inbox) > 0 && !e.merging && e.node.ends[e.id] == e {
		f, err := parseFrame(e.inbox[0])
		if err != nil {
			panic(err)
		}
		e.inbox = e.inbox[1:]
		e.node.step(received{Link: e.id, Frame: f})
	}
}

// disagreement says in what the cluster does not agree, or nothing.
func (s *sim) disagreement() string {
	for _, n := range s.nodes {
		if d := n.rep.differs(s.nodes[0].rep); d != "" {
			return fmt.Sprintf("node %d differs: %s", n.n, d)
		}
		for _, writer := range s.nodes {
			if lost := writer.version.Minus(n.rep.known); len(lost) > 0 {
				return fmt.Sprintf("node %d lacks the acknowledged writes %v", n.n, lost)
			}
		}
	}
	return ""
}
