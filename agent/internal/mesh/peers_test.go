package mesh

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestPeersOf(t *testing.T) {
	bad := machine("d", 4, "10.210.4.0/24")
	bad.PublicKey = "nonsense"
	state := stateOf(machine("self", 1, "10.210.1.0/24"), machine("b", 3, "10.210.2.0/24"), machine("c", 2, "10.210.2.0/24"), bad)
	peers := PeersOf(state, "self")
	if len(peers) != 2 || peers[0].Machine != "b" || peers[1].Machine != "c" {
		t.Fatalf("got %+v", peers)
	}
	if peers[0].Subnet.IsValid() || peers[1].Subnet.String() != "10.210.2.0/24" {
		t.Errorf("only the owner gets traffic: %v, %v", peers[0].Subnet, peers[1].Subnet)
	}
}

func TestWantedPeers(t *testing.T) {
	own, ownKey := netip.MustParsePrefix("10.210.1.0/24"), testKey("self")
	a := Peer{Machine: "a", PublicKey: testKey("a"), Subnet: netip.MustParsePrefix("10.210.2.0/24")}
	b := Peer{Machine: "b", PublicKey: testKey("b"), Subnet: own}
	again := Peer{Machine: "a2", PublicKey: testKey("a"), Subnet: netip.MustParsePrefix("10.210.9.0/24")}
	self := Peer{Machine: "self", PublicKey: ownKey}
	ticket := testKey("ticket")
	got := wantedPeers([]Peer{a, b, again, self}, []Key{ticket, testKey("a"), ownKey, {}}, own, ownKey)
	if len(got) != 3 {
		t.Fatalf("%d peers: %v", len(got), got)
	}
	check := func(key Key, want ...netip.Prefix) {
		t.Helper()
		if !slices.Equal(got[key].allowedIPs, sortPrefixes(want)) {
			t.Errorf("%v, want %v", got[key].allowedIPs, want)
		}
	}
	check(a.PublicKey, host(ManagementAddress(a.PublicKey)), a.Subnet)
	check(b.PublicKey, host(ManagementAddress(b.PublicKey)))
	check(ticket, host(ManagementAddress(ticket)))
	if got[a.PublicKey].machine != "a" || got[ticket].keepalive != 0 {
		t.Errorf("%+v", got)
	}
}

// After the changes the device has what is wanted, and a second comparison
// finds nothing to do.
func TestDiffPeersConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) map[Key]wanted {
			var peers []Peer
			for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID).Draw(t, label) {
				block := uint32(rapid.IntRange(0, 3).Draw(t, "block"))
				peers = append(peers, Peer{Machine: name, PublicKey: testKey(name), Subnet: newBlocksMust(network).at(block)})
			}
			return wantedPeers(peers, nil, netip.Prefix{}, testKey("self"))
		}
		var d DeviceInfo
		for _, want := range []map[Key]wanted{draw("first"), draw("second")} {
			for _, c := range diffPeers(want, d.Peers) {
				d.change(c)
			}
			if left := diffPeers(want, d.Peers); len(left) > 0 {
				t.Fatalf("still to do: %+v", left)
			}
		}
	})
}

func TestDiffRoutes(t *testing.T) {
	own, old := netip.MustParseAddr("10.210.1.1"), netip.MustParseAddr("10.210.9.1")
	to := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	keep := Route{to("10.210.2.0/24"), own}
	renumbered := Route{to("10.210.3.0/24"), own}
	want := []Route{keep, renumbered, {To: to("fd00::1/128")}}
	have := []Route{keep, {to("10.210.3.0/24"), old}, {to("10.210.4.0/24"), own}}
	set, remove := diffRoutes(want, have)
	if !slices.Equal(set, []Route{renumbered, {To: to("fd00::1/128")}}) {
		t.Errorf("set %v", set)
	}
	if !slices.Equal(remove, []Route{{to("10.210.4.0/24"), own}}) {
		t.Errorf("remove %v", remove)
	}
}
