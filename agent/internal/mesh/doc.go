// Package mesh connects the machines: it owns WireGuard, the link `uncloud`
// with its keys, peers, addresses and routes, the bridge of the containers,
// and the one-purpose device with which a ticket holder joins. It is the only
// importer of wgctrl, wireguard-go, netlink and gVisor.
//
// It refuses to know who is a member, what a ticket means, and what may pass:
// peers come from the replicated state (PeersOf), tickets from join, and
// filtering is the firewall's. It writes nothing to disk.
//
// Decisions are pure: ManagementAddress, PickSubnet, Renumber, PeersOf, path
// (the endpoint state machine), diffPeers, diffRoutes. Everything that touches
// the machine is behind Host, which has an in-memory twin.
//
// What is there is compared with what should be, and only differences are
// written. So a restarted agent adopts the tunnels of a kernel link without
// dropping a packet, and what somebody changed by hand is put back.
package mesh
