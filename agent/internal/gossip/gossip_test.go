package gossip

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func itoa(n int) string { return strconv.Itoa(n) }

// deadWithin and backWithin are what the rest of the agent counts on.
const (
	deadWithin = 4 * time.Second
	backWithin = 3 * time.Second
)

type cluster struct {
	t     *testing.T
	id    string
	cable *cable
	names []string
	nodes map[string]*Gossip
	stops map[string]func()
	seeds map[string]netip.AddrPort
}

func newCluster(t *testing.T, id string, machines ...string) *cluster {
	t.Helper()
	c := &cluster{
		t: t, id: id, cable: newCable(), names: machines,
		nodes: map[string]*Gossip{}, stops: map[string]func(){}, seeds: map[string]netip.AddrPort{},
	}
	t.Cleanup(func() {
		for _, stop := range c.stops {
			stop()
		}
	})
	for i, m := range machines {
		c.start(m, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}), 0))
	}
	for _, g := range c.nodes {
		g.SetSeeds(c.seeds)
	}
	return c
}

// start runs a machine until stop is called, which ends it without a word.
func (c *cluster) start(machine string, bind netip.AddrPort) *Gossip {
	c.t.Helper()
	g, err := New(Options{Machine: machine, Cluster: c.id, Bind: bind})
	if err != nil {
		c.t.Fatal(err)
	}
	g.network = c.cable.plug
	if err := g.Start(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	c.nodes[machine], c.seeds[machine] = g, g.Addr()
	c.stops[machine] = func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("run %s: %v", machine, err)
		}
		if err := g.Close(); err != nil {
			c.t.Errorf("close %s: %v", machine, err)
		}
	}
	return g
}

func (c *cluster) stop(machine string) {
	c.stops[machine]()
	delete(c.stops, machine)
}

// await waits until machine sees exactly these alive.
func (c *cluster) await(machine string, want ...string) {
	c.t.Helper()
	slices.Sort(want)
	g := c.nodes[machine]
	changes, cancel := g.Subscribe()
	defer cancel()
	deadline := time.After(20 * time.Second)
	for !slices.Equal(slices.Sorted(maps.Keys(g.Alive())), want) {
		select {
		case <-changes:
		case <-deadline:
			c.t.Fatalf("%s sees %v, want %v", machine, slices.Sorted(maps.Keys(g.Alive())), want)
		}
	}
}

func (c *cluster) awaitAll() {
	c.t.Helper()
	for _, m := range c.names {
		c.await(m, slices.Clone(c.names)...)
	}
}

// stallWatch notices that this process got no CPU for a while; the bounds
// below hold for the protocol, not for a starved test machine.
func stallWatch() (worst func() time.Duration) {
	stop, result := make(chan struct{}), make(chan time.Duration)
	go func() {
		var worst time.Duration
		last := time.Now()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				worst, last = max(worst, time.Since(last)), now
			case <-stop:
				result <- worst
				return
			}
		}
	}()
	return func() time.Duration { close(stop); return <-result }
}

func within(t *testing.T, what string, bound time.Duration, f func()) {
	t.Helper()
	worst := stallWatch()
	began := time.Now()
	f()
	took, stall := time.Since(began), worst()
	t.Logf("%s after %v (longest stall %v)", what, took.Round(time.Millisecond), stall.Round(time.Millisecond))
	if took > bound && stall < 200*time.Millisecond {
		t.Errorf("%s after %v, want at most %v", what, took, bound)
	}
}

