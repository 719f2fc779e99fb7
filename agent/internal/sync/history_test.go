package statesync

import (
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/store"
)

var (
	seedsFlag    = flag.Int("seeds", 200, "how many histories to simulate")
	seedFlag     = flag.Uint64("seed", 0, "the first of them")
	machinesFlag = flag.Int("machines", 0, "how many machines they have; 0: between 2 and 7")
)

// quiet is how long a cluster may take to agree once nothing is in its way.
const quiet = 2 * time.Minute

// step is one thing that happens in a history. Steps stand for themselves, so
// that a history that fails can be told again without some of them.
type step struct {
	verb  string
	node  int
	keys  []string
	value string
	lasts time.Duration
	lot   uint64        // decides what the verb leaves open
	wait  time.Duration // before the next step
}

func (st step) String() string {
	switch st.verb {
	case "write":
		return fmt.Sprintf("node %d writes %q to %v, then %v", st.node, st.value, st.keys, st.wait)
	case "delete", "burst":
		return fmt.Sprintf("node %d: %s %v, then %v", st.node, st.verb, st.keys, st.wait)
	}
	return fmt.Sprintf("%s (node %d, %v, lot %x), then %v", st.verb, st.node, st.lasts, st.lot&0xffff, st.wait)
}

// verbs and how often each comes up.
var verbs = []string{
	"write", "write", "write", "write", "write", "write", "write", "write", "write", "delete", "delete", "burst", "join",
	"partition", "shatter", "one way", "silence", "heal", "heal", "crash", "pause", "skew", "slow disk", "lossy", "calm", "heal", "scrub",
	"week", "week", "collect", "collect", "collect", "forget", "upgrade",
}

// historyOf draws the steps of a seed.
func historyOf(seed uint64, size int) []step {
	r := rand.New(rand.NewPCG(seed, 7))
	key := func() string { return fmt.Sprint("k", r.IntN(8)) }
	between := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
	var out []step
	count := 140
	if size > directLimit {
		count = 60 // each step costs a thousand machines their share
	}
	for i := range count {
		st := step{verb: verbs[r.IntN(len(verbs))], node: r.IntN(size), lot: r.Uint64(), lasts: between(20 * time.Second), wait: between(1500 * time.Millisecond)}
		switch st.verb {
		case "write":
			st.keys, st.value = []string{key(), key()}, fmt.Sprint(i%7, " is written")
		case "delete":
			for range 1 + st.lot%2*5 {
				st.keys = append(st.keys, []string{key(), fmt.Sprint("b", r.IntN(30))}[st.lot%2])
			}
		}
		out = append(out, st)
	}
	return out
}

// draw is a number that only lot and its arguments decide.
func draw(lot uint64, of ...int) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, lot, of)
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

func (s *sim) take(st step) {
	n := s.nodes[st.node%len(s.nodes)]
	switch st.verb {
	case "write":
		n.write(st.value, st.keys...)
	case "delete":
		n.write("", st.keys...)
	case "burst": // more than a newcomer asks for version by version
		count := 80
		if n.core.large() {
			count = 5
		}
		for i := range count {
			n.write(fmt.Sprint("burst ", i), fmt.Sprint("b", draw(st.lot, i)%30))
		}
	case "join":
		if len(s.nodes) < s.most {
			s.prepare(s.add())
		}
	case "crash":
		n.crash(st.lasts)
	case "pause":
		n.pause(st.lasts)
	case "skew":
		n.skew = time.Duration(int(draw(st.lot)%2001)-1000) * time.Second
	case "slow disk":
		n.slow = st.lasts / 10
	case "lossy":
		s.lossy = true
	case "calm":
		s.lossy = false
	case "heal":
		s.heal()
	case "week":
		s.weeks += store.Retention + time.Hour
	case "collect":
		n.collect(s.names)
	case "forget": // members that are not connected were removed, and come back
		n.collect(slices.Collect(maps.Keys(n.core.live)))
	case "upgrade":
		n.upgrade(st.lasts / 4)
	case "scrub":
		if !s.unscrubbed {
			n.step(scrubNow{})
		}
	default:
		s.cutBy(st)
	}
	s.run(st.wait)
}

// cutBy takes the network apart as a step says.
func (s *sim) cutBy(st step) {
	switch st.verb {
	case "partition", "silence":
		side := func(n *node) bool { return draw(st.lot, n.n)%3 == 0 }
		s.partition(st.verb == "silence", func(a, b *node) bool { return side(a) != side(b) })
	case "shatter":
		s.partition(false, func(a, b *node) bool { return draw(st.lot, pair(a, b)[0], pair(a, b)[1])%3 == 0 })
	case "one way":
		s.partition(true, func(a, b *node) bool { return draw(st.lot, a.n, b.n)%4 == 0 })
	default:
		panic(st.verb)
	}
}

