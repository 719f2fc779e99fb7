package mesh

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Options of a Mesh.
type Options struct {
	Logger *slog.Logger // nil: nothing is logged
	Host   Host         // nil: this machine
	Link   string       // name of the link between machines, required
	Bridge string       // name of the bridge of the containers, required
	// BridgeRemade, if set, is called after a bridge that had been removed by
	// somebody was made again: containers that were on it have lost their
	// network until they are restarted. It must not call the Mesh.
	BridgeRemade func()
	// EndpointTimeout is how long a new endpoint has to complete a handshake
	// before the next one is tried; 0 means 15 s. Less than 5 s leaves no time
	// for a second attempt.
	EndpointTimeout time.Duration
}

// Identity is who this machine is in the mesh.
type Identity struct {
	PrivateKey Key
	ListenPort uint16
	MTU        int          // of link and bridge; 0 means derive it from the way out
	Subnet     netip.Prefix // its /24
	Network    netip.Prefix // of the cluster
}

// Mesh keeps the link, its peers and the bridge as they should be.
type Mesh struct {
	options Options
	logger  *slog.Logger
	host    Host
	kick    chan struct{} // wakes Run
	moved   chan struct{} // holds a token after LocalEndpoints has changed

	mu        sync.Mutex
	identity  Identity
	publicKey Key
	kind      Kind
	mtu       int
	told      bool // SetPeers was called: until then adopted peers stay
	peers     []Peer
	tickets   []Key
	paths     map[Key]path
	bridge    bool        // EnsureBridge was called, or the bridge adopted
	hadBridge bool        // the bridge has been seen: if it is missing, somebody removed it
	seen      []Interface // of the last look
	local     []netip.Prefix
	started   bool
	right     bool // the last apply made everything so
}

// New wires a Mesh and touches nothing.
func New(options Options) *Mesh {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Host == nil {
		options.Host = NewHost(options.Logger)
	}
	if options.EndpointTimeout == 0 {
		options.EndpointTimeout = endpointTimeout
	}
	return &Mesh{
		options: options,
		logger:  options.Logger,
		host:    options.Host,
		kick:    make(chan struct{}, 1),
		moved:   make(chan struct{}, 1),
		paths:   map[Key]path{},
	}
}

