package names

import (
	"net/netip"
	"strconv"
	"strings"
)

const arpa4, arpa6 = ".in-addr.arpa.", ".ip6.arpa."

// reverseOf reads a reverse name and tells whether it is ours to answer: it
// is an address of the cluster network, a part of one, or the management
// address of a machine. apex is the zone that it belongs to. addr is invalid
// for a part.
func (t *Table) reverseOf(name string) (addr netip.Addr, apex string, ours bool) {
	if labels, ok := strings.CutSuffix(name, arpa6); ok {
		addr, ok = reverse6(strings.Split(labels, "."))
		_, known := t.reverse[addr]
		return addr, name, ok && known
	}
	labels, ok := strings.CutSuffix(name, arpa4)
	if !ok {
		return netip.Addr{}, "", false
	}
	parts := strings.Split(labels, ".")
	prefix, ok := reverse4(parts)
	if !ok || prefix.Bits() < t.network.Bits() || !t.network.Contains(prefix.Addr()) {
		return netip.Addr{}, "", false
	}
	zoneLabels := max(1, min(4, (t.network.Bits()+7)/8))
	apex = strings.Join(parts[len(parts)-zoneLabels:], ".") + arpa4
	if prefix.Bits() == 32 {
		addr = prefix.Addr()
	}
	return addr, apex, true
}

// reverse4 reads up to four labels, the last octet first.
func reverse4(labels []string) (netip.Prefix, bool) {
	if len(labels) > 4 {
		return netip.Prefix{}, false
	}
	var a [4]byte
	for i, l := range labels {
		n, err := strconv.ParseUint(l, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != l {
			return netip.Prefix{}, false
		}
		a[len(labels)-1-i] = byte(n)
	}
	return netip.PrefixFrom(netip.AddrFrom4(a), 8*len(labels)), true
}

// reverse6 reads 32 labels of one hexadecimal digit, the last first.
func reverse6(labels []string) (netip.Addr, bool) {
	var a [16]byte
	if len(labels) != 32 {
		return netip.Addr{}, false
	}
	for i, l := range labels {
		n, err := strconv.ParseUint(l, 16, 4)
		if err != nil || len(l) != 1 {
			return netip.Addr{}, false
		}
		a[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(a), true
}
