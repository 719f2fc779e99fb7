package gossip

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"uncloud/internal/spec"
)

// Network is an in-memory gossip for tests: what it does it does at once, and
// only what the test says. It has no probes and no delays.
type Network struct {
	mu    sync.Mutex
	twins map[string]*Twin
	sides map[string]int // machine -> side of the partition
	rtts  map[[2]string]time.Duration
}

// NewNetwork is a network without machines.
func NewNetwork() *Network {
	return &Network{twins: map[string]*Twin{}, sides: map[string]int{}, rtts: map[[2]string]time.Duration{}}
}

// Member is the twin of a machine, made at first use. It is part of the
// gossip after Start; every started machine on its side sees it.
func (n *Network) Member(machine string) *Twin {
	n.mu.Lock()
	defer n.mu.Unlock()
	t, ok := n.twins[machine]
	if !ok {
		t = &Twin{network: n, machine: machine, view: newView(machine)}
		n.twins[machine] = t
	}
	return t
}

// Cut puts machines on a side of their own; the rest stay together.
func (n *Network) Cut(machines ...string) {
	n.update(func() {
		side := len(n.sides) + 1
		for _, m := range machines {
			n.sides[m] = side
		}
	})
}

// Heal ends every partition.
func (n *Network) Heal() { n.update(func() { clear(n.sides) }) }

// SetRTT says how far two machines are from each other.
func (n *Network) SetRTT(a, b string, rtt time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rtts[pair(a, b)] = rtt
}

// update changes the network and then every machine's view.
func (n *Network) update(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	for _, t := range n.twins {
		t.view.change(func(alive spec.Alive) {
			clear(alive)
			alive[t.machine] = true
			for _, other := range n.twins {
				if t.up && other.up && n.sides[t.machine] == n.sides[other.machine] {
					alive[other.machine] = true
				}
			}
		})
	}
}

func pair(a, b string) [2]string {
	p := []string{a, b}
	slices.Sort(p)
	return [2]string(p)
}

var _ Member = (*Twin)(nil)

// Twin is a Member of a Network. Seeds and Join change nothing in it, because
// machines on one side always know one another.
type Twin struct {
	network *Network
	machine string
	view    *view
	up      bool // guarded by network.mu
}

// Start is described at Member.
func (t *Twin) Start(context.Context) error {
	t.network.update(func() { t.up = true })
	return nil
}

// Run waits for ctx: a Twin has nobody to seek.
func (t *Twin) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Join is described at Member: it fails when nobody else is on this side.
func (t *Twin) Join(_ context.Context, addrs []netip.AddrPort) (int, error) {
	if len(t.Alive()) == 1 {
		return 0, errors.New("join gossip: nobody answered")
	}
	return len(addrs), nil
}

// SetSeeds does nothing.
func (t *Twin) SetSeeds(map[string]netip.AddrPort) {}

// Alive is described at Member.
func (t *Twin) Alive() spec.Alive { return t.view.get() }

// Subscribe is described at Member.
func (t *Twin) Subscribe() (<-chan struct{}, func()) { return t.view.subscribe() }

// RTT is what SetRTT said; nothing is known of machines out of sight.
func (t *Twin) RTT(machine string) (time.Duration, bool) {
	if machine == t.machine {
		return 0, true
	}
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	rtt, ok := t.network.rtts[pair(t.machine, machine)]
	return rtt, ok && t.Alive()[machine]
}

// Leave is described at Member.
func (t *Twin) Leave(context.Context) error { return t.Close() }

// Close is described at Member; the others see it at once.
func (t *Twin) Close() error {
	t.network.update(func() { t.up = false })
	return nil
}
