package firewall

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func testPolicy() Policy {
	return Policy{
		ClusterNetwork: prefix("10.210.0.0/16"),
		Subnet:         prefix("10.210.7.0/24"),
		Bridge:         "uncloud0",
		Link:           "uncloud",
		WireGuardPort:  51820,
		Management:     addr("fd00::7"),
		Ports:          AgentPorts{API: 51000, Gossip: 51001, Sync: 51002, Metrics: 51003, Admission: 51004},
	}
}

func fullPolicy() Policy {
	p := testPolicy()
	p.Members = []netip.Addr{addr("fd00::9"), addr("fd00::7"), {}, addr("fd00::8")}
	p.TicketHolders = []netip.Addr{addr("fdaa::1")}
	p.Ingress = true
	p.IngressPorts = []Port{{5432, "tcp"}, {53, "udp"}}
	web := Publish{HostPort: 8080, Protocol: "tcp", ContainerAddr: addr("10.210.7.10"), ContainerPort: 80}
	p.Published = []Publish{
		web,
		{HostPort: 53, Protocol: "udp", ContainerAddr: addr("10.210.7.11"), ContainerPort: 5353},
		{HostIP: prefix("192.0.2.0/24"), HostPort: 8080, Protocol: "tcp", ContainerAddr: addr("10.210.7.12"), ContainerPort: 80},
		{HostIP: prefix("127.0.0.1/32"), HostPort: 8080, Protocol: "tcp", ContainerAddr: addr("10.210.7.13"), ContainerPort: 80},
		web,
		{HostPort: 51820, Protocol: "udp", ContainerAddr: addr("10.210.7.14"), ContainerPort: 1},
		{HostIP: prefix("2001:db8::1/128"), HostPort: 1, Protocol: "tcp", ContainerAddr: addr("10.210.7.14"), ContainerPort: 1},
		{HostPort: 2, Protocol: "tcp", ContainerAddr: addr("10.210.8.2"), ContainerPort: 1},
		{HostPort: 3, Protocol: "sctp", ContainerAddr: addr("10.210.7.14"), ContainerPort: 1},
	}
	return p
}

func mustCompile(t testing.TB, p Policy) Ruleset {
	t.Helper()
	r, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCompileGolden(t *testing.T) {
	for name, p := range map[string]Policy{"first-machine": testPolicy(), "full": fullPolicy()} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name+".nft")
			got := mustCompile(t, p).Text
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("rules differ from %s (run with -update and read the difference):\n%s", path, got)
			}
		})
	}
}

func TestCompileSkips(t *testing.T) {
	var got []string
	for _, s := range mustCompile(t, fullPolicy()).Skipped {
		got = append(got, s.Publish.String()+": "+s.Reason)
	}
	want := []string{
		"8080/tcp: it is published by another container already",
		"51820/udp: it is the port of the mesh",
		"2001:db8::1:1/tcp: containers have no IPv6 address",
		"2/tcp: the container is not on this machine's subnet",
		`3/sctp: the protocol "sctp" is neither tcp nor udp`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("skipped:\n%s", strings.Join(got, "\n"))
	}
}

func TestCompileRefuses(t *testing.T) {
	tests := map[string]func(*Policy){
		"no cluster network":        func(p *Policy) { p.ClusterNetwork = netip.Prefix{} },
		"subnet of another network": func(p *Policy) { p.Subnet = prefix("10.211.0.0/24") },
		"subnet with host bits":     func(p *Policy) { p.Subnet = prefix("10.210.7.1/24") },
		"statement as a name":       func(p *Policy) { p.Bridge = `x" accept; "` },
		"one link":                  func(p *Policy) { p.Link = p.Bridge },
		"no management address":     func(p *Policy) { p.Management = netip.Addr{} },
		"member by IPv4":            func(p *Policy) { p.Members = []netip.Addr{addr("10.0.0.1")} },
		"member with a zone":        func(p *Policy) { p.Members = []netip.Addr{addr("fd00::1%x")} },
		"no API port":               func(p *Policy) { p.Ports.API = 0 },
		"port of the ingress":       func(p *Policy) { p.IngressPorts = []Port{{80, "sctp"}} },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			p := fullPolicy()
			spoil(&p)
			if r, err := Compile(p); err == nil {
				t.Errorf("compiled:\n%s", r.Text)
			}
		})
	}
}

// TestCompileIsCanonical: the order of the lists is no change, so that an
// equal policy is not loaded again.
func TestCompileIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := testPolicy()
		for i := range rapid.IntRange(0, 6).Draw(t, "members") {
			p.Members = append(p.Members, netip.AddrFrom16([16]byte{0xfd, 15: byte(i)}))
		}
		for i := range rapid.IntRange(0, 6).Draw(t, "published") {
			p.Published = append(p.Published, Publish{
				HostIP:   rapid.SampledFrom([]netip.Prefix{{}, prefix("192.0.2.1/32"), prefix("192.0.2.0/24")}).Draw(t, "ip"),
				HostPort: uint16(1000 + i), Protocol: "tcp", ContainerAddr: addr("10.210.7.9"), ContainerPort: 80,
			})
		}
		q := p
		q.Members, q.Published = slices.Clone(p.Members), slices.Clone(p.Published)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		r.Shuffle(len(q.Members), func(i, j int) { q.Members[i], q.Members[j] = q.Members[j], q.Members[i] })
		r.Shuffle(len(q.Published), func(i, j int) { q.Published[i], q.Published[j] = q.Published[j], q.Published[i] })
		a, errA := Compile(p)
		b, errB := Compile(q)
		if errA != nil || errB != nil || a.Hash != b.Hash {
			t.Fatalf("%v %v\n%s\n%s", errA, errB, a.Text, b.Text)
		}
	})
}

func TestLineHasNoNewline(t *testing.T) {
	r := mustCompile(t, fullPolicy())
	for _, persistent := range []bool{true, false} {
		l := r.line(persistent)
		if strings.ContainsAny(l, "\n#") || strings.Contains(l, "persist") != persistent {
			t.Errorf("persistent %v: %s", persistent, l)
		}
	}
}
