package agent

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/firewall"
	"uncloud/agent/internal/ingress"
	"uncloud/agent/internal/join"
	"uncloud/agent/internal/mesh"
	"uncloud/agent/internal/names"
	"uncloud/agent/internal/runtime"
	"uncloud/agent/internal/server"
	statesync "uncloud/agent/internal/sync"
	"uncloud/internal/spec"
)

// steerEvery is how often everything is brought up to date without a cause:
// tickets end, distances change, and what failed is tried again.
const steerEvery = 30 * time.Second

// wakes are what everything that follows the state is woken by.
type wakes struct {
	changes, lives <-chan struct{}
	tick           <-chan time.Time
}

// wakes begins to listen; stop ends that.
func (m *member) wakes() (w wakes, stop func()) {
	changes, tick := m.store.Subscribe(), time.NewTicker(steerEvery)
	lives, cancel := m.gossip.Subscribe()
	return wakes{changes.C(), lives, tick.C}, func() { changes.Close(); cancel(); tick.Stop() }
}

// steer tells the organs of every change of the state or of who lives. Each of
// them compares with what it has, so telling twice costs nothing. Traffic
// comes first, because a dead machine must leave names and ingress at once.
// What runs here is not its business: reconcile is woken by the tables that it
// reads, by the engine, and by who changes what no table says (see replicas.go).
func (m *member) steer(ctx context.Context) error {
	wake, stop := m.wakes()
	defer stop()
	for {
		m.steerOnce(ctx)
		if err := m.awaitCause(ctx, wake); err != nil {
			return err
		}
	}
}

// awaitCause returns when there is something to steer by. Meanwhile it answers
// who asks whether steering lives: that is no cause.
func (m *member) awaitCause(ctx context.Context, wake wakes) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake.changes:
		case <-wake.lives:
		case <-m.mesh.EndpointsChanged():
		case <-m.again:
		case <-wake.tick:
		case reply := <-m.ping:
			close(reply)
			continue
		}
		return nil
	}
}

func (m *member) steerOnce(ctx context.Context) {
	state, known := m.store.StateKnown()
	alive := m.gossip.Alive()
	m.steerNames(state, known, alive)
	if err := m.steerNetwork(ctx); err != nil && ctx.Err() == nil {
		m.log.Debug("steer the network", "err", err) // it is a trouble already
	}
	if err := m.describeSelf(ctx, state); err != nil && ctx.Err() == nil {
		m.log.Warn("describe this machine", "err", err)
	}
}

// steerNetwork makes mesh and firewall follow the newest state. It is called
// from steer, and where a machine is about to call that was just let in: one
// at a time, so that an older state is never applied over a newer one.
func (m *member) steerNetwork(ctx context.Context) error {
	m.steering.Lock()
	defer m.steering.Unlock()
	state := m.store.State()
	err := m.steerMesh(state)
	m.troubles.setError("mesh", "mesh", err)
	wall := m.firewall.Apply(ctx, m.policy(state))
	m.troubles.setError("firewall", "firewall", wall)
	return errors.Join(err, wall)
}

// steerMesh tells who the other machines are to everything that talks to them.
func (m *member) steerMesh(state *spec.State) error {
	peers := mesh.PeersOf(m.membersOf(state), m.id.MachineID)
	err := m.mesh.SetPeers(peers)
	if err == nil {
		err = m.mesh.SetJoinPeers(ticketKeys(state, time.Now()))
	}
	seeds, stores := map[string]netip.AddrPort{}, map[string]statesync.PeerAddr{}
	for _, p := range peers {
		addr := mesh.ManagementAddress(p.PublicKey)
		seeds[p.Machine] = netip.AddrPortFrom(addr, gossipPort)
		stores[p.Machine] = statesync.PeerAddr(netip.AddrPortFrom(addr, syncPort).String())
	}
	m.gossip.SetSeeds(seeds)
	m.sync.SetPeers(stores)
	return err
}

