package mesh

import (
	"context"
	"net/netip"
	"time"
)

// Kind says who encrypts.
type Kind string

const (
	// Kernel WireGuard: the link outlives the agent.
	Kernel Kind = "kernel"
	// Userspace WireGuard runs in the agent, where the kernel has none; the
	// link ends with it. It serves the same control socket as the kernel
	// would answer, so `wg show` works on either.
	Userspace Kind = "userspace"
)

// Host is what a Mesh needs of the machine it is on. NewHost is the real one,
// MemoryHost its twin. Links are named; a link that does not exist is an error
// that is fs.ErrNotExist. Calls are quick (the kernel answers at once) and
// safe for concurrent use.
type Host interface {
	// OpenLink makes the WireGuard link, or adopts the one that is there.
	OpenLink(name string, mtu int) (Kind, error)
	// CloseLink lets go of the link: one of the kernel's stays and works on.
	CloseLink(name string) error
	// RemoveLink removes a link or bridge; it is no error if there is none.
	RemoveLink(name string) error
	// Device is the WireGuard side of the link.
	Device(name string) (DeviceInfo, error)
	// Configure changes what change names and nothing else.
	Configure(name string, change DeviceChange) error
	// Link is the network side of a link or bridge.
	Link(name string) (LinkInfo, error)
	// ChangeLink changes what change names and nothing else.
	ChangeLink(name string, change LinkChange) error
	// OpenBridge makes a bridge, or adopts the one that is there.
	OpenBridge(name string, mtu int) error
	// HairpinPorts lets each port of a bridge send back what it received,
	// where the kernel needs that for a container to reach its own published
	// port.
	HairpinPorts(bridge string) error
	// SetSysctl sets a value below /proc/sys unless it is set already.
	SetSysctl(path, value string) error
	// Interfaces is every link with its addresses.
	Interfaces() ([]Interface, error)
	// EgressMTU is the MTU of the link of the default route, 0 without one.
	EgressMTU() (int, error)
	// Watch gives a channel that holds a token after links or addresses have
	// changed, however often. It is closed when ctx ends or the kernel's
	// messages were lost; changes may then be missed until the next Watch.
	Watch(ctx context.Context) (<-chan struct{}, error)
}

// DeviceInfo is what a WireGuard device says of itself.
type DeviceInfo struct {
	PrivateKey Key
	ListenPort uint16
	Peers      []PeerInfo
}

// PeerInfo is what a WireGuard device says of a peer.
type PeerInfo struct {
	PublicKey  Key
	Endpoint   netip.AddrPort // not valid: none known
	Handshake  time.Time      // last one; zero: never
	Received   int64          // bytes
	Sent       int64          // bytes
	Keepalive  time.Duration
	AllowedIPs []netip.Prefix
}

// DeviceChange is a change of a WireGuard device. What is nil stays.
type DeviceChange struct {
	PrivateKey *Key
	ListenPort *uint16
	Peers      []PeerChange
}

func (c DeviceChange) empty() bool {
	return c.PrivateKey == nil && c.ListenPort == nil && len(c.Peers) == 0
}

// PeerChange is a change of one peer. The session with it goes on, and so does
// everybody else's.
type PeerChange struct {
	PublicKey Key
	Remove    bool
	// Set makes the peer if it is not there, and replaces AllowedIPs and
	// Keepalive. Without it these stay, and only an existing peer is changed.
	Set        bool
	AllowedIPs []netip.Prefix
	Keepalive  time.Duration
	Endpoint   netip.AddrPort // not valid: stays
}

// LinkInfo is the network side of a link. Addresses are without those that
// the kernel gives by itself (fe80::/10), Routes only those that this package
// made.
type LinkInfo struct {
	MTU       int
	Up        bool
	Addresses []netip.Prefix
	Routes    []Route
}

// LinkChange is a change of a link, carried out in the order of the fields:
// a link that goes up gets addresses back before routes need them.
type LinkChange struct {
	MTU             int // 0: stays
	Up              bool
	AddAddresses    []netip.Prefix
	RemoveRoutes    []Route
	SetRoutes       []Route
	RemoveAddresses []netip.Prefix
}

func (c LinkChange) empty() bool {
	return c.MTU == 0 && !c.Up && len(c.AddAddresses)+len(c.RemoveRoutes)+len(c.SetRoutes)+len(c.RemoveAddresses) == 0
}

// diffLink is what has to change for a link to be up with mtu, addresses and
// routes.
func diffLink(have LinkInfo, mtu int, addresses []netip.Prefix, routes []Route) LinkChange {
	c := LinkChange{Up: !have.Up}
	if have.MTU != mtu {
		c.MTU = mtu
	}
	c.AddAddresses = missing(addresses, have.Addresses)
	c.RemoveAddresses = missing(have.Addresses, addresses)
	c.SetRoutes, c.RemoveRoutes = diffRoutes(routes, have.Routes)
	return c
}

// missing is those of want that have lacks.
func missing(want, have []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	set := make(map[netip.Prefix]bool, len(have))
	for _, p := range have {
		set[p] = true
	}
	for _, p := range want {
		if !set[p] {
			out = append(out, p)
		}
	}
	return out
}

// Interface is one link of the machine, for finding out where it can be
// reached.
type Interface struct {
	Name      string
	Kind      string // as the kernel calls it: device, bridge, veth, wireguard, tuntap ...
	Up        bool
	Loopback  bool
	MTU       int
	Addresses []InterfaceAddress
}

// InterfaceAddress is an address with its network.
type InterfaceAddress struct {
	Prefix netip.Prefix
	// Fleeting addresses are not worth telling others: tentative, deprecated,
	// or temporary for privacy.
	Fleeting bool
}
