package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"

	"uncloud/agent/internal/stall"
	"uncloud/internal/spec"
)

// Member is one machine's part in the gossip. Gossip implements it over the
// network, Twin in memory.
type Member interface {
	// Start begins to answer and to probe. It returns when the address is
	// bound, before any other machine is known.
	Start(ctx context.Context) error
	// Run seeks absent seeds until ctx ends. It needs Start before it.
	Run(ctx context.Context) error
	// Join meets the cluster through any of addrs, and tells how many of them
	// answered. It is an error when none did. SetSeeds does the same in the
	// background.
	Join(ctx context.Context, addrs []netip.AddrPort) (int, error)
	// SetSeeds replaces what is known of all machines, by id; the machine
	// itself may be among them. Whoever of them is absent is sought.
	SetSeeds(seeds map[string]netip.AddrPort)
	// Alive is the set of living machines by this machine's own view, itself
	// included. It is immutable.
	Alive() spec.Alive
	// Subscribe gives a channel that holds a token after Alive has changed,
	// however often, and a function that ends the subscription.
	Subscribe() (changes <-chan struct{}, cancel func())
	// RTT is the estimated round trip to a machine; false when nothing is
	// known of it yet.
	RTT(machine string) (time.Duration, bool)
	// Leave tells the others that this machine goes on purpose, and waits for
	// the news to spread (about a second) or for ctx. Close must follow.
	Leave(ctx context.Context) error
	// Close stops without a word: the others will find out by probing.
	Close() error
}

var _ Member = (*Gossip)(nil)

// ProtocolVersion is what machines say they speak. A machine that speaks
// another one is a member all the same: the number is for future changes.
const ProtocolVersion = "1"

const (
	tagCluster = "cluster"
	tagVersion = "v"
)

// Options of a Gossip. All but Logger are needed.
type Options struct {
	Machine string         // id
	Cluster string         // id; machines of another one are refused
	Bind    netip.AddrPort // the management address, port 51001; port 0 picks a free one
	Logger  *slog.Logger   // nil: nothing is logged
}

// Gossip is membership over Serf.
type Gossip struct {
	options Options
	logger  *slog.Logger
	view    *view
	seeker  *seeker
	drained chan struct{}                                          // closed when no event of Serf is left
	turn    stall.Turn                                             // of drain
	network func(*memberlist.Config) (memberlist.Transport, error) // sockets; tests put a switch between

	mu   sync.Mutex
	serf *serf.Serf // nil before Start
}

// New checks options and touches nothing.
func New(options Options) (*Gossip, error) {
	switch {
	case options.Machine == "":
		return nil, errors.New("gossip: no machine id")
	case options.Cluster == "":
		return nil, errors.New("gossip: no cluster id")
	case !options.Bind.Addr().IsValid() || options.Bind.Addr().IsUnspecified():
		return nil, fmt.Errorf("gossip: %v is no address to bind to", options.Bind)
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	return &Gossip{
		options: options,
		logger:  options.Logger,
		view:    newView(options.Machine),
		seeker:  newSeeker(options.Machine),
		drained: make(chan struct{}),
		network: sockets,
	}, nil
}

// Start is described at Member.
func (g *Gossip) Start(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.serf != nil {
		return errors.New("gossip: already started")
	}
	events := make(chan serf.Event, 256)
	s, err := g.create(events)
	if err != nil {
		return fmt.Errorf("start gossip on %v: %w", g.options.Bind, err)
	}
	g.serf = s
	go g.drain(events, s.ShutdownCh())
	return nil
}

// create binds before it makes Serf, because Serf leaves a goroutine behind
// when it cannot bind.
func (g *Gossip) create(events chan<- serf.Event) (*serf.Serf, error) {
	config := g.config(events)
	transport, err := g.network(config.MemberlistConfig)
	if err != nil {
		return nil, err
	}
	config.MemberlistConfig.Transport = transport
	s, err := serf.Create(config)
	if err != nil {
		return nil, errors.Join(err, transport.Shutdown())
	}
	return s, nil
}

// sockets is the transport over UDP and TCP. Port 0 is settled here.
func sockets(config *memberlist.Config) (memberlist.Transport, error) {
	t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{config.BindAddr},
		BindPort:  config.BindPort,
		Logger:    config.Logger,
	})
	if err != nil {
		return nil, err
	}
	config.BindPort = t.GetAutoBindPort()
	config.AdvertisePort = config.BindPort
	return t, nil
}

func (g *Gossip) config(events chan<- serf.Event) *serf.Config {
	text := newSerfLog(g.logger)
	m := memberlistConfig()
	m.BindAddr = g.options.Bind.Addr().String()
	m.BindPort = int(g.options.Bind.Port())
	m.AdvertiseAddr = m.BindAddr
	m.AdvertisePort = m.BindPort
	m.Label = g.options.Cluster
	m.Logger = text

	c := serf.DefaultConfig()
	c.NodeName = g.options.Machine
	c.Tags = map[string]string{tagCluster: g.options.Cluster, tagVersion: ProtocolVersion}
	c.EventCh = events
	c.Merge = sameCluster(g.options.Cluster)
	c.MemberlistConfig = m
	c.Logger, c.LogOutput = text, nil
	c.LeavePropagateDelay = leavePropagation
	c.BroadcastTimeout = leaveBroadcast
	// Its cure for two machines with one name is that one of them leaves for
	// good. Ids are random: two equal ones are a copied disk, and the original
	// must not go.
	c.EnableNameConflictResolution = false
	// Run seeks better; see timing.go.
	c.ReconnectInterval = 24 * time.Hour
	return c
}

