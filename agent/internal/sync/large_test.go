package statesync

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

var spreadFlag = flag.Int("spread", 150, "how many machines hear of one change")

// world puts nodes at places from some of which light takes 75 ms to others:
// the round trip is 1 to 200 ms.
func world(s *sim) {
	type place struct{ x, y float64 }
	places := map[int]place{}
	at := func(n *node) place {
		p, ok := places[n.n]
		if !ok {
			region := draw(uint64(n.n), 1) % 6
			p = place{float64(draw(region, 2)%100) + float64(draw(uint64(n.n), 3)%8), float64(draw(region, 4)%100) + float64(draw(uint64(n.n), 5)%8)}
			places[n.n] = p
		}
		return p
	}
	s.rtt = func(a, b *node) time.Duration {
		p, q := at(a), at(b)
		return time.Millisecond + time.Duration(1.4*math.Hypot(p.x-q.x, p.y-q.y)*float64(time.Millisecond))
	}
}

// TestOneChangeSpreads measures, in virtual time, how soon one change is
// everywhere in a large cluster over several continents, and what it costs.
func TestOneChangeSpreads(t *testing.T) {
	s := newSim(1, 0)
	world(s)
	for range *spreadFlag {
		s.add()
	}
	s.run(time.Minute)
	links := 0
	for _, n := range s.nodes {
		links += len(n.core.live)
		if len(n.core.live) < fanout || len(n.core.live) > maxLinks {
			t.Errorf("node %d has %d links", n.n, len(n.core.live))
		}
	}
	before := s.bytes
	s.run(20 * time.Second)
	idle := float64(s.bytes-before) / 20 / float64(len(s.nodes))
	var most, all, cost []time.Duration
	for i := range 5 {
		m, a, bytes := s.spread(t, s.nodes[i*len(s.nodes)/5], idle)
		most, all, cost = append(most, m), append(all, a), append(cost, time.Duration(bytes))
	}
	t.Logf("%d machines, %d links each, idle %.0f B/s a machine: 99 %% have a change after %v, all after %v (medians of 5; worst %v and %v); %d bytes sent by a machine for it",
		len(s.nodes), links/len(s.nodes), idle, median(most), median(all), slices.Max(most), slices.Max(all), median(cost))
	if slices.Max(most) > time.Second || slices.Max(all) > 3*time.Second {
		t.Errorf("99 %% after %v and all after %v", most, all)
	}
}

func median(of []time.Duration) time.Duration { return slices.Sorted(slices.Values(of))[len(of)/2] }

// spread writes once and waits until 99 of 100 nodes, and all, have it. The
// bytes are those of five seconds, without what is sent in an idle cluster.
func (s *sim) spread(t *testing.T, writer *node, idle float64) (most, all time.Duration, bytes int) {
	t.Helper()
	s.delay = func() time.Duration { return s.random(2 * time.Millisecond) }
	before, began := s.bytes, s.now
	writer.write("a row of about a hundred bytes, as the replicas of a service are on the average, more or less", "k"+fmt.Sprint(s.now.Unix()))
	v := writer.rep.Known().Head(writer.rep.Site())
	for all == 0 && s.now.Sub(began) < 20*time.Second {
		s.run(time.Millisecond)
		have := 0
		for _, n := range s.nodes {
			if n.rep.Known().Head(writer.rep.Site()) >= v {
				have++
			}
		}
		if most == 0 && have*100 >= len(s.nodes)*99 {
			most = s.now.Sub(began)
		}
		if have == len(s.nodes) {
			all = s.now.Sub(began)
		}
	}
	if all == 0 {
		t.Fatal("not everywhere after 20 s")
	}
	s.run(5*time.Second - s.now.Sub(began))
	return most, all, (s.bytes-before)/len(s.nodes) - int(5*idle)
}

// In a large cluster whoever is not reached is passed over for another.
func TestContacts(t *testing.T) {
	var members []string
	for i := range 200 {
		members = append(members, machineName(i))
	}
	near := func(m string) (time.Duration, bool) {
		var n int
		_, err := fmt.Sscanf(m, "mch_%d", &n)
		return time.Duration(n) * time.Millisecond, err == nil
	}
	now := time.Unix(0, 0)
	c := newContacts("mch_000", near)
	first := c.choose(now, members)
	if len(first) != fanout || !slices.Contains(first, "mch_001") || !slices.Contains(first, "mch_004") || slices.Max(first) < "mch_020" {
		t.Fatalf("chosen %v", first)
	}
	if again := c.choose(now, members); !slices.Equal(first, again) {
		t.Fatalf("then %v", again)
	}
	c.failed("mch_001", now)
	if next := c.choose(now, members); len(next) != fanout || slices.Contains(next, "mch_001") {
		t.Fatalf("after a failure %v", next)
	}
	for _, m := range members {
		c.failed(m, now)
	}
	if next := c.choose(now, members); len(next) != fanout {
		t.Fatalf("with all unreachable %v", next)
	}
	if few := c.choose(now, members[:directLimit+1]); len(few) != directLimit {
		t.Fatalf("%d of a small cluster", len(few))
	}
	left := c.choose(now, members[100:])
	if slices.ContainsFunc(left, func(m string) bool { return m < "mch_100" }) || len(left) != fanout {
		t.Fatalf("of others %v", left)
	}
}
