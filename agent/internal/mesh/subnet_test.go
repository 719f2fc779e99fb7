package mesh

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

var network = netip.MustParsePrefix("10.210.0.0/16")

func TestPickSubnet(t *testing.T) {
	small := netip.MustParsePrefix("10.210.4.0/23")
	first, last := netip.MustParsePrefix("10.210.4.0/24"), netip.MustParsePrefix("10.210.5.0/24")
	got := map[netip.Prefix]bool{}
	for i := range 64 {
		p, err := PickSubnet(small, Key{byte(i)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got[p] = true
	}
	if !got[first] || !got[last] || len(got) != 2 {
		t.Errorf("first and last are usable, and nothing else: %v", got)
	}
	if p, err := PickSubnet(small, Key{}, []netip.Prefix{first}); err != nil || p != last {
		t.Errorf("the only free one: %v, %v", p, err)
	}
	_, err := PickSubnet(small, Key{}, []netip.Prefix{first, last})
	if faults.CodeOf(err) != faults.Conflict || faults.Of(err).Hint == "" {
		t.Errorf("full: %v", err)
	}
	if _, err := PickSubnet(small, Key{}, []netip.Prefix{netip.MustParsePrefix("10.210.0.0/20")}); err == nil {
		t.Error("all of it lies in a larger prefix that is taken")
	}
	for _, bad := range []string{"10.210.0.0/25", "fd00::/64", "0.0.0.0/0"} {
		if _, err := PickSubnet(netip.MustParsePrefix(bad), Key{}, nil); faults.CodeOf(err) != faults.Invalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := PickSubnet(netip.Prefix{}, Key{}, nil); faults.CodeOf(err) != faults.Invalid {
		t.Errorf("no network: %v", err)
	}
}

// Machines that join one after another never clash, and fill the network.
func TestPickSubnetFillsTheNetwork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(18, 24).Draw(t, "bits")
		net := netip.PrefixFrom(netip.MustParseAddr("10.210.64.0"), bits).Masked()
		var taken []netip.Prefix
		for i := range 1 << (24 - bits) {
			key := Key(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
			p, err := PickSubnet(net, key, taken)
			if err != nil {
				t.Fatalf("machine %d: %v", i, err)
			}
			if p.Bits() != 24 || !net.Contains(p.Addr()) || slices.ContainsFunc(taken, p.Overlaps) {
				t.Fatalf("machine %d got %v of %v, taken %v", i, p, net, taken)
			}
			taken = append(taken, p)
		}
		if _, err := PickSubnet(net, Key{}, taken); err == nil {
			t.Fatal("a full network gave one more")
		}
	})
}

func TestConcurrentPicksRarelyClash(t *testing.T) {
	clashes := 0
	for i := range 1000 {
		a, _ := PickSubnet(network, Key{1, byte(i), byte(i >> 8)}, nil)
		b, _ := PickSubnet(network, Key{2, byte(i), byte(i >> 8)}, nil)
		if a == b {
			clashes++
		}
	}
	if clashes > 20 { // 1 in 256 is expected
		t.Errorf("%d of 1000 pairs clash", clashes)
	}
}

func stateOf(machines ...spec.Machine) *spec.State {
	s := &spec.State{Cluster: spec.Cluster{Network: network}, Machines: map[string]spec.Machine{}}
	for _, m := range machines {
		s.Machines[m.ID] = m
	}
	return s
}

func machine(id string, joined int64, subnet string) spec.Machine {
	m := spec.Machine{ID: id, JoinedAt: time.Unix(joined, 0), PublicKey: testKey(id).String()}
	if subnet != "" {
		m.Subnet = netip.MustParsePrefix(subnet)
	}
	return m
}

func TestRenumber(t *testing.T) {
	for name, test := range map[string]struct {
		machines []spec.Machine
		want     map[string]string // of those that must renumber
	}{
		"no clash": {[]spec.Machine{machine("a", 1, "10.210.1.0/24"), machine("b", 2, "10.210.2.0/24")}, nil},
		"the later one goes": {
			[]spec.Machine{machine("a", 2, "10.210.1.0/24"), machine("b", 1, "10.210.1.0/24")},
			map[string]string{"a": "10.210.2.0/24"},
		},
		"joined together: the higher id goes": {
			[]spec.Machine{machine("a", 1, "10.210.1.0/24"), machine("b", 1, "10.210.1.0/24")},
			map[string]string{"b": "10.210.2.0/24"},
		},
		"the next one is taken": {
			[]spec.Machine{machine("a", 1, "10.210.1.0/24"), machine("b", 2, "10.210.1.0/24"), machine("c", 3, "10.210.2.0/24")},
			map[string]string{"b": "10.210.3.0/24"},
		},
		"three on one": {
			[]spec.Machine{machine("a", 1, "10.210.1.0/24"), machine("b", 2, "10.210.1.0/24"), machine("c", 3, "10.210.1.0/24")},
			map[string]string{"b": "10.210.2.0/24", "c": "10.210.3.0/24"},
		},
		"around the end": {
			[]spec.Machine{machine("a", 1, "10.210.255.0/24"), machine("b", 2, "10.210.255.0/24")},
			map[string]string{"b": "10.210.0.0/24"},
		},
		"none, foreign and odd ones count as none": {
			[]spec.Machine{machine("a", 1, ""), machine("b", 2, "192.168.0.0/24"), machine("c", 3, "10.210.0.0/20"), machine("d", 4, "10.210.0.0/24")},
			map[string]string{"a": "10.210.1.0/24", "b": "", "c": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			state := stateOf(test.machines...)
			for _, m := range test.machines {
				got, ok, err := Renumber(state, m.ID)
				want, must := test.want[m.ID]
				if err != nil || ok != must || must && want != "" && got.String() != want {
					t.Errorf("%s: %v %v %v, want %q", m.ID, got, ok, err, want)
				}
			}
		})
	}
	if _, ok, err := Renumber(stateOf(), "nobody"); ok || err != nil {
		t.Errorf("a stranger must renumber: %v", err)
	}
}

func TestRenumberTellsThatTheNetworkIsFull(t *testing.T) {
	state := stateOf(machine("a", 1, "10.210.1.0/24"), machine("b", 2, "10.210.1.0/24"))
	state.Cluster.Network = netip.MustParsePrefix("10.210.1.0/24")
	if _, _, err := Renumber(state, "b"); faults.CodeOf(err) != faults.Conflict {
		t.Errorf("got %v", err)
	}
}

// However machines were numbered, when each follows the rule once, no two
// have one subnet, owners have kept theirs, and nobody has to move again.
func TestRenumberSettlesAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var machines []spec.Machine
		for i := range rapid.IntRange(0, 12).Draw(t, "n") {
			b := newBlocksMust(network).at(uint32(rapid.IntRange(0, 5).Draw(t, "block")))
			machines = append(machines, machine("mch_"+string(rune('a'+i)), int64(rapid.IntRange(0, 3).Draw(t, "joined")), b.String()))
		}
		before := stateOf(machines...)
		after := stateOf(machines...)
		for _, m := range machines {
			p, ok, err := Renumber(before, m.ID)
			if err != nil {
				t.Fatal(err)
			}
			if owners, _ := settle(before.Machines, network); ok != (owners[m.ID] != m.Subnet) {
				t.Fatalf("%s must move: %v, but %s is its own", m.ID, ok, owners[m.ID])
			}
			if ok {
				m.Subnet = p
				after.Machines[m.ID] = m
			}
		}
		for id := range after.Machines {
			if _, ok, _ := Renumber(after, id); ok {
				t.Fatalf("%s has to move again", id)
			}
		}
	})
}

func newBlocksMust(p netip.Prefix) blocks {
	b, err := newBlocks(p)
	if err != nil {
		panic(err)
	}
	return b
}
