package names

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"uncloud/internal/spec"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// cluster is a state that tests change before they compile it. Its addresses
// are loopback ones, so that the tests of the wire can use the same.
//
//	machine    subnet          replicas
//	mch_a pi   127.53.1.0/24   web/shop .2  web/blog .3 (older project's service is shop's)
//	mch_b vps  127.53.2.0/24   web/shop .2  db/shop .3
//	mch_c nas  127.53.3.0/24   web/shop .2
type cluster struct {
	state *spec.State
	alive spec.Alive
	rtt   map[string]time.Duration
}

func newCluster() *cluster {
	c := &cluster{
		state: &spec.State{
			Cluster:  spec.Cluster{ID: spec.ClusterKey, Network: netip.MustParsePrefix("127.53.0.0/16")},
			Machines: map[string]spec.Machine{}, Services: map[string]spec.Service{}, Revisions: map[string]spec.Revision{},
			Replicas: map[string]spec.Replica{}, Containers: map[string]spec.Container{},
		},
		alive: spec.Alive{},
		rtt:   map[string]time.Duration{"mch_b": 30 * time.Millisecond, "mch_c": 10 * time.Millisecond},
	}
	for i, name := range []string{"pi", "vps", "nas"} {
		id := "mch_" + string(rune('a'+i))
		c.state.Machines[id] = spec.Machine{
			ID: id, Name: name, PublicKey: fmt.Sprint(i + 1), JoinedAt: epoch.Add(time.Duration(i) * time.Hour),
			Subnet: netip.MustParsePrefix(fmt.Sprintf("127.53.%d.0/24", i+1)),
		}
		c.alive[id] = true
	}
	c.service("shop", "web", 1, spec.Port{Protocol: "https", Container: 8443}, spec.Port{Protocol: "https", Container: 9443}, spec.Port{Protocol: "udp", Container: 53})
	c.service("blog", "web", 2)
	c.service("shop", "db", 3)
	c.service("shop", "idle", 4)
	c.replica("shop", "web", "web-aaaa", "mch_a", 2)
	c.replica("shop", "web", "web-bbbb", "mch_b", 2)
	c.replica("shop", "web", "web-cccc", "mch_c", 2)
	c.replica("blog", "web", "web-dddd", "mch_a", 3)
	c.replica("shop", "db", "db-eeee", "mch_b", 3)
	return c
}

func (c *cluster) service(project, name string, hour int, ports ...spec.Port) {
	id := spec.ServiceID(project, name)
	c.state.Revisions["rev_"+id] = spec.Revision{ID: "rev_" + id, Service: id, Spec: spec.ServiceSpec{Name: name, Ports: ports}}
	c.state.Services[id] = spec.Service{ID: id, Project: project, Name: name, Revision: "rev_" + id, Wanted: spec.WantRunning,
		CreatedAt: epoch.Add(time.Duration(hour) * time.Hour)}
}

func (c *cluster) replica(project, service, name, machine string, host byte) {
	svc := c.state.Services[spec.ServiceID(project, service)]
	id := "rep_" + name
	a := c.state.Machines[machine].Subnet.Addr().As4()
	a[3] = host
	c.state.Replicas[id] = spec.Replica{ID: id, Name: name, Service: svc.ID, Revision: svc.Revision, Machine: machine, Wanted: spec.WantRunning}
	c.state.Containers[id] = spec.Container{Replica: id, Machine: machine, Revision: svc.Revision, Address: netip.AddrFrom4(a),
		State: spec.ContainerRunning, Health: spec.HealthHealthy}
}

func (c *cluster) view(self string) View {
	return View{
		State: c.state, Alive: c.alive, Self: self,
		RTT: func(m string) (time.Duration, bool) { d, ok := c.rtt[m]; return d, ok },
		Management: func(m spec.Machine) netip.Addr {
			return netip.MustParseAddr("fd00::" + m.PublicKey)
		},
	}
}

func changed[T any](m map[string]T, key string, change func(*T)) {
	v := m[key]
	change(&v)
	m[key] = v
}

// found is the answer as text: the addresses in order, "nothing" for a known
// name without any, "unknown" otherwise.
func (t *Table) found(name, from string) string {
	a := t.lookup(name, netip.MustParseAddr(from))
	if !a.known {
		return "unknown"
	}
	var addrs []string
	if a.entry != nil {
		for _, e := range a.entry.Endpoints {
			addrs = append(addrs, strings.TrimPrefix(e.Addr.String(), "127.53."))
		}
	}
	if len(addrs) == 0 {
		return "nothing"
	}
	return strings.Join(addrs, " ")
}