// Start brings the link up with the management address, or adopts the link
// that an earlier agent left: its peers stay as they are until SetPeers. The
// machine's own IPv4 address comes with EnsureBridge, since Podman refuses to
// make a network whose subnet is on any link already; where the bridge has it
// from before, it is adopted at once.
func (m *Mesh) Start(identity Identity) error {
	publicKey, err := identity.PrivateKey.Public()
	if err != nil {
		return fmt.Errorf("start mesh: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.identity, m.publicKey = identity, publicKey
	if err := m.start(); err != nil {
		return fmt.Errorf("start mesh: %w", err)
	}
	m.started = true
	m.logger.Info("mesh is up", "link", m.options.Link, "kind", m.kind, "address", ManagementAddress(publicKey))
	return nil
}

func (m *Mesh) start() error {
	if err := m.look(); err != nil {
		return err
	}
	if err := m.chooseMTU(); err != nil {
		return err
	}
	if err := m.open(); err != nil {
		return err
	}
	if err := m.adopt(); err != nil {
		return err
	}
	return m.apply(time.Now())
}

// look takes note of the networks that this machine is on.
func (m *Mesh) look() error {
	interfaces, err := m.host.Interfaces()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	m.seen = interfaces
	local := reachable(interfaces, m.ours(), m.identity.Network)
	if !slices.Equal(local, m.local) {
		m.local = local
		signal(m.moved)
	}
	return nil
}

func (m *Mesh) ours() []string { return []string{m.options.Link, m.options.Bridge} }

// chooseMTU follows the way out, which may come long after the agent, with
// another link: an MTU that is too large loses every full packet. Where no way
// is known, what was chosen before stays.
func (m *Mesh) chooseMTU() error {
	if m.identity.MTU > 0 {
		m.mtu = m.identity.MTU
		return nil
	}
	egress, err := m.host.EgressMTU()
	if err != nil {
		return fmt.Errorf("find the way out: %w", err)
	}
	if egress == 0 {
		interfaces, err := m.host.Interfaces()
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		egress = leastMTU(interfaces, m.ours(), m.identity.Network)
	}
	before := m.mtu
	if egress > 0 || before == 0 {
		m.mtu = TunnelMTU(egress)
	}
	if before > 0 && before != m.mtu {
		m.logger.Info("the way out has another MTU", "link", m.options.Link, "mtu", m.mtu)
	}
	return nil
}

// open makes the link or adopts it.
func (m *Mesh) open() error {
	kind, err := m.host.OpenLink(m.options.Link, m.mtu)
	if err != nil {
		return err
	}
	m.kind = kind
	// Hosting providers like to switch IPv6 off for links to come.
	return m.host.SetSysctl("net/ipv6/conf/"+m.options.Link+"/disable_ipv6", "0")
}

// adopt takes over what an earlier agent left: peers, until SetPeers says
// otherwise, and the bridge, if it has our address.
func (m *Mesh) adopt() error {
	bridge, err := m.host.Link(m.options.Bridge)
	if err == nil && slices.Contains(bridge.Addresses, m.bridgeAddress()) {
		m.bridge, m.hadBridge = true, true
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	device, err := m.host.Device(m.options.Link)
	if err != nil {
		return err
	}
	for _, p := range device.Peers {
		m.paths[p.PublicKey] = path{endpoint: p.Endpoint, handshake: p.Handshake}
	}
	return nil
}

func (m *Mesh) bridgeAddress() netip.Prefix {
	if !m.identity.Subnet.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(Gateway(m.identity.Subnet), m.identity.Subnet.Bits())
}

// EnsureBridge gives the containers their bridge, with the first address of
// subnet, and the link the same address: from then on IPv4 flows between
// machines. The engine's network must exist before (see Start). Another subnet
// than before renumbers link and bridge.
func (m *Mesh) EnsureBridge(subnet netip.Prefix) error {
	return m.change("ensure bridge", func() { m.identity.Subnet, m.bridge = subnet.Masked(), true })
}

// ReleaseSubnet takes the machine's IPv4 address from link and bridge, so that
// the engine's network can be made anew. EnsureBridge puts it back.
func (m *Mesh) ReleaseSubnet() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.started {
		return errors.New("release subnet: mesh is not started")
	}
	m.bridge = false
	if err := m.apply(time.Now()); err != nil {
		return fmt.Errorf("release subnet: %w", err)
	}
	bridge, err := m.host.Link(m.options.Bridge)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(bridge.Addresses) == 0 {
		return nil
	} else if err != nil {
		return fmt.Errorf("release subnet: %w", err)
	}
	if err := m.host.ChangeLink(m.options.Bridge, LinkChange{RemoveAddresses: bridge.Addresses}); err != nil {
		return fmt.Errorf("release subnet: %w", err)
	}
	return nil
}

// HairpinPorts lets the containers reach their own published ports. Each brings
// a new port of the bridge; Run sees to those too, a moment after the kernel
// has told of them.
func (m *Mesh) HairpinPorts() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.started || !m.bridge {
		return nil
	}
	return m.hairpinPorts()
}

func (m *Mesh) hairpinPorts() error {
	if err := m.host.HairpinPorts(m.options.Bridge); err != nil {
		return fmt.Errorf("let ports of bridge %s answer themselves: %w", m.options.Bridge, err)
	}
	return nil
}

// SetPeers replaces who the other machines are. Tunnels to those that stay are
// not touched. The same peers as before cost nothing: Run sees to it that what
// was made stays so.
func (m *Mesh) SetPeers(peers []Peer) error {
	if m.holds(func() bool { return m.told && slices.EqualFunc(m.peers, peers, Peer.equal) }) {
		return nil
	}
	return m.change("set peers", func() { m.peers, m.told = slices.Clone(peers), true })
}

// SetJoinPeers replaces whose tickets are valid, as public keys. Each may
// speak from its ManagementAddress and from nowhere else. It takes effect with
// the first SetPeers. The same tickets as before cost nothing.
func (m *Mesh) SetJoinPeers(tickets []Key) error {
	if m.holds(func() bool { return slices.Equal(m.tickets, tickets) }) {
		return nil
	}
	return m.change("set join peers", func() { m.tickets = slices.Clone(tickets) })
}

// holds tells whether what is wanted was made so, and is what same says.
func (m *Mesh) holds(same func() bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.started && m.right && same()
}

// change changes what is wanted and makes it so. When that fails, Run goes on
// trying.
func (m *Mesh) change(what string, f func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.started {
		return fmt.Errorf("%s: mesh is not started", what)
	}
	f()
	signal(m.kick) // the next deadline may have changed
	if err := m.apply(time.Now()); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// LocalEndpoints is where this machine may be reached: its routable unicast
// addresses with listenPort, public ones first. It cannot know what a NAT in
// front makes of them. Peers learn that from the packets they get. Where links
// are named, it is the addresses of these. Between Start and Close it answers
// from the last look at the links; see EndpointsChanged.
func (m *Mesh) LocalEndpoints(listenPort uint16, links ...string) ([]netip.AddrPort, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	interfaces := slices.Clone(m.seen)
	if !m.started {
		var err error
		if interfaces, err = m.host.Interfaces(); err != nil {
			return nil, fmt.Errorf("list links: %w", err)
		}
	}
	if len(links) > 0 {
		interfaces = slices.DeleteFunc(interfaces, func(i Interface) bool { return !slices.Contains(links, i.Name) })
	}
	return endpoints(reachable(interfaces, m.ours(), m.identity.Network), listenPort), nil
}

// EndpointsChanged holds a token after the result of LocalEndpoints may have
// changed. It is for one reader, and needs Run.
func (m *Mesh) EndpointsChanged() <-chan struct{} { return m.moved }

// Close lets go of the link. A kernel link and the bridge stay and carry
// traffic without an agent; userspace WireGuard ends.
func (m *Mesh) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started = false
	if err := m.host.CloseLink(m.options.Link); err != nil {
		return fmt.Errorf("close mesh: %w", err)
	}
	return nil
}

// Destroy removes link and bridge, for a machine that leaves its cluster. It
// needs no Start before.
func (m *Mesh) Destroy() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started = false
	m.paths = map[Key]path{}
	err := errors.Join(m.host.RemoveLink(m.options.Link), m.host.RemoveLink(m.options.Bridge))
	if err != nil {
		return fmt.Errorf("destroy mesh: %w", err)
	}
	return nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // already signalled and not yet seen
	}
}
