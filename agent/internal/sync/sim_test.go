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
	now        time.Time
	weeks      time.Duration // that clocks have gone on, besides: nothing else waits so long
	rand       *rand.Rand
	queue      events
	seq        int
	nodes      []*node
	names      []string
	conns      map[*simConn]bool
	linked     map[[2]int]int                 // connections of a pair
	cut        func(a, b *node) bool          // a cannot call b, and what it sends is lost
	double     bool                           // connect also where there is a connection
	lossy      bool                           // frames are lost, come twice, or out of order
	rtt        func(a, b *node) time.Duration // default: none known
	oracle     map[rowID]crdt.Row             // all acknowledged writes, merged
	stores     func(n int) simStore
	most       int // nodes that may join
	prepare    func(*node)
	strange    bool // frames may be anything
	unscrubbed bool // no scrub at all
	forgotten  int  // tombstones collected
	frame      int  // frames sent
	bytes      int
	delay      func() time.Duration
	disk       func() time.Duration
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
	rep     simStore
	callees *contacts
	paused  bool
	backlog []func()
	slow    time.Duration // added to what its disk takes
	up      bool
	ends    map[linkID]*end
	closed  map[linkID]bool // by the core: it sends nothing there any more
	nextID  linkID
	tickAt  time.Time
	skew    time.Duration
	deaf    bool // to floors; tests set it
	clock   crdt.Clock
	version crdt.Known // acknowledged writes
}

type simConn struct {
	a, b   *end
	seq    int
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
	heard   time.Time
}

func newSim(seed uint64, size int) *sim {
	return newSimOf(seed, size, func(n int) simStore { return newReplica(n) })
}

func newSimOf(seed uint64, size int, stores func(n int) simStore) *sim {
	s := &sim{
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), rand: rand.New(rand.NewPCG(seed, 1)), stores: stores,
		conns: map[*simConn]bool{}, linked: map[[2]int]int{}, cut: never, oracle: map[rowID]crdt.Row{},
	}
	s.delay = func() time.Duration { return time.Millisecond + s.random(20*time.Millisecond) }
	s.disk = func() time.Duration { return s.random(3 * time.Millisecond) }
	for range size {
		s.add()
	}
	return s
}

func never(a, b *node) bool { return false }

func (s *sim) random(below time.Duration) time.Duration {
	return time.Duration(s.rand.Int64N(int64(below)))
}

// add brings up one more node.
func (s *sim) add() *node {
	n := &node{sim: s, n: len(s.nodes), rep: s.stores(len(s.nodes) + 1), version: crdt.Known{}}
	n.rep.onCommit(func(b crdt.Batch) {
		for _, row := range b.Rows {
			id := rowID{row.Table, row.Key}
			if old, ok := s.oracle[id]; ok {
				row = both(old, row)
			}
			s.oracle[id] = row
		}
		n.step(committed{Batch: b})
	})
	s.nodes, s.names = append(s.nodes, n), append(s.names, machineName(n.n))
	n.start()
	n.callSoon()
	return n
}

func machineName(n int) string { return fmt.Sprintf("mch_%03d", n) }

func (s *sim) named(machine string) *node {
	var n int
	if _, err := fmt.Sscanf(machine, "mch_%d", &n); err != nil {
		panic(err)
	}
	return s.nodes[n]
}

func (n *node) start() {
	who := self{Cluster: "c", Machine: machineName(n.n), Site: n.rep.Site(), Nonce: n.sim.rand.Uint64()}
	n.core = newCore(who, rand.New(rand.NewPCG(n.sim.rand.Uint64(), 2)))
	n.core.members = len(n.sim.nodes)
	n.core.distance = func(m string) (time.Duration, bool) {
		if n.sim.rtt == nil {
			return 0, false
		}
		return n.sim.rtt(n, n.sim.named(m)), true
	}
	if n.sim.unscrubbed {
		n.core.scrubAt = n.sim.now.Add(24 * time.Hour)
	}
	n.callees = newContacts(who.Machine, n.core.distance)
	n.ends, n.up, n.paused, n.backlog, n.tickAt = map[linkID]*end{}, true, false, nil, time.Time{}
}