// membersOf is the state with the machines that this one was told of when it
// joined, until the store knows better.
func (m *member) membersOf(state *spec.State) *spec.State {
	if _, arrived := state.Machines[m.id.MachineID]; arrived {
		return state
	}
	told := *state
	told.Cluster.Network = m.id.Network
	told.Machines = maps.Clone(state.Machines)
	if told.Machines == nil {
		told.Machines = map[string]spec.Machine{}
	}
	for _, other := range append(slices.Clone(m.id.Members), m.id.Self) {
		if _, ok := told.Machines[other.ID]; !ok {
			told.Machines[other.ID] = other
		}
	}
	return &told
}

// ticketKeys are the keys whose holders are answered: of good tickets, and of
// ended ones for a while, so that their holders are told so. They are sorted:
// what is the same must look the same.
func ticketKeys(state *spec.State, now time.Time) []mesh.Key {
	var keys []mesh.Key
	for _, t := range state.Tickets {
		if now.After(t.ExpiresAt.Add(join.Grace)) {
			continue
		}
		for _, text := range t.PublicKeys {
			if key, err := mesh.ParseKey(text); err == nil {
				keys = append(keys, key)
			}
		}
	}
	slices.SortFunc(keys, func(a, b mesh.Key) int { return bytes.Compare(a[:], b[:]) })
	return keys
}

// steerNames makes the DNS follow, and tells those who wait for it.
func (m *member) steerNames(state *spec.State, known crdt.Known, alive spec.Alive) {
	m.names.Load(names.View{
		State: m.membersOf(state), Alive: alive, Self: m.id.MachineID, RTT: m.gossip.RTT,
		Management: func(o spec.Machine) netip.Addr { return managementOf(o.PublicKey) },
	})
	m.namesLoaded.set(known)
}

// steerIngress makes the ingress follow, and tells those who wait for it. It
// has a loop of its own: a change of routes lets the old configuration linger
// for a second, and nothing else should wait for that.
func (m *member) steerIngress(ctx context.Context) error {
	wake, stop := m.wakes()
	defer stop()
	for {
		m.ingressTurn.Begin()
		state, known := m.store.StateKnown()
		if err := m.loadIngress(ctx, state, m.gossip.Alive()); err == nil {
			m.ingressLoaded.set(known)
		} else if ctx.Err() == nil {
			// What was not loaded is not acknowledged.
			m.troubles.setError("ingress", "ingress", err)
			m.log.Warn("load ingress", "err", err)
		}
		m.ingressTurn.End()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake.changes:
		case <-wake.lives:
		case <-wake.tick:
		}
	}
}

func (m *member) loadIngress(ctx context.Context, state *spec.State, alive spec.Alive) error {
	if !slices.Contains(state.Machines[m.id.MachineID].Roles, spec.RoleIngress) {
		m.troubles.set("ingress")
		return m.ingress.Stop()
	}
	err := m.ingress.Load(ctx, ingress.Input{
		State: state, Alive: alive, Self: m.id.MachineID, RTT: m.distances(state), Settings: m.ingressSettings(),
	})
	if err != nil {
		return err
	}
	var out []server.Note
	for _, n := range m.ingress.Notes() {
		out = append(out, serviceNote(state, n.Service, "ingress.route", n.Text)...)
	}
	m.troubles.set("ingress", out...)
	return nil
}

// distances are the round trips to other machines, rounded so that noise in
// the measurement changes no weight.
func (m *member) distances(state *spec.State) map[string]time.Duration {
	rtt := map[string]time.Duration{}
	for id := range state.Machines {
		if d, ok := m.gossip.RTT(id); ok {
			rtt[id] = d.Round(5 * time.Millisecond)
		}
	}
	return rtt
}

