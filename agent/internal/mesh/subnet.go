package mesh

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// subnetBits is the size of a machine's subnet: .1 is the machine, .2-.254
// are its containers.
const subnetBits = 24

// PickSubnet is the subnet of a machine that joins: the /24 of network that a
// hash of its public key points at, or the next free one after it. Two
// machines that join in two partitions thereby rarely pick the same. It is a
// fault when network is no IPv4 prefix of a /24 or larger, or is full.
func PickSubnet(network netip.Prefix, publicKey Key, taken []netip.Prefix) (netip.Prefix, error) {
	blocks, err := newBlocks(network)
	if err != nil {
		return netip.Prefix{}, err
	}
	sum := sha256.Sum256(publicKey[:])
	return blocks.free(binary.BigEndian.Uint32(sum[:4])%blocks.count, taken)
}

// Renumber is the subnet that a machine should have by the written rule: of
// two machines with one subnet, the one that joined earlier (then the lower
// id) keeps it, the other takes the next free one. ok is false when it should
// keep the one it has, or is no member. Every machine computes the same for
// all machines, so two losers do not take the same one.
func Renumber(state *spec.State, machine string) (subnet netip.Prefix, ok bool, err error) {
	self, is := state.Machines[machine]
	if !is {
		return netip.Prefix{}, false, nil
	}
	owners, losers := settle(state.Machines, state.Cluster.Network)
	if owners[machine].IsValid() {
		return netip.Prefix{}, false, nil
	}
	blocks, err := newBlocks(state.Cluster.Network)
	if err != nil {
		return netip.Prefix{}, false, err
	}
	var taken []netip.Prefix
	for _, p := range owners {
		taken = append(taken, p)
	}
	for _, m := range losers {
		next, err := blocks.free(blocks.after(m.Subnet), taken)
		if err != nil {
			return netip.Prefix{}, false, err
		}
		if m.ID == self.ID {
			return next, true, nil
		}
		taken = append(taken, next)
	}
	return netip.Prefix{}, false, nil // unreachable: who owns nothing is a loser
}

// settle gives each subnet to its owner, and lists in order the machines that
// are left without one.
func settle(machines map[string]spec.Machine, network netip.Prefix) (owners map[string]netip.Prefix, losers []spec.Machine) {
	owners = map[string]netip.Prefix{}
	given := map[netip.Prefix]bool{}
	for _, m := range byAge(machines) {
		// A subnet is a /24 of the network or it is none, so two of them are
		// equal or do not overlap.
		p := m.Subnet
		fits := p.IsValid() && p == p.Masked() && p.Bits() == subnetBits && network.Contains(p.Addr())
		if !fits || given[p] {
			losers = append(losers, m)
			continue
		}
		owners[m.ID], given[p] = p, true
	}
	return owners, losers
}

// byAge is the machines, first the one that joined first.
func byAge(machines map[string]spec.Machine) []spec.Machine {
	sorted := make([]spec.Machine, 0, len(machines))
	for _, m := range machines {
		sorted = append(sorted, m)
	}
	slices.SortFunc(sorted, func(a, b spec.Machine) int {
		return cmp.Or(a.JoinedAt.Compare(b.JoinedAt), cmp.Compare(a.ID, b.ID))
	})
	return sorted
}

// blocks numbers the /24 of a network.
type blocks struct {
	base  uint32
	count uint32
}

func newBlocks(network netip.Prefix) (blocks, error) {
	if !network.Addr().Is4() || network.Bits() < 8 || network.Bits() > subnetBits {
		return blocks{}, faults.New(faults.Invalid, "%v is no network for a cluster: it has to be IPv4, from /8 to /%d", network, subnetBits).
			WithHint("choose one with --network, for example 10.210.0.0/16")
	}
	base := network.Masked().Addr().As4()
	return blocks{binary.BigEndian.Uint32(base[:]), 1 << (subnetBits - network.Bits())}, nil
}

func (b blocks) at(i uint32) netip.Prefix {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], b.base+i<<(32-subnetBits))
	return netip.PrefixFrom(netip.AddrFrom4(a), subnetBits)
}

// after is the index of the block that follows subnet, or the first.
func (b blocks) after(subnet netip.Prefix) uint32 {
	if !subnet.Addr().Is4() {
		return 0
	}
	a := subnet.Addr().As4()
	i := (binary.BigEndian.Uint32(a[:]) - b.base) >> (32 - subnetBits)
	return (i + 1) % b.count
}

// free is the first block from start on, and around, that overlaps nothing.
func (b blocks) free(start uint32, taken []netip.Prefix) (netip.Prefix, error) {
	exact, odd := split(taken)
	for n := range b.count {
		p := b.at((start + n) % b.count)
		if !exact[p] && !slices.ContainsFunc(odd, p.Overlaps) {
			return p, nil
		}
	}
	return netip.Prefix{}, faults.New(faults.Conflict, "the cluster network has no free subnet: all %d are taken", b.count).
		WithHint("remove machines that are gone with `uc machine rm NAME`")
}

// split is taken as a set, for speed, and those of another size.
func split(taken []netip.Prefix) (exact map[netip.Prefix]bool, odd []netip.Prefix) {
	exact = make(map[netip.Prefix]bool, len(taken))
	for _, p := range taken {
		if p.Bits() == subnetBits {
			exact[p.Masked()] = true
		} else if p.IsValid() {
			odd = append(odd, p)
		}
	}
	return exact, odd
}