// sameCluster refuses members of another cluster. The label on every packet
// keeps strangers from being heard at all; this also holds against a member
// that learnt of a stranger by other means.
type sameCluster string

func (c sameCluster) NotifyMerge(members []*serf.Member) error {
	for _, m := range members {
		if other := m.Tags[tagCluster]; other != string(c) {
			return fmt.Errorf("machine %s is of cluster %q", m.Name, other)
		}
	}
	return nil
}

// drain turns Serf's events into views until Serf has shut down. Serf holds
// its lock while it sends, so nothing here may call it.
func (g *Gossip) drain(events <-chan serf.Event, down <-chan struct{}) {
	defer close(g.drained)
	for {
		select {
		case e := <-events:
			g.turn.Begin()
			g.apply(collect(e, events))
			g.turn.End()
		case <-down:
			return
		}
	}
}

// collect is first and every event that already waits: a side that returns
// brings many, and is one change.
func collect(first serf.Event, more <-chan serf.Event) []serf.Event {
	all := []serf.Event{first}
	for {
		select {
		case e := <-more:
			all = append(all, e)
		default:
			return all
		}
	}
}

func (g *Gossip) apply(events []serf.Event) {
	g.view.change(func(alive spec.Alive) {
		for _, e := range events {
			if e, ok := e.(serf.MemberEvent); ok {
				g.applyMembers(alive, e)
			}
		}
	})
}

func (g *Gossip) applyMembers(alive spec.Alive, e serf.MemberEvent) {
	for _, m := range e.Members {
		if m.Name == g.options.Machine {
			continue
		}
		switch e.Type {
		case serf.EventMemberJoin:
			alive[m.Name] = true
			g.logger.Info("machine is alive", "machine", m.Name)
		case serf.EventMemberFailed:
			delete(alive, m.Name)
			g.logger.Info("machine does not answer", "machine", m.Name)
		case serf.EventMemberLeave:
			delete(alive, m.Name)
			g.logger.Info("machine left", "machine", m.Name)
		case serf.EventMemberReap:
			delete(alive, m.Name)
		}
	}
}

// Stalled is for how long one batch of news of members has been taken in, 0
// while none is. It takes microseconds.
func (g *Gossip) Stalled() time.Duration { return g.turn.Took() }

// running is Serf, or an error before Start.
func (g *Gossip) running() (*serf.Serf, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.serf == nil {
		return nil, errors.New("gossip: not started")
	}
	return g.serf, nil
}

// Join is described at Member.
func (g *Gossip) Join(ctx context.Context, addrs []netip.AddrPort) (int, error) {
	s, err := g.running()
	if err != nil {
		return 0, err
	}
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	type result struct {
		n   int
		err error
	}
	// Serf knows no context; each address takes streamTimeout at most, so the
	// goroutine ends by itself.
	done := make(chan result, 1)
	go func() {
		n, err := s.Join(texts, true)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return r.n, fmt.Errorf("join gossip: %w", r.err)
		}
		return r.n, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("join gossip: %w", ctx.Err())
	}
}

// SetSeeds is described at Member.
func (g *Gossip) SetSeeds(seeds map[string]netip.AddrPort) { g.seeker.setSeeds(seeds) }

// Alive is described at Member.
func (g *Gossip) Alive() spec.Alive { return g.view.get() }

// Subscribe is described at Member.
func (g *Gossip) Subscribe() (<-chan struct{}, func()) { return g.view.subscribe() }

// Addr is the address that is bound; not valid before Start.
func (g *Gossip) Addr() netip.AddrPort {
	s, err := g.running()
	if err != nil {
		return netip.AddrPort{}
	}
	m := s.LocalMember()
	addr, _ := netip.AddrFromSlice(m.Addr)
	return netip.AddrPortFrom(addr.Unmap(), m.Port)
}

// RTT is described at Member. The estimate comes from network coordinates,
// which probes keep current at no extra cost.
func (g *Gossip) RTT(machine string) (time.Duration, bool) {
	if machine == g.options.Machine {
		return 0, true
	}
	s, err := g.running()
	if err != nil {
		return 0, false
	}
	there, ok := s.GetCachedCoordinate(machine)
	if !ok {
		return 0, false
	}
	here, err := s.GetCoordinate()
	if err != nil {
		return 0, false // coordinates are always on: cannot be
	}
	return here.DistanceTo(there), true
}

// Leave is described at Member.
func (g *Gossip) Leave(ctx context.Context) error {
	s, err := g.running()
	if err != nil {
		return err
	}
	g.seeker.setSeeds(nil) // whoever leaves must not seek
	done := make(chan error, 1)
	go func() { done <- s.Leave() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("leave gossip: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("leave gossip: %w", ctx.Err())
	}
}

// Close is described at Member. It may be called more than once.
func (g *Gossip) Close() error {
	s, err := g.running()
	if err != nil {
		return nil // never started: nothing to stop
	}
	if err := s.Shutdown(); err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	<-g.drained
	return nil
}
