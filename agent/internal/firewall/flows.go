package firewall

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flow is a conversation by UDP as connection tracking knows it: where its
// first packet was sent, and who answers.
type flow struct{ to, from netip.AddrPort }

// translations are what new flows by UDP are led to.
type translations struct {
	subnet netip.Prefix
	udp    []Publish
}

func (t translations) equal(o translations) bool {
	return t.subnet == o.subnet && slices.Equal(t.udp, o.udp)
}

// stale tells whether a flow goes elsewhere than a new one would. Rules are
// asked about the first packet only, and a client that keeps its port and goes
// on sending keeps its flow: it would talk to a container that is gone for as
// long as it tries. local are this machine's addresses.
func (t translations) stale(f flow, local []netip.Addr) bool {
	var led []netip.AddrPort
	for _, p := range t.udp {
		if p.HostPort == f.to.Port() && (!p.HostIP.IsValid() || p.HostIP.Contains(f.to.Addr())) {
			led = append(led, netip.AddrPortFrom(p.ContainerAddr, p.ContainerPort))
		}
	}
	switch {
	case f.to.Addr() != f.from.Addr(): // translated: by us, if the answer comes from a container
		return t.subnet.Contains(f.from.Addr()) && !slices.Contains(led, f.from)
	default:
		return len(led) > 0 && slices.Contains(local, f.to.Addr())
	}
}

// forgetStale makes the kernel forget flows that go elsewhere than new ones
// would. It is called when the rules for new ones are in force.
func (t translations) forgetStale() error {
	local, err := localAddrs()
	if err != nil {
		return err
	}
	_, err = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, staleFlows{t, local})
	if err != nil {
		return fmt.Errorf("forget flows of published ports: %w", err)
	}
	return nil
}

type staleFlows struct {
	translations
	local []netip.Addr
}

// MatchConntrackFlow is netlink's name for it.
func (s staleFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	return f.Forward.Protocol == unix.IPPROTO_UDP &&
		s.stale(flow{addrPort(f.Forward.DstIP, f.Forward.DstPort), addrPort(f.Reverse.SrcIP, f.Reverse.SrcPort)}, s.local)
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port)
}

func localAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this machine: %w", err)
	}
	var out []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			addr, _ := netip.AddrFromSlice(n.IP)
			out = append(out, addr.Unmap())
		}
	}
	return out, nil
}
