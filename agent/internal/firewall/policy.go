package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

// Policy is all that the rules follow from. The same policy, whatever the
// order of its lists, compiles to the same text.
type Policy struct {
	ClusterNetwork netip.Prefix // IPv4; all containers and machines
	Subnet         netip.Prefix // this machine's part: its first address is the machine, the rest are containers
	Bridge         string       // link of the containers
	Link           string       // WireGuard link
	WireGuardPort  uint16       // UDP, open to the world
	Management     netip.Addr   // this machine's own management address
	Ports          AgentPorts

	// Members are the management addresses of all members. Only they reach
	// the agent's ports; this machine's own may be among them. An invalid
	// address, here and below, stands for a machine whose key cannot be read,
	// and is passed over: one bad row must not take the rules of all.
	Members []netip.Addr
	// TicketHolders are the addresses of WireGuard peers that hold a ticket
	// and are no members yet. They reach the admission port and nothing else.
	TicketHolders []netip.Addr

	Published []Publish
	// Ingress says that this machine serves 80/tcp, 443/tcp and 443/udp.
	Ingress bool
	// IngressPorts are further ports that the ingress of this machine serves.
	IngressPorts []Port
}

// AgentPorts are the ports of the agent on the management address. All are
// TCP; gossip is UDP as well.
type AgentPorts struct {
	API, Gossip, Sync, Metrics, Admission uint16
}

// Port is a port that a process of the machine serves.
type Port struct {
	Number   uint16
	Protocol string // tcp or udp
}

// Publish is one port of the machine that leads to a container on it.
type Publish struct {
	HostIP        netip.Prefix // where on the machine; the zero Prefix means every IPv4 address
	HostPort      uint16
	Protocol      string // tcp or udp
	ContainerAddr netip.Addr
	ContainerPort uint16
}

// Skip is a port that cannot be published, and why, as a clause for people.
type Skip struct {
	Publish Publish
	Reason  string
}

func (p Publish) String() string {
	where := ""
	if p.HostIP.IsValid() {
		where = p.HostIP.Addr().String() + ":"
		if !p.HostIP.IsSingleIP() {
			where = p.HostIP.String() + ":"
		}
	}
	return fmt.Sprintf("%s%d/%s", where, p.HostPort, p.Protocol)
}

// linkName is what the kernel and nft take as the name of a link. Names go
// into the text of the rules, so nothing else may pass.
var linkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$`)

// machineAddr is the machine's own address in the cluster network.
func (p Policy) machineAddr() netip.Addr { return p.Subnet.Masked().Addr().Next() }

func (p Policy) check() error {
	v4 := func(n netip.Prefix) bool { return n.IsValid() && n.Addr().Is4() && n == n.Masked() }
	v6 := func(a netip.Addr) bool { return a.Is6() && !a.Is4In6() && a.Zone() == "" }
	v6orNone := func(a netip.Addr) bool { return !a.IsValid() || v6(a) }
	switch {
	case !v4(p.ClusterNetwork):
		return fmt.Errorf("cluster network %s is not an IPv4 network", p.ClusterNetwork)
	case !v4(p.Subnet) || p.Subnet.Bits() < p.ClusterNetwork.Bits() || p.Subnet.Bits() > 30 || !p.ClusterNetwork.Contains(p.Subnet.Addr()):
		return fmt.Errorf("subnet %s is not a part of the cluster network %s", p.Subnet, p.ClusterNetwork)
	case !linkName.MatchString(p.Bridge) || !linkName.MatchString(p.Link) || p.Bridge == p.Link:
		return fmt.Errorf("bridge %q and WireGuard link %q are not two names of links", p.Bridge, p.Link)
	case !v6(p.Management):
		return fmt.Errorf("management address %s is not an IPv6 address", p.Management)
	case p.WireGuardPort == 0 || slices.Contains(p.Ports.tcp(), 0):
		return errors.New("a port of the agent is zero")
	case !all(p.Members, v6orNone) || !all(p.TicketHolders, v6orNone):
		return errors.New("a management address is not an IPv6 address")
	case !all(p.IngressPorts, Port.valid):
		return errors.New("a port of the ingress is neither tcp nor udp, or zero")
	}
	return nil
}

func (p Port) valid() bool { return p.Number != 0 && (p.Protocol == "tcp" || p.Protocol == "udp") }

func all[T any](list []T, ok func(T) bool) bool {
	return !slices.ContainsFunc(list, func(v T) bool { return !ok(v) })
}

func (a AgentPorts) tcp() []uint16 {
	return []uint16{a.API, a.Gossip, a.Sync, a.Metrics, a.Admission}
}

// peers are the members but this machine.
func (p Policy) peers() []netip.Addr {
	return slices.DeleteFunc(slices.Clone(p.Members), func(a netip.Addr) bool { return a == p.Management || !a.IsValid() })
}

// everyone are the members and this machine.
func (p Policy) everyone() []netip.Addr { return append(p.peers(), p.Management) }

func (p Policy) holders() []netip.Addr {
	return slices.DeleteFunc(slices.Clone(p.TicketHolders), func(a netip.Addr) bool { return !a.IsValid() })
}

// published are the ports to forward in a fixed order, narrow addresses first
// so that they win against wide ones, and those that cannot be.
func (p Policy) published() (kept []Publish, skipped []Skip) {
	seen := map[string]bool{}
	for _, pub := range p.Published {
		reason := p.refusal(pub)
		if reason == "" && seen[pub.String()] {
			reason = "it is published by another container already"
		}
		if reason != "" {
			skipped = append(skipped, Skip{pub, reason})
			continue
		}
		seen[pub.String()] = true
		kept = append(kept, pub)
	}
	slices.SortStableFunc(kept, comparePublish)
	return kept, skipped
}

// refusal says why a port cannot be published, or nothing.
func (p Policy) refusal(pub Publish) string {
	switch {
	case pub.Protocol != "tcp" && pub.Protocol != "udp":
		return fmt.Sprintf("the protocol %q is neither tcp nor udp", pub.Protocol)
	case pub.HostPort == 0 || pub.ContainerPort == 0:
		return "the port is zero"
	case pub.Protocol == "udp" && pub.HostPort == p.WireGuardPort:
		return "it is the port of the mesh"
	case pub.HostIP.IsValid() && !pub.HostIP.Addr().Is4():
		return "containers have no IPv6 address"
	case !p.Subnet.Contains(pub.ContainerAddr) || pub.ContainerAddr == p.machineAddr():
		return "the container is not on this machine's subnet"
	}
	return ""
}
