package mesh

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"uncloud/internal/spec"
)

// Peer is another machine of the cluster.
type Peer struct {
	Machine   string           // id
	PublicKey Key              //
	Endpoints []netip.AddrPort // where it may be reached, best first; none: it has to call
	Subnet    netip.Prefix     // of its containers; not valid while it owns none
}

func (p Peer) equal(q Peer) bool {
	return p.Machine == q.Machine && p.PublicKey == q.PublicKey && p.Subnet == q.Subnet && slices.Equal(p.Endpoints, q.Endpoints)
}

// PeersOf is all machines but self, as self should see them: where two have
// one subnet, only its owner gets traffic for it. Machines whose key cannot be
// read are left out; the store holds only what some machine wrote, and one bad
// row must not cost the others their tunnels.
func PeersOf(state *spec.State, self string) []Peer {
	owners, _ := settle(state.Machines, state.Cluster.Network)
	var peers []Peer
	for _, m := range state.Machines {
		key, err := ParseKey(m.PublicKey)
		if m.ID == self || err != nil || key.IsZero() {
			continue
		}
		peers = append(peers, Peer{
			Machine:   m.ID,
			PublicKey: key,
			Endpoints: m.Endpoints,
			Subnet:    owners[m.ID],
		})
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.Machine, b.Machine) })
	return peers
}

// wanted is how one WireGuard peer should be.
type wanted struct {
	machine    string // empty for a ticket holder
	key        Key
	endpoints  []netip.AddrPort
	allowedIPs []netip.Prefix // sorted
	keepalive  time.Duration
}

// wantedPeers is what the device should have. Addresses that two peers claim,
// or that are this machine's own, are dropped from the later one: WireGuard
// would move them from peer to peer at each comparison.
func wantedPeers(peers []Peer, tickets []Key, own netip.Prefix, ownKey Key) map[Key]wanted {
	want := map[Key]wanted{}
	given := []netip.Prefix{host(ManagementAddress(ownKey))}
	if own.IsValid() {
		given = append(given, own)
	}
	claim := func(p netip.Prefix) []netip.Prefix {
		if !p.IsValid() || slices.ContainsFunc(given, p.Overlaps) {
			return nil
		}
		given = append(given, p)
		return []netip.Prefix{p}
	}
	for _, p := range peers {
		if _, twice := want[p.PublicKey]; twice || p.PublicKey == ownKey || p.PublicKey.IsZero() {
			continue
		}
		ips := append(claim(host(ManagementAddress(p.PublicKey))), claim(p.Subnet)...)
		want[p.PublicKey] = wanted{
			machine: p.Machine, key: p.PublicKey, endpoints: p.Endpoints,
			allowedIPs: sortPrefixes(ips), keepalive: keepalive,
		}
	}
	for _, key := range tickets {
		if _, member := want[key]; member || key == ownKey || key.IsZero() {
			continue
		}
		// No keepalive: a ticket holder calls, and is gone most of the time.
		want[key] = wanted{key: key, allowedIPs: claim(host(ManagementAddress(key)))}
	}
	return want
}

// diffPeers is what has to change for the device to have what is wanted, in
// the order of keys. Endpoints are left alone: path decides them.
func diffPeers(want map[Key]wanted, have []PeerInfo) []PeerChange {
	var changes []PeerChange
	seen := map[Key]bool{}
	for _, h := range have {
		seen[h.PublicKey] = true
		w, is := want[h.PublicKey]
		switch {
		case !is:
			changes = append(changes, PeerChange{PublicKey: h.PublicKey, Remove: true})
		case !slices.Equal(w.allowedIPs, sortPrefixes(slices.Clone(h.AllowedIPs))) || w.keepalive != h.Keepalive:
			changes = append(changes, PeerChange{PublicKey: w.key, Set: true, AllowedIPs: w.allowedIPs, Keepalive: w.keepalive})
		}
	}
	for key, w := range want {
		if !seen[key] {
			changes = append(changes, PeerChange{PublicKey: key, Set: true, AllowedIPs: w.allowedIPs, Keepalive: w.keepalive})
		}
	}
	slices.SortFunc(changes, func(a, b PeerChange) int { return slices.Compare(a.PublicKey[:], b.PublicKey[:]) })
	return changes
}

func sortPrefixes(p []netip.Prefix) []netip.Prefix {
	slices.SortFunc(p, netip.Prefix.Compare)
	return p
}
