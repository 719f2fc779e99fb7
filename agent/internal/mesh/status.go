package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Status is what `uc wg show` shows.
type Status struct {
	Link           string
	Kind           Kind
	PublicKey      Key
	ListenPort     uint16
	MTU            int
	ManagementAddr netip.Addr
	Peers          []PeerStatus // members by id, then ticket holders
}

// PeerStatus is one peer of Status.
type PeerStatus struct {
	Machine    string // id; empty for the holder of a ticket
	PublicKey  Key
	Endpoint   netip.AddrPort // in use; not valid: none known
	State      PeerState
	Handshake  time.Time // last one; zero: never
	Received   int64     // bytes
	Sent       int64     // bytes
	AllowedIPs []netip.Prefix
}

// Status reads the device. It is an error before Start.
func (m *Mesh) Status() (Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.started {
		return Status{}, errors.New("read link: mesh is not started")
	}
	device, err := m.host.Device(m.options.Link)
	if err != nil {
		return Status{}, fmt.Errorf("read link %s: %w", m.options.Link, err)
	}
	s := Status{
		Link: m.options.Link, Kind: m.kind, PublicKey: m.publicKey, ListenPort: device.ListenPort,
		MTU: m.mtu, ManagementAddr: ManagementAddress(m.publicKey),
	}
	machines := map[Key]string{}
	for _, p := range m.peers {
		machines[p.PublicKey] = p.Machine
	}
	now := time.Now()
	for _, p := range device.Peers {
		s.Peers = append(s.Peers, m.peerStatus(p, machines[p.PublicKey], now))
	}
	slices.SortFunc(s.Peers, func(a, b PeerStatus) int {
		return cmp.Or(-cmp.Compare(min(len(a.Machine), 1), min(len(b.Machine), 1)),
			cmp.Compare(a.Machine, b.Machine), slices.Compare(a.PublicKey[:], b.PublicKey[:]))
	})
	return s, nil
}

func (m *Mesh) peerStatus(p PeerInfo, machine string, now time.Time) PeerStatus {
	way := m.paths[p.PublicKey].observe(p.Endpoint, p.Handshake)
	return PeerStatus{
		Machine: machine, PublicKey: p.PublicKey, Endpoint: p.Endpoint, State: way.state(now, m.options.EndpointTimeout),
		Handshake: p.Handshake, Received: p.Received, Sent: p.Sent, AllowedIPs: sortPrefixes(slices.Clone(p.AllowedIPs)),
	}
}