func TestLookup(t *testing.T) {
	const (
		shop, blog = "127.53.1.2", "127.53.1.3"
		stranger   = "127.53.1.99"
		host       = "127.53.1.1"
	)
	tests := []struct{ name, from, want string }{
		// Services: the caller's project first, else the one that was created earlier.
		{"web", shop, "1.2 3.2 2.2"},
		{"web", blog, "1.3"},
		{"web", stranger, "1.2 3.2 2.2"},
		{"web", host, "1.2 3.2 2.2"},
		{"db", blog, "2.3"},
		{"web.blog", shop, "1.3"},
		{"db.blog", blog, "unknown"},
		{"web.nobody", blog, "unknown"},
		{"cache", shop, "unknown"},
		{strings.ToLower(spec.ServiceID("blog", "web")), shop, "1.3"},
		{"rr.web", blog, "1.3"},
		{"nearest.web.shop", blog, "1.2 3.2 2.2"},
		{"nearest.db", blog, "2.3"},
		{"nearest.cache", blog, "unknown"},
		{"rr.nearest.web", blog, "unknown"},
		{"idle", shop, "nothing"},
		{"idle.shop", shop, "nothing"},
		// Machines and containers.
		{"pi.machine", shop, "1.1"},
		{"nas.machine", shop, "3.1"},
		{"nobody.machine", shop, "unknown"},
		{"nearest.pi.machine", shop, "unknown"},
		{"web-bbbb.vps.machine", shop, "2.2"},
		{"rep_web-bbbb.vps.machine", shop, "2.2"},
		{"web-bbbb.pi.machine", shop, "unknown"},
		// Names that exist because others end with them.
		{"", shop, "nothing"},
		{"machine", shop, "nothing"},
		{"shop", shop, "nothing"},
		{"rr", shop, "unknown"},
		{"rr.shop", shop, "unknown"},
	}
	table := Compile(newCluster().view("mch_a"))
	for _, tt := range tests {
		if got := table.found(tt.name, tt.from); got != tt.want {
			t.Errorf("%q from %s: %s, want %s", tt.name, tt.from, got, tt.want)
		}
	}
}

func TestNearestIsByTheMachineThatAnswers(t *testing.T) {
	c := newCluster()
	c.rtt = map[string]time.Duration{"mch_a": 20 * time.Millisecond}
	for self, want := range map[string]string{"mch_b": "2.2 1.2 3.2", "mch_c": "3.2 1.2 2.2", "mch_none": "1.2 2.2 3.2"} {
		if got := Compile(c.view(self)).found("nearest.web.shop", "127.53.1.99"); got != want {
			t.Errorf("%s: %s, want %s", self, got, want)
		}
	}
}

// TestWhoLeaves: each change takes the replica on mch_b out of its service.
func TestWhoLeaves(t *testing.T) {
	const rep = "rep_web-bbbb"
	tests := []struct {
		name      string
		change    func(*cluster)
		container string // what its own name gives then
	}{
		{"machine is dead", func(c *cluster) { delete(c.alive, "mch_b") }, "unknown"},
		{"machine was removed", func(c *cluster) { delete(c.state.Machines, "mch_b") }, "unknown"},
		{"draining", func(c *cluster) {
			changed(c.state.Replicas, rep, func(r *spec.Replica) { r.Wanted = spec.WantDraining })
		}, "2.2"},
		{"unhealthy", func(c *cluster) {
			changed(c.state.Containers, rep, func(x *spec.Container) { x.Health = spec.HealthUnhealthy })
		}, "2.2"},
		{"starting", func(c *cluster) {
			changed(c.state.Containers, rep, func(x *spec.Container) { x.Health = spec.HealthStarting })
		}, "2.2"},
		{"exited", func(c *cluster) {
			changed(c.state.Containers, rep, func(x *spec.Container) { x.State = spec.ContainerExited })
		}, "unknown"},
		{"has no address", func(c *cluster) {
			changed(c.state.Containers, rep, func(x *spec.Container) { x.Address = netip.Addr{} })
		}, "unknown"},
		{"machine has renumbered", func(c *cluster) {
			changed(c.state.Machines, "mch_b", func(m *spec.Machine) { m.Subnet = netip.MustParsePrefix("127.53.9.0/24") })
		}, "unknown"},
		{"another machine has the subnet", func(c *cluster) {
			m := c.state.Machines["mch_b"]
			m.ID, m.Name, m.JoinedAt = "mch_z", "older", epoch.Add(-time.Hour)
			c.state.Machines[m.ID] = m
		}, "unknown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster()
			tt.change(c)
			table := Compile(c.view("mch_a"))
			if got := table.found("web.shop", "127.53.1.2"); got != "1.2 3.2" {
				t.Errorf("service: %s", got)
			}
			if got := table.found("web-bbbb.vps.machine", "127.53.1.2"); got != tt.container {
				t.Errorf("container: %s, want %s", got, tt.container)
			}
		})
	}
}

