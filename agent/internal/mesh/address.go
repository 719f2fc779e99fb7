package mesh

import (
	"crypto/sha256"
	"net/netip"
)

// ManagementAddress is the address of a machine, or of a ticket holder, that
// follows from its WireGuard public key: 0xfd and 120 bits of the key's
// SHA-256. It needs no agreement with anybody, so gossip, sync and the API
// work on it even while two machines settle who owns a subnet, and WireGuard
// itself proves who speaks from it.
func ManagementAddress(publicKey Key) netip.Addr {
	sum := sha256.Sum256(publicKey[:])
	var a [16]byte
	a[0] = 0xfd
	copy(a[1:], sum[:15])
	return netip.AddrFrom16(a)
}

// Gateway is the machine's own address in its subnet: the first one.
func Gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// host is the prefix that holds addr alone.
func host(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

const (
	// overhead of WireGuard over IPv6: 40 IPv6, 8 UDP, 32 WireGuard. A tunnel
	// may change between IPv4 and IPv6 at any time, so the larger one counts.
	overhead = 80
	minMTU   = 1280 // the least that IPv6 works with
	maxMTU   = 1420 // of a plain Ethernet; more would break at the first router
)

// TunnelMTU is the MTU of the link where packets leave by a link of egress
// bytes; 0 means that is not known.
func TunnelMTU(egress int) int {
	if egress == 0 {
		return maxMTU
	}
	return min(max(egress-overhead, minMTU), maxMTU)
}