// callSoon keeps trying to have a node connected with whom it should.
func (n *node) callSoon() {
	s := n.sim
	pace := 2 * time.Second
	if n.core.large() {
		pace = 8 * time.Second
	}
	s.after(s.random(pace), func() {
		if n.up && !n.paused {
			n.core.members = len(s.nodes)
			for _, m := range n.callees.choose(s.now, s.names) {
				n.call(s.named(m))
			}
		}
		n.callSoon()
	})
}

// call connects to a node unless there is a connection. Now and then both call
// at once, or one calls twice.
func (n *node) call(to *node) {
	s := n.sim
	switch {
	case s.linked[pair(n, to)] > 0 && (!s.double || s.rand.IntN(40) > 0):
	case !to.up || s.cut(n, to) || s.cut(to, n):
		n.callees.failed(to.core.self.Machine, s.now)
	default:
		n.callees.reached(to.core.self.Machine)
		s.connect(n, to)
	}
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

// connect is a calling b.
func (s *sim) connect(a, b *node) {
	s.seq++
	c := &simConn{seq: s.seq}
	open := func(n *node) *end {
		n.nextID++
		e := &end{node: n, id: n.nextID, conn: c, arrives: s.now, heard: s.now}
		n.ends[e.id] = e
		return e
	}
	c.a, c.b = open(a), open(b)
	c.a.peer, c.b.peer = c.b, c.a
	s.conns[c] = true
	s.linked[pair(a, b)]++
	a.step(connected{Link: c.a.id, To: b.core.self.Machine})
	b.step(connected{Link: c.b.id})
	s.after(helloTimeout, func() { s.watch(c) })
}

// watch breaks a connection as the timeouts of a wire do: without a hello, or
// silent for long.
func (s *sim) watch(c *simConn) {
	if c.broken {
		return
	}
	for _, e := range []*end{c.a, c.b} {
		l := e.node.core.links[e.id]
		if l == nil || !l.live || s.now.Sub(e.heard) > readTimeout {
			s.breakConn(c)
			return
		}
	}
	s.after(helloTimeout, func() { s.watch(c) })
}

// breakConn loses what is under way; the ends notice at different times.
func (s *sim) breakConn(c *simConn) {
	if c.broken {
		return
	}
	c.broken = true
	delete(s.conns, c)
	s.linked[pair(c.a.node, c.b.node)]--
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

// partition cuts all pairs for which apart holds, and heals the others. With
// silent, connections are not broken: what is sent over them is lost.
func (s *sim) partition(silent bool, apart func(a, b *node) bool) {
	s.cut = apart
	if silent {
		return
	}
	for _, c := range slices.SortedFunc(maps.Keys(s.conns), func(a, b *simConn) int { return a.seq - b.seq }) {
		if apart(c.a.node, c.b.node) || apart(c.b.node, c.a.node) {
			s.breakConn(c)
		}
	}
}

func (s *sim) heal() { s.cut = never }

// pause stops a node for some time, as a machine that swaps or sleeps.
func (n *node) pause(d time.Duration) {
	if !n.up || n.paused {
		return
	}
	n.paused = true
	core := n.core
	n.sim.after(d, func() {
		if n.core == core && n.up {
			n.resume()
		}
	})
}

func (n *node) resume() {
	n.paused = false
	for len(n.backlog) > 0 && !n.paused {
		do := n.backlog[0]
		n.backlog = n.backlog[1:]
		do()
	}
}

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
	if n.up && !n.paused {
		at := n.clock.Next(n.wall())
		n.version = n.version.Union(crdt.Knows(n.rep.write(at, value, keys...)))
	}
}

// step is what the Syncer does with a core.
func (n *node) step(event any) {
	if !n.up {
		return
	}
	if n.paused {
		n.backlog = append(n.backlog, func() { n.step(event) })
		return
	}
	for _, a := range n.core.handle(n.sim.now, n.rep.Known(), n.floor().Known, event) {
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
		if n.closed[a.Link] {
			panic(fmt.Sprintf("a frame of kind %d is sent on a link that was closed", a.Frame.kind()))
		}
		n.send(n.ends[a.Link], a.Frame)
	case closeLink:
		if n.closed == nil {
			n.closed = map[linkID]bool{}
		}
		n.closed[a.Link] = true
		if e := n.ends[a.Link]; e != nil {
			delete(n.ends, a.Link)
			// What was sent still arrives.
			n.sim.after(100*time.Millisecond, func() { n.sim.breakConn(e.conn) })
		}
	case mergeBatch:
		n.merge(a, n.ends[a.Link])
	case exportRange:
		n.later(n.diskTime(), func() {
			e := exported{Link: a.Link, Req: a.Req, Floor: n.floor()}
			if a.Snapshot {
				var all crdt.Snapshot
				all, e.Err = n.rep.Snapshot(context.Background())
				e.Batch = all.Batch
			} else {
				e.Batch, e.Err = n.rep.Export(context.Background(), a.Site, a.Range.First, a.Range.Last, 2000)
			}
			n.step(e)
		})
	case readRelay:
		n.later(n.diskTime(), func() { n.relay(a) })
	case readSums:
		n.later(n.diskTime(), func() {
			known, tables, err := n.rep.Buckets(context.Background())
			n.step(summed{Link: a.Link, Theirs: a.Theirs, Known: known, Tables: tables, Err: err})
		})
	case readBuckets:
		n.later(n.diskTime(), func() {
			found, err := n.rep.BucketRows(context.Background(), a.Buckets)
			n.step(bucketsRead{Link: a.Link, Rows: found, Err: err})
		})
	case reseat:
		if !n.sim.strange {
			panic(fmt.Sprintf("node %d is told of its own version %v", n.n, a.Seen))
		}
	default:
		panic(fmt.Sprintf("action %T", a))
	}
}

func (n *node) diskTime() time.Duration { return n.sim.disk() + n.slow }

// merge reads on from the link only when it is done.
func (n *node) merge(a mergeBatch, e *end) {
	if e != nil {
		e.merging = true
	}
	n.later(n.diskTime(), func() {
		done := merged{mergeBatch: a}
		n.rep.setTime(n.wall())
		switch {
		case a.Mend:
			done.Repaired, done.Err = n.rep.Repair(context.Background(), a.Batch.Rows)
		case a.Whole && !n.deaf:
			_, done.Err = n.rep.AdoptSnapshot(context.Background(), crdt.Snapshot{Batch: a.Batch, Floor: a.Floor})
		default:
			_, done.Err = n.rep.Merge(context.Background(), a.Batch)
		}
		n.step(done)
		if e != nil {
			e.merging = false
			e.deliver()
		}
	})
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

// disagreement says in what the cluster does not agree, or nothing. What all
// agree on must be what was acknowledged, merged in any order.
func (s *sim) disagreement() string {
	first := s.nodes[0].rep.Known()
	for _, n := range s.nodes {
		known := n.rep.Known()
		if !known.Equal(first) {
			return fmt.Sprintf("nodes 0 and %d know %v and %v", n.n, first, known)
		}
		for site, ranges := range known {
			if gaps := ranges.Gaps(); len(gaps) > 0 {
				return fmt.Sprintf("node %d has gaps %v of site %v", n.n, gaps, site)
			}
		}
	}
	for _, writer := range s.nodes {
		if lost := writer.version.Minus(first); len(lost) > 0 {
			return fmt.Sprintf("the acknowledged writes %v are lost", lost)
		}
	}
	for _, n := range s.nodes {
		if d := strays(n.rep, s.oracle); d != "" {
			return fmt.Sprintf("node %d against all acknowledged writes: %s", n.n, d)
		}
	}
	return ""
}