func TestSeedsAloneMakeACluster(t *testing.T) {
	c := newCluster(t, "cls_a", "m1", "m2", "m3")
	within(t, "all see all", backWithin, c.awaitAll)
	if _, ok := c.nodes["m1"].RTT("m1"); !ok {
		t.Error("the distance to itself is not known")
	}
	if _, ok := c.nodes["m1"].RTT("nobody"); ok {
		t.Error("the distance to a stranger is known")
	}
	deadline := time.Now().Add(15 * time.Second)
	for { // coordinates come with the first probes and have no event of their own
		if rtt, ok := c.nodes["m1"].RTT("m2"); ok && rtt > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the distance to m2 never became known")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestJoinByAddress(t *testing.T) {
	c := newCluster(t, "cls_a", "m1")
	g := c.start("m2", netip.MustParseAddrPort("127.0.0.9:0"))
	if n, err := g.Join(t.Context(), []netip.AddrPort{c.nodes["m1"].Addr()}); err != nil || n != 1 {
		t.Fatalf("join: %d, %v", n, err)
	}
	c.await("m1", "m1", "m2")
	c.await("m2", "m1", "m2")
	if _, err := g.Join(t.Context(), []netip.AddrPort{netip.MustParseAddrPort("127.0.0.9:1")}); err == nil {
		t.Error("nobody listens there, yet the join succeeded")
	}
}

func TestDeadIsSeenDeadAndReturns(t *testing.T) {
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			names := []string{"m1", "m2", "m3", "m4", "m5"}[:n]
			c := newCluster(t, "cls_a", names...)
			c.awaitAll()
			address := c.nodes["m1"].Addr()
			rest := names[1:]
			within(t, "m1 is seen dead", deadWithin, func() {
				c.stop("m1")
				for _, m := range rest {
					c.await(m, slices.Clone(rest)...)
				}
			})
			within(t, "m1 is seen again", backWithin, func() {
				c.start("m1", address).SetSeeds(c.seeds)
				c.awaitAll()
			})
		})
	}
}

func TestPartitionHeals(t *testing.T) {
	c := newCluster(t, "cls_a", "m1", "m2", "m3")
	c.awaitAll()
	within(t, "both sides see the other dead", deadWithin, func() {
		c.cable.cut(c.nodes["m3"].Addr().String())
		c.await("m1", "m1", "m2")
		c.await("m2", "m1", "m2")
		c.await("m3", "m3")
	})
	// Long enough for every machine to be in the middle of an attempt.
	time.Sleep(seekInterval + streamTimeout/2)
	within(t, "all see all", backWithin+time.Second, func() {
		c.cable.heal()
		c.awaitAll()
	})
}

func TestIdleClusterDoesNotFlap(t *testing.T) {
	c := newCluster(t, "cls_a", "m1", "m2", "m3")
	c.awaitAll()
	worst := stallWatch()
	changes, cancel := c.nodes["m1"].Subscribe()
	defer cancel()
	changed := false
	select {
	case <-changes:
		changed = true
	case <-time.After(4 * time.Second):
	}
	if stall := worst(); changed && stall < time.Second {
		t.Errorf("view changed to %v in an idle cluster", c.nodes["m1"].Alive())
	}
}

func TestLeaveIsSeenAtOnce(t *testing.T) {
	c := newCluster(t, "cls_a", "m1", "m2", "m3")
	c.awaitAll()
	within(t, "m2 is gone", 2*time.Second, func() {
		left := make(chan error, 1)
		go func() { left <- c.nodes["m2"].Leave(t.Context()) }()
		c.await("m1", "m1", "m3")
		c.await("m3", "m1", "m3")
		if err := <-left; err != nil {
			t.Errorf("leave: %v", err)
		}
	})
	address := c.nodes["m2"].Addr()
	c.stop("m2")
	c.start("m2", address).SetSeeds(c.seeds)
	c.awaitAll()
}

func TestOtherClusterIsRefused(t *testing.T) {
	a := newCluster(t, "cls_a", "m1", "m2")
	a.awaitAll()
	b := newCluster(t, "cls_b", "x1")
	if _, err := b.nodes["x1"].Join(t.Context(), []netip.AddrPort{a.nodes["m1"].Addr()}); err == nil {
		t.Error("a machine of another cluster joined")
	}
	if _, err := a.nodes["m1"].Join(t.Context(), []netip.AddrPort{b.nodes["x1"].Addr()}); err == nil {
		t.Error("a machine joined another cluster")
	}
	a.await("m1", "m1", "m2")
	b.await("x1", "x1")
}

func TestNewRefuses(t *testing.T) {
	bind := netip.MustParseAddrPort("127.0.0.1:0")
	for name, o := range map[string]Options{
		"no machine":  {Cluster: "c", Bind: bind},
		"no cluster":  {Machine: "m", Bind: bind},
		"no address":  {Machine: "m", Cluster: "c"},
		"any address": {Machine: "m", Cluster: "c", Bind: netip.MustParseAddrPort("[::]:51001")},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestStartTellsThatTheAddressIsTaken(t *testing.T) {
	c := newCluster(t, "cls_a", "m1")
	g, err := New(Options{Machine: "m2", Cluster: "cls_a", Bind: c.nodes["m1"].Addr()})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err == nil {
		t.Error("two machines on one address")
		_ = g.Close()
	}
	if err := g.Run(t.Context()); err == nil {
		t.Error("ran without a start")
	}
}
