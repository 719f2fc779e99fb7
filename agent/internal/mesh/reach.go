package mesh

import (
	"cmp"
	"net/netip"
	"regexp"
	"slices"
)

// maxEndpoints bounds what a machine says of itself: each candidate may cost a
// peer endpointTimeout.
const maxEndpoints = 16

// innerLinks are links of container engines and virtual machines, whose
// networks exist on this machine only, and other overlays: a tunnel in a
// tunnel would break when the outer one does. A plain bridge is none of them;
// on many machines it carries the LAN.
var innerLinks = regexp.MustCompile(
	`^(docker.*|br-[0-9a-f]{12}|podman\d+|cni.*|veth.*@.*|flannel.*|cilium.*|cali.*|kube.*|virbr.*|vnet\d+|lxcbr.*|lxdbr.*|incusbr.*|tailscale.*|zt.*|wg\d+|nebula.*)$`)

// reachable are the networks of this machine that others might be on: of links
// that are up, not ours, and not inner ones.
func reachable(interfaces []Interface, ours []string, network netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, i := range interfaces {
		if !i.Up || i.Loopback || i.Kind == "wireguard" || slices.Contains(ours, i.Name) || innerLinks.MatchString(i.Name) {
			continue
		}
		for _, a := range i.Addresses {
			if addr := a.Prefix.Addr(); !a.Fleeting && addr.IsGlobalUnicast() && !network.Contains(addr) {
				out = append(out, a.Prefix)
			}
		}
	}
	return out
}

// endpoints is addresses with a port: public ones first, then IPv4 before
// IPv6, in an order that depends on nothing else, so that nothing is written
// when nothing has changed.
func endpoints(networks []netip.Prefix, port uint16) []netip.AddrPort {
	var out []netip.AddrPort
	for _, p := range networks {
		out = append(out, netip.AddrPortFrom(p.Addr(), port))
	}
	slices.SortFunc(out, func(a, b netip.AddrPort) int {
		return cmp.Or(cmp.Compare(rank(a.Addr()), rank(b.Addr())), a.Compare(b))
	})
	out = slices.Compact(out)
	return out[:min(len(out), maxEndpoints)]
}

func rank(a netip.Addr) int {
	r := 0
	if a.IsPrivate() {
		r += 2
	}
	if a.Is6() {
		r++
	}
	return r
}

// leastMTU is the smallest MTU of links through which others may be reached,
// for a machine without a default route; 0 if there is none.
func leastMTU(interfaces []Interface, ours []string, network netip.Prefix) int {
	least := 0
	for _, i := range interfaces {
		if len(reachable([]Interface{i}, ours, network)) > 0 && (least == 0 || i.MTU < least) {
			least = i.MTU
		}
	}
	return least
}
