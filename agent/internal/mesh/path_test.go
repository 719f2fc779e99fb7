package mesh

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

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
