package statesync

import (
	"fmt"
	"testing"
	"time"

	"uncloud/agent/internal/crdt"
)

// spoilers is a node that has a row which leaves it malformed, in its version
// 300 of 600, and one that lacks all of them.
func spoilers(t *testing.T) (s *sim, from, to *node, bad crdt.Version) {
	s = ready(t, 2)
	from, to = s.nodes[0], s.nodes[1]
	s.partition(false, func(a, b *node) bool { return true })
	for i := range 600 {
		key := fmt.Sprint("k", i)
		if i == 299 {
			key = "bad"
		}
		from.write("x", key)
	}
	mapOf(from).bad = "bad"
	return s, from, to, crdt.Version{Site: from.rep.Site(), Seq: 300}
}

// allBut tells whether a node knows all that another does, except one version.
func allBut(n, other *node, v crdt.Version) bool {
	return n.rep.Known().Equal(other.rep.Known().Minus(crdt.Knows(v)))
}

// One malformed row costs its own version, and that until it is mended; the
// link, and all else that comes by it, goes on.
func TestAMalformedRow(t *testing.T) {
	s, from, to, bad := spoilers(t)
	to.write("something else is here already", "y")
	mapOf(to).known = mapOf(to).known.Union(crdt.Knows(crdt.Version{Site: crdt.SiteID{9}, Seq: 1}))
	mapOf(from).known = mapOf(from).known.Union(crdt.Knows(crdt.Version{Site: crdt.SiteID{9}, Seq: 1}))
	s.heal()
	if took, ok := s.until(30*time.Second, func() bool { return allBut(to, from, bad) }); !ok {
		t.Fatalf("after %v: %v", took, to.rep.Known())
	}
	for i := range 5 {
		from.write("later", fmt.Sprint("l", i))
	}
	s.run(time.Second)
	if !allBut(to, from, bad) {
		t.Errorf("later changes do not come: %v", to.rep.Known())
	}
	if _, here := to.rep.all()[rowID{"t", "bad"}]; here || len(to.rep.all()) != 605 {
		t.Errorf("%d rows are here, the malformed one: %v", len(to.rep.all()), here)
	}
	before := to.core.count
	s.run(refusedFor / 2)
	if n := to.core.count; n.Spoilt == 0 || n.Spoilt > 40 || n.Asked-before.Asked > 2 || len(to.core.live) != 1 {
		t.Errorf("while it is refused: %+v, before %+v", n, before)
	}
	s.run(2 * refusedFor)
	if n := to.core.count.Spoilt; n > 120 {
		t.Errorf("%d batches were refused", n)
	}
	mapOf(from).bad = ""
	if took, ok := s.until(2*refusedFor, s.agree); !ok {
		t.Errorf("mended, yet after %v: %s", took, s.disagreement())
	}
}

// A new machine whose snapshot is spoilt takes what it can by versions.
func TestAMalformedRowInASnapshot(t *testing.T) {
	s, from, to, bad := spoilers(t)
	s.heal()
	if took, ok := s.until(30*time.Second, func() bool { return allBut(to, from, bad) }); !ok {
		t.Fatalf("after %v: %v", took, to.rep.Known())
	}
	if from.core.count.Snapshots != 1 {
		t.Errorf("%d snapshots were asked for", from.core.count.Snapshots)
	}
}

// A push that cannot be read is asked for, and so found.
func TestAMalformedPush(t *testing.T) {
	s := ready(t, 2)
	from, to := s.nodes[0], s.nodes[1]
	l := from.core.live[machineName(1)]
	s.partition(true, func(a, b *node) bool { return true })
	from.write("x", "k") // lost on its way
	s.heal()
	l.inFlight++
	from.send(from.ends[l.id], rows{Serial: 99, Batch: crdt.Batch{Rows: []crdt.Row{{Table: "t", Key: "k"}}, Marks: from.rep.Known()}})
	if took, ok := s.until(time.Minute, s.agree); !ok || to.core.count.Spoilt != 1 {
		t.Errorf("after %v: %s, %+v", took, s.disagreement(), to.core.count)
	}
}

// What the store says is impossible is found and left out in the same way.
func TestWhatTheStoreRefuses(t *testing.T) {
	s, from, to, bad := spoilers(t)
	mapOf(from).bad = ""
	mapOf(to).refuse = "bad"
	s.heal()
	if took, ok := s.until(30*time.Second, func() bool { return allBut(to, from, bad) }); !ok {
		t.Fatalf("after %v: %v", took, to.rep.Known())
	}
}

// A snapshot that is larger than a machine takes at once costs neither the link
// nor the memory, and what it holds comes by versions.
func TestASnapshotThatIsTooLarge(t *testing.T) {
	s := newSim(1, 1)
	c := s.nodes[0].core
	handle := func(event any) []action { return c.handle(s.now, crdt.Known{}, nil, event) }
	asked := func(actions []action) (a ask, ok bool) {
		for _, act := range actions {
			if f, is := act.(sendFrame); is && f.Frame.kind() == kindAsk {
				return f.Frame.(ask), true
			}
		}
		return a, false
	}
	site := crdt.SiteID{7}
	handle(connected{Link: 1})
	h := hello{Cluster: c.self.Cluster, Machine: "mch_x", Site: site, Known: crdt.Known{site: crdt.Single(1, 500)}}
	a, ok := asked(handle(received{Link: 1, Frame: h}))
	if !ok || !a.Snapshot {
		t.Fatalf("%+v", a)
	}
	big := crdt.Row{Table: "t", Key: "k", Record: crdt.Record{CL: 1, Cells: []crdt.Cell{{Column: "v", Ver: 1, Value: crdt.Blob(make([]byte, 1<<20))}}}}
	for i := range 600 {
		s.now = s.now.Add(askPatience / 2)
		handle(ticked{})
		handle(received{Link: 1, Frame: rows{Req: a.Req, Serial: 1, Part: uint64(i), More: i < 599, Batch: crdt.Batch{Rows: []crdt.Row{big}}}})
		if c.links[1] == nil || c.links[1].inboxed() > inboxBytes {
			t.Fatal("after", i, "parts the link is dropped, or they have no bound")
		}
	}
	next, ok := asked(handle(received{Link: 1, Frame: done{Req: a.Req}}))
	if !ok || next.Snapshot || next.Wants.Count() == 0 {
		t.Errorf("%v %+v", ok, next)
	}
}