func TestDeadMachineHasNoAddress(t *testing.T) {
	c := newCluster()
	delete(c.alive, "mch_b")
	table := Compile(c.view("mch_a"))
	if got := table.found("vps.machine", "127.53.1.2"); got != "nothing" {
		t.Error(got)
	}
	if host := table.reverse[netip.MustParseAddr("127.53.2.1")]; host != "" {
		t.Error(host)
	}
}

func TestReservedWordsWin(t *testing.T) {
	c := newCluster()
	c.service("machine", "pi", 5)
	c.replica("machine", "pi", "pi-ffff", "mch_c", 9)
	c.service("web", "rr", 6) // rr.web would be this one
	c.replica("web", "rr", "rr-gggg", "mch_c", 10)
	c.service("shop", "nearest", 7)
	c.replica("shop", "nearest", "nearest-hhhh", "mch_c", 11)
	table := Compile(c.view("mch_a"))
	for name, want := range map[string]string{
		"pi.machine": "1.1", "rr.web": "1.2 3.2 2.2", "rr.rr.web": "3.10", "rr": "3.10", "nearest": "3.11", "nearest.shop": "3.11",
	} {
		if got := table.found(name, "127.53.1.2"); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestMachinesOfOneName(t *testing.T) {
	c := newCluster()
	changed(c.state.Machines, "mch_c", func(m *spec.Machine) { m.Name = "vps" })
	table := Compile(c.view("mch_a"))
	for name, want := range map[string]string{"vps.machine": "2.1", "vps-2.machine": "3.1", "web-cccc.vps-2.machine": "3.2"} {
		if got := table.found(name, "127.53.1.2"); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestServicePorts(t *testing.T) {
	table := Compile(newCluster().view("mch_a"))
	for name, want := range map[string]uint16{
		"_8080._tcp.web": 8080, "_53._udp.web.shop": 53, "_https._tcp.nearest.web.shop": 8443, "_udp._udp.web.shop": 53,
		"_https._tcp.web.blog": 0, "_https._udp.web.shop": 0, "_udp._tcp.web.shop": 0, "_0._tcp.web": 0, "_70000._tcp.web": 0,
		"_8080._sctp.web": 0, "8080._tcp.web": 0, "_8080._tcp": 0, "_8080._tcp.pi.machine": 0, "_._tcp.web": 0, "_8080._tcp.cache": 0,
	} {
		a, port := table.service(name, netip.MustParseAddr("127.53.1.2"))
		if port != want || a.known != (want != 0) {
			t.Errorf("%s: %v %d, want %d", name, a.known, port, want)
		}
	}
}

func TestReverseNames(t *testing.T) {
	table := Compile(newCluster().view("mch_a"))
	tests := []struct {
		name string
		addr string // "invalid IP" for a part
		apex string
		ours bool
	}{
		{"2.1.53.127.in-addr.arpa.", "127.53.1.2", "53.127.in-addr.arpa.", true},
		{"1.53.127.in-addr.arpa.", "invalid IP", "53.127.in-addr.arpa.", true},
		{"53.127.in-addr.arpa.", "invalid IP", "53.127.in-addr.arpa.", true},
		{"127.in-addr.arpa.", "invalid IP", "", false},
		{"1.1.54.127.in-addr.arpa.", "invalid IP", "", false},
		{"x.2.1.53.127.in-addr.arpa.", "invalid IP", "", false},
		{"02.1.53.127.in-addr.arpa.", "invalid IP", "", false},
		{"in-addr.arpa.", "invalid IP", "", false},
		{"9." + strings.Repeat("0.", 29) + "d.f.ip6.arpa.", "invalid IP", "", false},
	}
	for _, tt := range tests {
		addr, apex, ours := table.reverseOf(tt.name)
		if ours != tt.ours || ours && (addr.String() != tt.addr || apex != tt.apex) {
			t.Errorf("%s: %s %s %v", tt.name, addr, apex, ours)
		}
	}
	management := "1." + strings.Repeat("0.", 29) + "d.f.ip6.arpa."
	if addr, _, ours := table.reverseOf(management); !ours || table.reverse[addr] != "pi.machine" {
		t.Errorf("%s: %s %v", management, addr, ours)
	}
}

func TestCompileKeepsTheStateAsItIs(t *testing.T) {
	c := newCluster()
	before := fmt.Sprint(c.state, c.alive)
	for range 3 {
		Compile(c.view("mch_a"))
	}
	if fmt.Sprint(c.state, c.alive) != before {
		t.Error("the state was changed")
	}
}

func TestCompileOfNothing(t *testing.T) {
	table := Compile(View{State: &spec.State{}, Self: "mch_a"})
	if table.own.IsValid() || table.serves(netip.MustParseAddr("10.210.0.2")) || table.found("web", "127.0.0.1") != "unknown" {
		t.Errorf("%+v", table)
	}
	if _, _, ours := table.reverseOf("1.0.0.127.in-addr.arpa."); ours {
		t.Error("without a network, every address is ours")
	}
}
