package mesh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"
)

// repairEvery is how often everything is compared with what is wanted, though
// nothing is known to have happened.
const repairEvery = 30 * time.Second

// settleTime lets a burst of kernel messages pass, for example of a container
// that starts.
const settleTime = 300 * time.Millisecond

// Run keeps the mesh as it should be until ctx ends: it moves on from
// endpoints that do not answer, and puts back what somebody changed. It sleeps
// until the next endpoint's time is up, a link or an address changes, or
// repairEvery. It needs Start before.
func (m *Mesh) Run(ctx context.Context) error {
	var events <-chan struct{}
	for {
		if events == nil {
			var err error
			if events, err = m.host.Watch(ctx); err != nil {
				m.logger.Debug("links cannot be watched", "err", err)
			}
		}
		timer := time.NewTimer(m.pass(time.Now()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-m.kick:
		case _, open := <-events:
			if !open {
				events = nil
			}
			if !sleep(ctx, settleTime) {
				return nil
			}
		}
		timer.Stop()
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pass makes things right once, and tells how long nothing needs a look.
func (m *Mesh) pass(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.started {
		return repairEvery
	}
	if err := errors.Join(m.look(), m.chooseMTU(), m.apply(now)); err != nil {
		m.logger.Warn("mesh cannot be put right", "err", err)
	}
	return m.nextLook(now)
}

func (m *Mesh) nextLook(now time.Time) time.Duration {
	wait := repairEvery
	for _, p := range m.paths {
		if d := p.deadline(now, m.options.EndpointTimeout); !d.IsZero() {
			// Never zero: a deadline that has passed was acted upon already.
			wait = min(wait, max(d.Sub(now), 100*time.Millisecond))
		}
	}
	return wait
}

// apply compares everything with what is wanted and writes the differences.
// m.mu is held.
func (m *Mesh) apply(now time.Time) error {
	m.right = false
	want := wantedPeers(m.peers, m.tickets, m.identity.Subnet, m.publicKey)
	if err := m.applyDevice(want, now); err != nil {
		return err
	}
	if err := m.applyBridge(); err != nil {
		return err
	}
	if err := m.applyLink(want); err != nil {
		return err
	}
	m.right = true
	return nil
}

func (m *Mesh) applyDevice(want map[Key]wanted, now time.Time) error {
	device, err := m.host.Device(m.options.Link)
	if errors.Is(err, fs.ErrNotExist) {
		m.logger.Warn("link is gone: making it again", "link", m.options.Link)
		if err := m.open(); err != nil {
			return err
		}
		device, err = m.host.Device(m.options.Link)
	}
	if err != nil {
		return fmt.Errorf("read link %s: %w", m.options.Link, err)
	}
	change := m.diffDevice(device, want, now)
	if change.empty() {
		return nil
	}
	if err := m.host.Configure(m.options.Link, change); err != nil {
		return fmt.Errorf("configure link %s: %w", m.options.Link, err)
	}
	return nil
}

func (m *Mesh) diffDevice(device DeviceInfo, want map[Key]wanted, now time.Time) DeviceChange {
	var change DeviceChange
	if device.PrivateKey != m.identity.PrivateKey {
		change.PrivateKey = &m.identity.PrivateKey
	}
	if device.ListenPort != m.identity.ListenPort && m.identity.ListenPort != 0 {
		change.ListenPort = &m.identity.ListenPort
	}
	if !m.told {
		return change // nobody has said who the peers are: adopted ones stay
	}
	change.Peers = m.withEndpoints(diffPeers(want, device.Peers), want, device.Peers, now)
	return change
}

// withEndpoints lets each path see what the device says, and adds the
// endpoints that should be tried now to the changes.
func (m *Mesh) withEndpoints(changes []PeerChange, want map[Key]wanted, have []PeerInfo, now time.Time) []PeerChange {
	seen := map[Key]PeerInfo{}
	for _, h := range have {
		seen[h.PublicKey] = h
	}
	paths := make(map[Key]path, len(want))
	for key, w := range want {
		if w.machine == "" {
			continue // a ticket holder calls
		}
		p := m.paths[key]
		if h, is := seen[key]; is {
			p = p.observe(h.Endpoint, h.Handshake)
		} else {
			p = path{learned: p.learned} // the link was made again: start over
		}
		p, moved := p.next(orderEndpoints(w.endpoints, m.local), now, m.options.EndpointTimeout)
		if moved {
			changes = withEndpoint(changes, key, p.endpoint)
			m.logger.Debug("trying endpoint", "peer", w.machine, "address", p.endpoint)
		}
		paths[key] = p
	}
	m.paths = paths
	return changes
}

func withEndpoint(changes []PeerChange, key Key, endpoint netip.AddrPort) []PeerChange {
	for i := range changes {
		if changes[i].PublicKey == key {
			changes[i].Endpoint = endpoint
			return changes
		}
	}
	return append(changes, PeerChange{PublicKey: key, Endpoint: endpoint})
}

func (m *Mesh) applyLink(want map[Key]wanted) error {
	have, err := m.host.Link(m.options.Link)
	if err != nil {
		return fmt.Errorf("read link %s: %w", m.options.Link, err)
	}
	addresses := []netip.Prefix{host(ManagementAddress(m.publicKey))}
	var own netip.Addr
	if m.bridge {
		own = Gateway(m.identity.Subnet)
		addresses = append(addresses, host(own))
	}
	routes := wantedRoutes(want, own)
	if !m.told {
		routes = have.Routes
	}
	return m.changeLink(m.options.Link, diffLink(have, m.mtu, addresses, routes))
}

func (m *Mesh) changeLink(name string, change LinkChange) error {
	if change.empty() {
		return nil
	}
	if err := m.host.ChangeLink(name, change); err != nil {
		return fmt.Errorf("change link %s: %w", name, err)
	}
	return nil
}

// applyBridge makes the bridge right, once EnsureBridge has been called.
func (m *Mesh) applyBridge() error {
	if !m.bridge {
		return nil
	}
	name := m.options.Bridge
	have, err := m.host.Link(name)
	if errors.Is(err, fs.ErrNotExist) {
		have, err = m.makeBridge()
	}
	if err != nil {
		return fmt.Errorf("open bridge %s: %w", name, err)
	}
	m.hadBridge = true
	if err := m.changeLink(name, diffLink(have, m.mtu, []netip.Prefix{m.bridgeAddress()}, nil)); err != nil {
		return err
	}
	for _, s := range [][2]string{
		{"net/ipv4/ip_forward", "1"},
		// A published port must answer on 127.0.0.1 of the machine too. Only
		// on this bridge: elsewhere it would let neighbours reach what
		// listens on localhost.
		{"net/ipv4/conf/" + name + "/route_localnet", "1"},
	} {
		if err := m.host.SetSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return m.hairpinPorts()
}

func (m *Mesh) makeBridge() (LinkInfo, error) {
	if err := m.host.OpenBridge(m.options.Bridge, m.mtu); err != nil {
		return LinkInfo{}, err
	}
	if m.hadBridge {
		m.logger.Warn("bridge was removed and is made again", "link", m.options.Bridge)
		if m.options.BridgeRemade != nil {
			m.options.BridgeRemade()
		}
	}
	return m.host.Link(m.options.Bridge)
}