// calm puts everything right and keeps it so.
func (s *sim) calm() {
	s.heal()
	s.lossy, s.double = false, false
	for _, n := range s.nodes {
		n.slow = 0
		if n.up && n.paused {
			n.resume()
		}
	}
}

// play lets a cluster live through steps, and then says what is wrong with it
// after a time of quiet; nothing is if it is empty.
func play(seed uint64, size int, steps []step, prepare func(*node)) (*sim, string) {
	began := max(2, size*3/4) // the others join
	s := newSim(seed, 0)
	s.double, s.most, s.prepare = true, size, prepare
	// A scrub could hide what the others get wrong: half of the histories go
	// without.
	s.unscrubbed = seed%2 == 1
	for range began {
		prepare(s.add())
	}
	for _, st := range steps {
		s.take(st)
	}
	for len(s.nodes) < size && len(steps) > 0 {
		prepare(s.add())
	}
	s.calm()
	return s, s.settle()
}

// settle waits until the cluster agrees and has caught up.
func (s *sim) settle() string {
	wrong := ""
	for began := s.now; s.now.Sub(began) < quiet; {
		s.run(time.Second)
		if wrong = s.disagreement(); wrong == "" {
			wrong = s.behind()
		}
		if wrong == "" {
			s.run(5 * time.Second)
			return s.disagreement()
		}
	}
	return wrong
}

func (s *sim) behind() string {
	for _, n := range s.nodes {
		if !n.up || !n.core.caughtUp(n.rep.Known()) {
			return fmt.Sprintf("node %d has not caught up", n.n)
		}
	}
	return ""
}

// shrink leaves out steps as long as the history still fails.
func shrink(seed uint64, size int, steps []step, prepare func(*node)) []step {
	deadline := time.Now().Add(20 * time.Second)
	for chunk := len(steps) / 2; chunk > 0; chunk /= 2 {
		for i := 0; i+chunk <= len(steps) && time.Now().Before(deadline); {
			less := slices.Concat(steps[:i], steps[i+chunk:])
			if _, wrong := play(seed, size, less, prepare); wrong != "" {
				steps = less
			} else {
				i += chunk
			}
		}
	}
	return steps
}

func sizeOf(seed uint64) int {
	if *machinesFlag > 0 {
		return *machinesFlag
	}
	return 2 + int(draw(seed)%6)
}

// explain tells of a failed seed in as few steps as still fail.
func explain(seed uint64, wrong string, prepare func(*node)) string {
	size := sizeOf(seed)
	steps := historyOf(seed, size)
	few := shrink(seed, size, steps, prepare)
	_, again := play(seed, size, few, prepare)
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d with %d machines: %s\n%d of its %d steps suffice for: %s\n", seed, size, wrong, len(few), len(steps), again)
	for _, st := range few {
		fmt.Fprintf(&b, "    %v\n", st)
	}
	fmt.Fprintf(&b, "again: ./dev sim --machines %d --seeds 1 --seed %d", *machinesFlag, seed)
	return b.String()
}

// TestSimulate is ./dev sim, and some of it in every run of the tests: whole
// clusters in virtual time, with all that can happen to them.
func TestSimulate(t *testing.T) {
	began := time.Now()
	seeds := make(chan uint64)
	var all totals
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := range seeds {
				size := sizeOf(seed)
				s, wrong := play(seed, size, historyOf(seed, size), func(*node) {})
				all.add(s)
				if wrong != "" {
					t.Error(explain(seed, wrong, func(*node) {}))
				}
			}
		})
	}
	for i := range uint64(*seedsFlag) {
		if t.Failed() {
			break
		}
		seeds <- *seedFlag + i
	}
	close(seeds)
	wg.Wait()
	t.Logf("%v; %v", &all, time.Since(began).Round(time.Millisecond))
}

// totals shows that the histories were worth something.
type totals struct {
	mu                                                       sync.Mutex
	histories, machines, writes, frames, forgotten           int
	merged, relayed, snapshots, turnedAway, scrubs, repaired uint64
}

func (a *totals) add(s *sim) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.histories++
	a.machines += len(s.nodes)
	a.frames += s.frame
	a.forgotten += s.forgotten
	for _, n := range s.nodes {
		c := n.core.count
		a.writes += int(n.version.Count())
		a.merged, a.relayed, a.snapshots = a.merged+c.Merged, a.relayed+c.Relayed, a.snapshots+c.Snapshots
		a.turnedAway, a.scrubs, a.repaired = a.turnedAway+c.TurnedAway, a.scrubs+c.Scrubs, a.repaired+c.Repaired
	}
}