func (m *member) ingressSettings() ingress.Settings {
	settings := ingress.Settings{ACMEEmail: m.cfg.Ingress.Email, ACMEDirectory: m.cfg.Ingress.ACMEServer}
	if m.cfg.Ingress.ACMERoots != "" {
		settings.ACMERoots = []string{m.cfg.Ingress.ACMERoots}
	}
	return settings
}

// policy is what the firewall has to make true.
func (m *member) policy(state *spec.State) firewall.Policy {
	all := m.membersOf(state)
	self := all.Machines[m.id.MachineID]
	p := firewall.Policy{
		ClusterNetwork: m.id.Network, Subnet: self.Subnet, Bridge: runtime.BridgeName, Link: linkName,
		WireGuardPort: m.cfg.ListenPort, Management: m.manage,
		Ports:   firewall.AgentPorts{API: apiPort, Gossip: gossipPort, Sync: syncPort, Metrics: metricsPort, Admission: admissionPort},
		Ingress: slices.Contains(self.Roles, spec.RoleIngress),
	}
	for _, o := range all.Machines {
		p.Members = append(p.Members, managementOf(o.PublicKey))
	}
	for _, key := range ticketKeys(state, time.Now()) {
		p.TicketHolders = append(p.TicketHolders, mesh.ManagementAddress(key))
	}
	if p.Ingress {
		p.IngressPorts = ingressPorts(state)
	}
	routes, _ := spec.HostRoutes(state, m.id.MachineID)
	for _, r := range routes {
		p.Published = append(p.Published, firewall.Publish{
			HostIP: hostPrefix(r.Port.HostIP), HostPort: r.Port.Listen(), Protocol: r.Port.Transport(),
			ContainerAddr: r.Address, ContainerPort: r.Port.Container,
		})
	}
	return p
}

// ingressPorts are the ports besides 80 and 443 that routes ask for.
func ingressPorts(state *spec.State) []firewall.Port {
	var out []firewall.Port
	routes, _ := spec.Routes(state)
	for _, r := range routes {
		p := firewall.Port{Number: r.Port.Listen(), Protocol: r.Port.Transport()}
		if p.Number != 80 && p.Number != 443 && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// hostPrefix is the address or network of a published port; the zero Prefix
// where any address is meant.
func hostPrefix(text string) netip.Prefix {
	if addr, err := netip.ParseAddr(text); err == nil && !addr.IsUnspecified() {
		return netip.PrefixFrom(addr, addr.BitLen())
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// managementOf is a machine's management address; not valid for a bad key.
func managementOf(publicKey string) netip.Addr {
	key, err := mesh.ParseKey(publicKey)
	if err != nil {
		return netip.Addr{}
	}
	return mesh.ManagementAddress(key)
}

// describeSelf keeps the columns of the own row that only this machine may
// write. Writing what is there already writes nothing.
func (m *member) describeSelf(ctx context.Context, state *spec.State) error {
	self, ok := state.Machines[m.id.MachineID]
	if !ok {
		return nil // not arrived yet, or removed: not ours to make
	}
	endpoints, err := endpointsOf(m.mesh, m.cfg, m.id.Endpoints)
	if err != nil {
		return err
	}
	want := self
	want.Endpoints, want.Version, want.OS = endpoints, Version(), osName()
	if err := m.describeSystem(&want); err != nil {
		return err
	}
	if sameSelf(want, self) {
		return nil
	}
	_, err = m.store.Update(ctx, func(tx *storeTx) error {
		now, ok := tx.State().Machines[m.id.MachineID]
		if ok {
			now.Endpoints, now.Version, now.OS = want.Endpoints, want.Version, want.OS
			now.Generation, now.System, now.NixOS = want.Generation, want.System, want.NixOS
			tx.Put(now)
		}
		return nil
	})
	return err
}

func sameSelf(a, b spec.Machine) bool {
	return slices.Equal(a.Endpoints, b.Endpoints) && a.Version == b.Version && a.OS == b.OS &&
		a.Generation == b.Generation && a.System == b.System && a.NixOS == b.NixOS
}
