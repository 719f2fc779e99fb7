package statesync

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"uncloud/agent/internal/crdt"
)

func connectedAll(s *sim) bool {
	for _, n := range s.nodes {
		if len(n.core.live) != len(s.nodes)-1 {
			return false
		}
	}
	return true
}

func ready(t *testing.T, size int) *sim {
	t.Helper()
	s := newSim(1, size)
	if _, ok := s.until(30*time.Second, func() bool { return connectedAll(s) }); !ok {
		t.Fatal("the nodes did not connect")
	}
	return s
}

func (s *sim) agree() bool { return s.disagreement() == "" }

func TestACommitIsEverywhereAfterOneHop(t *testing.T) {
	s := ready(t, 10)
	s.delay = func() time.Duration { return 5 * time.Millisecond }
	for i := range 20 {
		s.nodes[i%10].write("x", fmt.Sprint("k", i))
		if took, ok := s.until(time.Second, s.agree); !ok || took > 10*time.Millisecond {
			t.Fatalf("write %d took %v: %s", i, took, s.disagreement())
		}
	}
}

// Two machines that cannot reach each other agree through a third.
func TestThroughAThirdMachine(t *testing.T) {
	s := ready(t, 3)
	s.partition(false, func(a, b *node) bool { return a.n+b.n == 1 })
	s.run(time.Second)
	for i := range 5 {
		s.nodes[0].write("x", fmt.Sprint("k", i))
		took, ok := s.until(20*time.Second, s.agree)
		if !ok || took > 3*time.Second {
			t.Fatalf("took %v: %s", took, s.disagreement())
		}
	}
}

func TestANewMachineTakesASnapshot(t *testing.T) {
	s := ready(t, 3)
	for i := range 500 {
		s.nodes[i%3].write("x", fmt.Sprint("k", i%100))
	}
	s.run(5 * time.Second)
	before := s.bytes
	n := s.add()
	n.write("its own row", "mine")
	took, ok := s.until(10*time.Second, func() bool { return s.agree() && n.core.caughtUp(n.rep.Known()) })
	if !ok {
		t.Fatalf("not there after %v: %s", took, s.disagreement())
	}
	if once := 4 * 100 * 100; s.bytes-before > once {
		t.Errorf("%d bytes for 100 rows", s.bytes-before)
	}
}

func TestNotCaughtUpBeforeAllIsHere(t *testing.T) {
	s := ready(t, 2)
	for i := range 300 {
		s.nodes[0].write("x", fmt.Sprint("k", i))
	}
	s.run(time.Second)
	n := s.add()
	if n.core.caughtUp(n.rep.Known()) {
		t.Fatal("caught up with nobody")
	}
	s.until(10*time.Second, func() bool {
		if n.core.caughtUp(n.rep.Known()) && !n.rep.Known().CoversAll(s.nodes[0].rep.Known()) {
			t.Fatal("caught up without all that was there")
		}
		return n.core.caughtUp(n.rep.Known())
	})
}

func TestIdleTraffic(t *testing.T) {
	s := ready(t, 5)
	s.nodes[0].write("x", "k")
	s.run(time.Minute)
	before := s.bytes
	s.run(10 * time.Minute)
	links := 5 * 4
	if rate := float64(s.bytes-before) / 600 / float64(links); rate > 50 {
		t.Errorf("%.1f bytes a second to each peer", rate)
	}
}

// A machine that reads slowly loses its outbox and not the data.
func TestSlowMachine(t *testing.T) {
	s := ready(t, 2)
	s.lineRate = 300_000
	big, overflows, last := strings.Repeat("x", 100_000), 0, 0
	for i := range 100 {
		s.nodes[0].write(big, fmt.Sprint("k", i))
		queued := s.nodes[0].core.live["mch_001"].outbox.bytes
		if queued > outboxBytes {
			t.Fatalf("%d bytes are queued", queued)
		}
		if queued == 0 && last > outboxBytes/2 {
			overflows++
		}
		last = queued
		s.run(10 * time.Millisecond)
	}
	if took, ok := s.until(3*time.Minute, s.agree); !ok || overflows == 0 {
		t.Fatalf("after %v and %d overflows: %s", took, overflows, s.disagreement())
	}
}