func (a *totals) String() string {
	return fmt.Sprintf("%d histories agree: %d machines, %d writes acknowledged and none lost, %d frames, %d merges, %d relays, %d snapshots, %d turned away, %d scrubs, %d rows ahead of their version evened out, %d tombstones collected",
		a.histories, a.machines, a.writes, a.frames, a.merged, a.relayed, a.snapshots, a.turnedAway, a.scrubs, a.repaired, a.forgotten)
}

// One seed is one history: a failure can be looked at again.
func TestASeedRepeats(t *testing.T) {
	for seed := range uint64(5) {
		a, _ := play(seed, 5, historyOf(seed, 5), func(*node) {})
		b, _ := play(seed, 5, historyOf(seed, 5), func(*node) {})
		if a.frame != b.frame || a.bytes != b.bytes || !a.now.Equal(b.now) {
			t.Fatalf("seed %d: %d frames and %d bytes, then %d and %d", seed, a.frame, a.bytes, b.frame, b.bytes)
		}
	}
}

// mistakes are what a simulation must notice to be worth something.
var mistakes = map[string]func(*node){
	"merge keeps what came first in a tie": func(n *node) {
		mapOf(n).merge = func(a, b crdt.Record) crdt.Record {
			if a.CL == b.CL {
				return a
			}
			return crdt.Merge(a, b)
		}
	},
	"merge takes the later stamp, whatever the counts": func(n *node) {
		mapOf(n).merge = func(a, b crdt.Record) crdt.Record {
			if b.MaxStamp() >= a.MaxStamp() {
				return b
			}
			return a
		}
	},
	"merge brings deleted rows back": func(n *node) {
		mapOf(n).merge = func(a, b crdt.Record) crdt.Record {
			if a.Alive() != b.Alive() {
				if a.Alive() {
					return a
				}
				return b
			}
			return crdt.Merge(a, b)
		}
	},
	"an answer forgets a row": func(n *node) {
		mapOf(n).omit = func(r crdt.Row) bool { return r.Key == "k1" || r.Key == "b1" }
	},
	"a range counts as known though its rows were dropped": func(n *node) {
		count := 0
		mapOf(n).lose = func(b crdt.Batch) bool {
			count++
			return count%20 == 0
		}
	},
	"floors are ignored":                     func(n *node) { n.deaf = true },
	"rows are born and stay below the floor": func(n *node) { mapOf(n).low = true },
}

func mapOf(n *node) *replica { return n.rep.(*replica) }

func TestMistakesAreNoticed(t *testing.T) {
	for name, mistake := range mistakes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(50) {
				if _, wrong := play(seed, 5, historyOf(seed, 5), mistake); wrong != "" {
					t.Logf("seed %d: %s", seed, wrong)
					return
				}
			}
			t.Error("50 histories did not notice")
		})
	}
}

// A failure is told in few steps.
func TestAFailureShrinks(t *testing.T) {
	mistake := mistakes["an answer forgets a row"]
	for seed := range uint64(20) {
		size := sizeOf(seed)
		steps := historyOf(seed, size)
		if _, wrong := play(seed, size, steps, mistake); wrong == "" {
			continue
		}
		few := shrink(seed, size, steps, mistake)
		if _, wrong := play(seed, size, few, mistake); wrong == "" || len(few) > len(steps)/3 {
			t.Fatalf("seed %d: %d of %d steps are left, which give %q", seed, len(few), len(steps), wrong)
		}
		return
	}
	t.Fatal("no history failed")
}

// What bookkeeping has lost comes back by the scrub, and is counted.
func TestScrubRepairs(t *testing.T) {
	for seed := range uint64(10) {
		s, wrong := play(seed, 5, historyOf(seed, 5), mistakes["a range counts as known though its rows were dropped"])
		if wrong == "" {
			continue
		}
		for _, n := range s.nodes {
			mapOf(n).lose = func(crdt.Batch) bool { return false }
			n.step(scrubNow{})
		}
		s.run(10 * time.Second)
		repaired := uint64(0)
		for _, n := range s.nodes {
			repaired += n.core.count.Repaired
		}
		if d := s.disagreement(); d != "" || repaired == 0 {
			t.Fatalf("seed %d: %d rows repaired, yet %s", seed, repaired, d)
		}
		return
	}
	t.Fatal("nothing was lost")
}
