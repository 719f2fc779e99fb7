package reconcile

import (
	"net/netip"

	"uncloud/internal/faults"
)

// addresses gives out the addresses of a subnet's containers: .2 to .254 of a
// /24, the least recently used first, so that what others remember of an old
// container seldom leads to a new one.
type addresses struct {
	turn uint64
	used map[netip.Addr]uint64 // turn of the last use
}

// seen notes that a container has an address.
func (a *addresses) seen(ip netip.Addr) {
	if a.used == nil {
		a.used = map[netip.Addr]uint64{}
	}
	a.turn++
	a.used[ip] = a.turn
}

// take picks an address that is not in taken.
func (a *addresses) take(subnet netip.Prefix, taken map[netip.Addr]bool) (netip.Addr, error) {
	var best netip.Addr
	first := subnet.Masked().Addr().Next().Next() // after the network and the machine itself
	for ip := first; subnet.Contains(ip) && subnet.Contains(ip.Next()); ip = ip.Next() {
		if !taken[ip] && (!best.IsValid() || a.used[ip] < a.used[best]) {
			best = ip
		}
	}
	if !best.IsValid() {
		return best, faults.New(faults.NoPlace, "all addresses of %s are in use", subnet).
			WithHint("see what runs here, and scale or remove some of it: uc ps")
	}
	a.seen(best)
	return best, nil
}
