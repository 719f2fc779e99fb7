package mesh

import (
	"bytes"
	"crypto/rand"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

var network = netip.MustParsePrefix("10.210.0.0/16")

// testKey is a public key that follows from a name.
func testKey(name string) Key {
	var k Key
	copy(k[:], name)
	return k
}

func TestKey(t *testing.T) {
	// From RFC 7748, section 6.1, already clamped.
	private := Key{0x70, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
		0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x6a}
	public, err := private.Public()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := public.String(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="; got != want {
		t.Errorf("public key %s, want %s", got, want)
	}
	back, err := ParseKey(public.String())
	if err != nil || back != public {
		t.Errorf("parsed %v, %v", back, err)
	}
	for _, text := range []string{"", "hSDwCYkwp1R0", "not base64 at all !!", public.String() + "AA"} {
		if _, err := ParseKey(text); err == nil {
			t.Errorf("%q parsed", text)
		}
	}
	if _, err := (Key{}).Public(); err == nil {
		t.Error("no key has a public key")
	}
}

func TestNewPrivateKey(t *testing.T) {
	k, err := NewPrivateKey(bytes.NewReader(bytes.Repeat([]byte{0xff}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	if k[0] != 0xf8 || k[31] != 0x7f {
		t.Errorf("not clamped: %x", k)
	}
	if _, err := NewPrivateKey(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("31 bytes made a key")
	}
	other, err := NewPrivateKey(rand.Reader)
	if err != nil || other == k || other.IsZero() {
		t.Errorf("%v, %v", other, err)
	}
}

func TestManagementAddress(t *testing.T) {
	// SHA-256 of 32 zero bytes is 66687aadf862bd776c8fc18b8e9f8e20...
	if got, want := ManagementAddress(Key{}).String(), "fd66:687a:adf8:62bd:776c:8fc1:8b8e:9f8e"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if a, b := ManagementAddress(testKey("a")), ManagementAddress(testKey("b")); a == b {
		t.Error("two keys, one address")
	}
}

func TestTunnelMTU(t *testing.T) {
	for egress, want := range map[int]int{0: 1420, 1500: 1420, 9000: 1420, 1492: 1412, 1400: 1320, 1300: 1280, 576: 1280} {
		if got := TunnelMTU(egress); got != want {
			t.Errorf("egress %d: %d, want %d", egress, got, want)
		}
	}
}

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
			if ok != (SubnetOwner(before, m.Subnet) != m.ID) {
				t.Fatalf("%s must move: %v, but the owner is %s", m.ID, ok, SubnetOwner(before, m.Subnet))
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

var (
	e1 = netip.MustParseAddrPort("192.0.2.1:51820")
	e2 = netip.MustParseAddrPort("192.0.2.2:51820")
	e3 = netip.MustParseAddrPort("[2001:db8::3]:51820")
)

func TestPathState(t *testing.T) {
	now := time.Unix(100_000, 0)
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	for name, test := range map[string]struct {
		path path
		want PeerState
	}{
		"just chosen":                        {path{since: now}, PeerUnknown},
		"chosen 14 s ago":                    {path{since: ago(14)}, PeerUnknown},
		"chosen 15 s ago":                    {path{since: ago(15)}, PeerDown},
		"answered at once":                   {path{since: ago(3), handshake: ago(2)}, PeerUp},
		"answered at the old endpoint":       {path{since: ago(3), handshake: ago(4)}, PeerUnknown},
		"old endpoint answered, time passed": {path{since: ago(20), handshake: ago(24)}, PeerUp},
		"handshake 274 s ago":                {path{since: ago(999), handshake: ago(274)}, PeerUp},
		"handshake 275 s ago":                {path{since: ago(999), handshake: ago(275)}, PeerDown},
		"adopted, recent handshake":          {path{handshake: ago(100)}, PeerUp},
		"adopted, old handshake":             {path{handshake: ago(300)}, PeerDown},
		"adopted, never":                     {path{}, PeerDown},
	} {
		if got := test.path.state(now, endpointTimeout); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestPathNext(t *testing.T) {
	now := time.Unix(100_000, 0)
	long := now.Add(-time.Hour)
	for name, test := range map[string]struct {
		path       path
		candidates []netip.AddrPort
		want       netip.AddrPort
	}{
		"first":                        {path{}, []netip.AddrPort{e1, e2}, e1},
		"no candidates":                {path{}, nil, netip.AddrPort{}},
		"unknown waits":                {path{endpoint: e1, since: now}, []netip.AddrPort{e1, e2}, e1},
		"up stays":                     {path{endpoint: e1, since: long, handshake: now}, []netip.AddrPort{e2, e3}, e1},
		"down moves on":                {path{endpoint: e1, since: long}, []netip.AddrPort{e1, e2}, e2},
		"around":                       {path{endpoint: e2, since: long}, []netip.AddrPort{e1, e2}, e1},
		"the only one":                 {path{endpoint: e1, since: long}, []netip.AddrPort{e1}, e1},
		"no longer advertised":         {path{endpoint: e3, since: long}, []netip.AddrPort{e1, e2}, e1},
		"learned one is a candidate":   {path{endpoint: e2, learned: e3, since: long}, []netip.AddrPort{e1, e2}, e3},
		"after the learned one, first": {path{endpoint: e3, learned: e3, since: long}, []netip.AddrPort{e1, e2}, e1},
		"down and nothing else known":  {path{endpoint: e3, learned: e3, since: long}, nil, e3},
	} {
		p, changed := test.path.next(test.candidates, now, endpointTimeout)
		if p.endpoint != test.want || changed != (p.endpoint != test.path.endpoint) {
			t.Errorf("%s: %v %v, want %v", name, p.endpoint, changed, test.want)
		}
		if changed && !p.since.Equal(now) {
			t.Errorf("%s: since %v", name, p.since)
		}
	}
}

func TestPathKeepsARoamedEndpoint(t *testing.T) {
	now := time.Unix(100_000, 0)
	p := path{endpoint: e1, since: now.Add(-time.Minute)}.observe(e3, now)
	if p.endpoint != e3 || p.learned != e3 || p.state(now, endpointTimeout) != PeerUp {
		t.Fatalf("%+v", p)
	}
	if p, changed := p.next([]netip.AddrPort{e1, e2}, now, endpointTimeout); changed {
		t.Errorf("left a working endpoint for %v", p.endpoint)
	}
	if q := p.observe(netip.AddrPort{}, now); q.endpoint != e3 {
		t.Error("a device without an endpoint made us forget ours")
	}
}

// Whatever candidates there are, one that answers is reached after as many
// tries as there are candidates, and then kept.
func TestPathFindsTheLiveOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "candidates")
		var all []netip.AddrPort
		for i := range n {
			all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 51820))
		}
		live := rapid.SampledFrom(all).Draw(t, "live")
		p := path{endpoint: rapid.SampledFrom(append(all, netip.AddrPort{}, e3)).Draw(t, "start")}
		now := time.Unix(100_000, 0)
		for range n + 1 {
			if p, _ = p.next(all, now, endpointTimeout); p.endpoint == live {
				p = p.observe(live, now.Add(time.Second))
			}
			if at := p.deadline(now, endpointTimeout); at.After(now) && p.endpoint != live {
				now = at
			}
		}
		now = now.Add(2 * time.Second)
		if q, moved := p.next(all, now, endpointTimeout); p.endpoint != live || moved || q.state(now, endpointTimeout) != PeerUp {
			t.Fatalf("at %v, live is %v", p.endpoint, live)
		}
	})
}

func TestOrderEndpoints(t *testing.T) {
	lan := []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24")}
	both := append(lan, netip.MustParsePrefix("2001:db8:1::9/64"))
	far := netip.MustParseAddrPort("198.51.100.1:51820")
	for name, test := range map[string]struct {
		local []netip.Prefix
		in    []netip.AddrPort
		want  []netip.AddrPort
	}{
		"near first":         {lan, []netip.AddrPort{far, e1}, []netip.AddrPort{e1, far}},
		"no IPv6 here":       {lan, []netip.AddrPort{e3, far}, []netip.AddrPort{far}},
		"IPv6 here":          {both, []netip.AddrPort{e3, far}, []netip.AddrPort{e3, far}},
		"nothing fits":       {lan, []netip.AddrPort{e3}, []netip.AddrPort{e3}},
		"nothing known here": {nil, []netip.AddrPort{e1, e3}, []netip.AddrPort{e1, e3}},
	} {
		if got := orderEndpoints(test.in, test.local); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
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

func TestReachable(t *testing.T) {
	up := func(name, kind string, prefixes ...string) Interface {
		i := Interface{Name: name, Kind: kind, Up: true, MTU: 1500}
		for _, p := range prefixes {
			fleeting := strings.HasPrefix(p, "~")
			i.Addresses = append(i.Addresses, InterfaceAddress{netip.MustParsePrefix(strings.TrimPrefix(p, "~")), fleeting})
		}
		return i
	}
	lo := up("lo", "device", "127.0.0.1/8")
	lo.Loopback = true
	down := up("eth1", "device", "198.51.100.7/24")
	down.Up = false
	small := up("eth0", "device", "192.168.1.5/24", "2001:db8::5/64", "~2001:db8::bad/64", "fe80::1/64", "203.0.113.5/24")
	small.MTU = 1400
	interfaces := []Interface{
		lo, down, small,
		up("br0", "bridge", "10.0.0.5/24", "fd12::5/64"),
		up("uncloud", "tuntap", "10.210.1.1/32"), up("uncloud0", "bridge", "10.210.1.1/24"),
		up("docker0", "bridge", "172.17.0.1/16"), up("br-0123456789ab", "bridge", "172.18.0.1/16"),
		up("podman1", "bridge", "10.89.0.1/24"), up("virbr0", "bridge", "192.168.122.1/24"),
		up("tailscale0", "tuntap", "100.64.0.1/32"), up("anything", "wireguard", "10.9.0.1/24"),
		up("odd", "device", "10.210.77.1/24"),
	}
	ours := []string{"uncloud", "uncloud0"}
	var got []string
	for _, e := range endpoints(reachable(interfaces, ours, network), 51820) {
		got = append(got, e.String())
	}
	want := []string{
		"203.0.113.5:51820", "[2001:db8::5]:51820", "10.0.0.5:51820", "192.168.1.5:51820", "[fd12::5]:51820",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := leastMTU(interfaces, ours, network); got != 1400 {
		t.Errorf("least MTU %d", got)
	}
	if got := leastMTU([]Interface{lo}, ours, network); got != 0 {
		t.Errorf("least MTU without a network %d", got)
	}
}

func TestFromPrefix(t *testing.T) {
	for _, s := range []string{"10.210.1.0/24", "10.210.1.1/32", "fd00::1/128"} {
		if p := netip.MustParsePrefix(s); toPrefix(fromPrefix(p)) != p {
			t.Errorf("%v became %v", p, toPrefix(fromPrefix(p)))
		}
	}
}