// What is missing is asked for in shares, not from everyone.
func TestPullsAreSpread(t *testing.T) {
	s := ready(t, 4)
	late := s.nodes[3]
	s.partition(false, func(a, b *node) bool { return a == late || b == late })
	s.run(time.Second)
	for i := range 6000 {
		s.nodes[0].write("x", fmt.Sprint("k", i))
	}
	s.run(20 * time.Second)
	s.heal()
	before := s.bytes
	if took, ok := s.until(time.Minute, s.agree); !ok {
		t.Fatalf("after %v: %s", took, s.disagreement())
	}
	once := 0
	for _, row := range late.rep.all() {
		once += row.Size()
	}
	if got := s.bytes - before; got > once*3/2 {
		t.Errorf("%d bytes for %d bytes of rows", got, once)
	}
}

func TestWhoIsRefused(t *testing.T) {
	s := ready(t, 2)
	c := s.nodes[0].core
	known := crdt.Known{}
	me := c.self
	for name, h := range map[string]hello{
		"belongs to another cluster": {Cluster: "other", Machine: "mch_x", Site: crdt.SiteID{1}},
		"is this machine itself":     {Cluster: me.Cluster, Machine: me.Machine, Site: me.Site, Nonce: me.Nonce},
		"have copies of one":         {Cluster: me.Cluster, Machine: "mch_x", Site: me.Site, Nonce: 5},
		"mch_001 and mch_x have":     {Cluster: me.Cluster, Machine: "mch_x", Site: s.nodes[1].rep.Site(), Nonce: 5},
	} {
		c.handle(s.now, known, nil, connected{Link: 99})
		var told, closed bool
		for _, a := range c.handle(s.now, known, nil, received{Link: 99, Frame: h}) {
			switch a := a.(type) {
			case sendFrame:
				r, ok := a.Frame.(refuse)
				told = ok && strings.Contains(r.Reason, name)
			case closeLink:
				closed = a.Link == 99
			}
		}
		if !told || !closed {
			t.Errorf("%s: told %v, closed %v", name, told, closed)
		}
		if c.links[99] != nil || c.live["mch_x"] != nil {
			t.Errorf("%s: the link is still there", name)
		}
	}
	if c.clone != "mch_x" {
		t.Errorf("clone %q", c.clone)
	}
	c.handle(s.now, known, nil, connected{Link: 98})
	c.handle(s.now, known, nil, received{Link: 98, Frame: hello{Cluster: me.Cluster, Machine: "mch_x", Site: crdt.SiteID{9}}})
	if c.clone != "" || c.live["mch_x"] == nil {
		t.Errorf("the clone was reset, and is one still: %q", c.clone)
	}
}

func TestFramesBeforeAHello(t *testing.T) {
	s := newSim(1, 1)
	c := s.nodes[0].core
	c.handle(s.now, crdt.Known{}, nil, connected{Link: 1})
	actions := c.handle(s.now, crdt.Known{}, nil, received{Link: 1, Frame: ask{Req: 1, Snapshot: true}})
	if len(actions) != 1 {
		t.Fatalf("%+v", actions)
	}
	if _, ok := actions[0].(closeLink); !ok {
		t.Fatalf("%+v", actions)
	}
}

// A machine that shows a later version of this site makes the store move to a
// new site id.
func TestAnOldCopyIsNoticed(t *testing.T) {
	s := ready(t, 2)
	a, b := s.nodes[0], s.nodes[1].core.self
	seen := crdt.Version{Site: a.rep.Site(), Seq: 5}
	got := a.core.handle(s.now, a.rep.Known(), nil, received{Link: a.core.live[b.Machine].id, Frame: tell{Known: crdt.Knows(seen)}})
	if len(got) == 0 || got[0] != (reseat{Seen: seen}) {
		t.Fatalf("%+v", got)
	}
	a.core.handle(s.now, a.rep.Known(), nil, reseated{Site: crdt.SiteID{1}})
	if len(a.core.links) != 0 || a.core.self.Site != (crdt.SiteID{1}) {
		t.Fatal("the links of the old site are still there")
	}
}

