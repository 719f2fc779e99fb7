package mesh

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

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