// Of commits in a row the first goes at once and the others together.
func TestABurstIsPushedTogether(t *testing.T) {
	s := ready(t, 2)
	s.run(time.Second)
	before := s.frame
	for i := range 50 {
		s.nodes[0].write("x", fmt.Sprint("k", i))
	}
	took, ok := s.until(time.Second, s.agree)
	if !ok || s.frame-before != 2 {
		t.Errorf("%d frames for a burst, after %v: %s", s.frame-before, took, s.disagreement())
	}
}

// What waits for a machine whose link is dropped does not go out any more: the
// transport has closed behind the last frame.
func TestNothingIsSentOnADroppedLink(t *testing.T) {
	s := ready(t, 2)
	s.run(time.Second)
	a := s.nodes[0]
	l := a.core.live[machineName(1)]
	for i := range 3 {
		a.write("x", fmt.Sprint("k", i))
	}
	if l.outbox.empty() {
		t.Fatal("nothing waits")
	}
	closed := false
	for _, act := range a.core.handle(s.now.Add(2*pushGap), a.rep.Known(), nil, received{Link: l.id, Frame: refuse{Reason: "full"}}) {
		switch act.(type) {
		case closeLink:
			closed = true
		case sendFrame:
			t.Errorf("%+v, closed %v", act, closed)
		}
	}
	if !closed {
		t.Error("the link is still there")
	}
}

// An answer that takes longer to read, or to go out, than the other machine is
// patient comes all the same, and is not begun again beside itself.
func TestASlowAnswerIsNotBegunAgain(t *testing.T) {
	s := ready(t, 2)
	s.run(time.Second)
	a := s.nodes[0].core
	l := a.live[machineName(1)]
	reads := func(event any) (n int, rows bool) {
		for _, act := range a.handle(s.now, a.known, nil, event) {
			switch act := act.(type) {
			case exportRange:
				n++
			case sendFrame:
				rows = rows || act.Frame.kind() == kindRows
			}
		}
		return n, rows
	}
	if n, _ := reads(received{Link: l.id, Frame: ask{Req: 1, Snapshot: true}}); n != 1 {
		t.Fatalf("%d reads for a request", n)
	}
	if n, _ := reads(received{Link: l.id, Frame: ask{Req: 2, Snapshot: true}}); n != 0 {
		t.Error("it is read twice at a time")
	}
	l.tokens, l.filledAt = -lineRate, s.now
	if _, sent := reads(exported{Link: l.id, Req: 1}); sent {
		t.Fatal("the answer is out already")
	}
	if n, _ := reads(received{Link: l.id, Frame: ask{Req: 3, Snapshot: true}}); n != 0 {
		t.Error("it is read while the answer before waits to go")
	}
	l.tokens = lineBurst
	if _, sent := reads(ticked{}); !sent {
		t.Error("what was read for the first request did not come")
	}
	if n, _ := reads(received{Link: l.id, Frame: ask{Req: 4, Snapshot: true}}); n != 1 {
		t.Errorf("%d reads for the next request", n)
	}
}

// However often a machine asks for hashes and buckets, the store reads all its
// rows once at a time for it.
func TestManyScrubsReadOnce(t *testing.T) {
	s := ready(t, 2)
	s.run(time.Second)
	a := s.nodes[0].core
	l := a.live[machineName(1)]
	hashes, buckets := 0, 0
	for range 50 {
		for _, f := range []frame{sums{Known: 1}, mend{Buckets: map[string][]byte{"t": {0}}}} {
			for _, act := range a.handle(s.now, a.known, nil, received{Link: l.id, Frame: f}) {
				switch act.(type) {
				case readSums:
					hashes++
				case readBuckets:
					buckets++
				}
			}
		}
	}
	if hashes != 1 || buckets != 1 {
		t.Errorf("%d times hashed, %d times read", hashes, buckets)
	}
	a.handle(s.now, a.known, nil, summed{Link: l.id})
	a.handle(s.now, a.known, nil, bucketsRead{Link: l.id})
	if l.hashing || l.mending {
		t.Error("it is not read again, when that was done")
	}
}
