package spec

import (
	"net/netip"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func stateWith(services ...ServiceSpec) *State {
	s := &State{Services: map[string]Service{}, Revisions: map[string]Revision{}, Machines: map[string]Machine{},
		Replicas: map[string]Replica{}, Containers: map[string]Container{}}
	for i, sp := range services {
		id := ServiceID("p", sp.Name)
		rev := sp.RevisionID(id)
		s.Revisions[rev] = Revision{ID: rev, Service: id, Spec: sp}
		s.Services[id] = Service{ID: id, Project: "p", Name: sp.Name, Revision: rev, Wanted: WantRunning,
			CreatedAt: epoch.Add(time.Duration(i) * time.Minute)}
	}
	return s
}

func TestRoutesGiveTheOlderServiceItsName(t *testing.T) {
	https := func(host string) Port {
		return Port{Mode: IngressPort, Hostname: host, Container: 80, Protocol: "https"}
	}
	tests := []struct {
		name         string
		older, newer []Port
		lost         int
	}{
		{"other names", []Port{https("a.test")}, []Port{https("b.test")}, 0},
		{"one name, in another case", []Port{https("a.test")}, []Port{https("A.test")}, 1},
		{"one name by http and https", []Port{https("a.test")}, []Port{{Mode: IngressPort, Hostname: "a.test", Container: 80, Protocol: "http"}}, 0},
		{"one tcp port", []Port{{Mode: IngressPort, Published: 25, Container: 25, Protocol: "tcp"}}, []Port{{Mode: IngressPort, Published: 25, Container: 2525, Protocol: "tcp"}}, 1},
		{"tcp and udp", []Port{{Mode: IngressPort, Published: 53, Container: 53, Protocol: "tcp"}}, []Port{{Mode: IngressPort, Published: 53, Container: 53, Protocol: "udp"}}, 0},
		{"tcp on the port of https", []Port{https("a.test")}, []Port{{Mode: IngressPort, Published: 443, Container: 1, Protocol: "tcp"}}, 1},
		{"default port, written out", []Port{https("a.test")}, []Port{{Mode: IngressPort, Hostname: "a.test", Published: 443, Container: 1, Protocol: "https"}}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := stateWith(ServiceSpec{Name: "older", Ports: tt.older}, ServiceSpec{Name: "newer", Ports: tt.newer})
			served, lost := Routes(s)
			if len(lost) != tt.lost || len(served) != 2-tt.lost {
				t.Fatalf("served %v, lost %v", served, lost)
			}
			if served[0].ServiceName != "older" {
				t.Errorf("served first: %s", served[0].ServiceName)
			}
		})
	}
}

func TestRoutesTieIsSettledByID(t *testing.T) {
	p := []Port{{Mode: IngressPort, Hostname: "a.test", Container: 80, Protocol: "https"}}
	s := stateWith(ServiceSpec{Name: "x", Ports: p}, ServiceSpec{Name: "y", Ports: p})
	low, high := ServiceID("p", "x"), ServiceID("p", "y")
	if high < low {
		low, high = high, low
	}
	for id, svc := range s.Services {
		svc.CreatedAt = epoch
		s.Services[id] = svc
	}
	served, lost := Routes(s)
	if served[0].Service != low || lost[0].Route.Service != high || lost[0].Owner.Service != low {
		t.Fatalf("served %v, lost %v", served, lost)
	}
}

func TestRoutesUseTheClusterDomain(t *testing.T) {
	s := stateWith(ServiceSpec{Name: "web", Ports: []Port{{Mode: IngressPort, Container: 80, Protocol: "https"}}})
	s.Cluster.Domain = "example.com"
	served, _ := Routes(s)
	if got := served[0].String(); got != "https://web.example.com" {
		t.Fatal(got)
	}
}

func TestHostPortsClash(t *testing.T) {
	host := func(ip string) Port {
		return Port{Mode: HostPort, HostIP: ip, Published: 80, Container: 8080, Protocol: "tcp"}
	}
	tests := []struct {
		a, b string
		want bool
	}{
		{"", "", true}, {"", "10.0.0.1", true}, {"10.0.0.1", "10.0.0.2", false},
		{"10.0.0.0/24", "10.0.0.2", true}, {"0.0.0.0", "10.0.0.2", true}, {"::", "10.0.0.2", false},
	}
	for _, tt := range tests {
		if got := HostPortsClash(host(tt.a), host(tt.b)); got != tt.want {
			t.Errorf("%q and %q: %v", tt.a, tt.b, got)
		}
	}
}

func TestHostRoutesLeadToOneContainer(t *testing.T) {
	p := []Port{{Mode: HostPort, Published: 53, Container: 5353, Protocol: "udp"}}
	s := stateWith(ServiceSpec{Name: "older", Ports: p}, ServiceSpec{Name: "newer", Ports: p})
	for i, n := range []string{"newer", "older", "older"} {
		svc := s.Services[ServiceID("p", n)]
		id := []string{"rep_a", "rep_b", "rep_c"}[i]
		s.Replicas[id] = Replica{ID: id, Service: svc.ID, Revision: svc.Revision, Machine: "m", Wanted: WantRunning}
		s.Containers[id] = Container{Replica: id, Machine: "m", State: ContainerRunning, Address: netip.MustParseAddr("10.210.0.2")}
	}
	draining := s.Replicas["rep_b"]
	draining.Wanted = WantDraining
	s.Replicas["rep_b"] = draining
	served, lost := HostRoutes(s, "m")
	if len(served) != 1 || served[0].Replica != "rep_c" || len(lost) != 1 || lost[0].Route.ServiceName != "newer" {
		t.Fatalf("served %v, lost %v", served, lost)
	}
}

func TestEligible(t *testing.T) {
	fresh := func() (*State, Alive, Replica) {
		s := stateWith(ServiceSpec{Name: "web", Container: ContainerSpec{Image: "a"}})
		svc := s.Services[ServiceID("p", "web")]
		s.Machines["m"] = Machine{ID: "m"}
		r := Replica{ID: "rep_a", Service: svc.ID, Revision: svc.Revision, Machine: "m", Wanted: WantRunning}
		s.Replicas[r.ID] = r
		s.Containers[r.ID] = Container{Replica: r.ID, Machine: "m", Revision: svc.Revision, State: ContainerRunning, Health: HealthHealthy}
		return s, Alive{"m": true}, r
	}
	tests := []struct {
		name   string
		change func(*State, Alive, *Replica)
		want   bool
	}{
		{"as it is", func(*State, Alive, *Replica) {}, true},
		{"draining", func(_ *State, _ Alive, r *Replica) { r.Wanted = WantDraining }, false},
		{"machine dead", func(_ *State, a Alive, _ *Replica) { delete(a, "m") }, false},
		{"machine removed", func(s *State, _ Alive, _ *Replica) { delete(s.Machines, "m") }, false},
		{"service stopped", func(s *State, _ Alive, r *Replica) {
			svc := s.Services[r.Service]
			svc.Wanted = WantStopped
			s.Services[r.Service] = svc
		}, false},
		{"starting", func(s *State, _ Alive, r *Replica) {
			c := s.Containers[r.ID]
			c.Health = HealthStarting
			s.Containers[r.ID] = c
		}, false},
		{"no check", func(s *State, _ Alive, r *Replica) {
			c := s.Containers[r.ID]
			c.Health = HealthNone
			s.Containers[r.ID] = c
		}, true},
		{"old container", func(s *State, _ Alive, r *Replica) {
			s.Revisions["rev_b"] = Revision{ID: "rev_b", Spec: ServiceSpec{Container: ContainerSpec{Image: "b"}}}
			r.Revision = "rev_b"
		}, false},
		{"only a route changed", func(s *State, _ Alive, r *Replica) {
			s.Revisions["rev_b"] = Revision{ID: "rev_b", Spec: ServiceSpec{Container: ContainerSpec{Image: "a"}, Caddy: "x"}}
			r.Revision = "rev_b"
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, alive, r := fresh()
			tt.change(s, alive, &r)
			if got := Eligible(s, alive, r); got != tt.want {
				t.Fatal(got)
			}
		})
	}
}

func TestMachineNames(t *testing.T) {
	s := &State{Machines: map[string]Machine{}}
	for i, name := range []string{"pi", "vps", "pi", "pi-2", "pi"} {
		id := []string{"e", "d", "c", "b", "a"}[i]
		s.Machines[id] = Machine{ID: id, Name: name, JoinedAt: epoch.Add(time.Duration(i) * time.Hour)}
	}
	want := map[string]string{"e": "pi", "d": "vps", "c": "pi-3", "b": "pi-2", "a": "pi-4"}
	for id, name := range want {
		if got := s.MachineName(id); got != name {
			t.Errorf("%s is called %s, not %s", id, got, name)
		}
		if m, ok := s.MachineByRef(name); !ok || m.ID != id || m.Name != name {
			t.Errorf("%s leads to %v", name, m)
		}
	}
}

func TestServicesByRef(t *testing.T) {
	s := &State{Services: map[string]Service{
		"svc_a": {ID: "svc_a", Project: "shop", Name: "web"},
		"svc_b": {ID: "svc_b", Project: "blog", Name: "web"},
	}}
	for ref, n := range map[string]int{"web": 2, "shop/web": 1, "svc_b": 1, "shop/db": 0, "shop": 0} {
		if got := s.ServicesByRef(ref); len(got) != n {
			t.Errorf("%s: %v", ref, got)
		}
	}
}

func TestUpstreamsAreReachedWhereTheirRevisionListens(t *testing.T) {
	at := func(port uint16) ServiceSpec {
		return ServiceSpec{Name: "web", Container: ContainerSpec{Image: "a"},
			Ports: []Port{{Mode: IngressPort, Hostname: "A.test", Container: port, Protocol: "https"}}}
	}
	s := stateWith(at(80))
	id := ServiceID("p", "web")
	older, newer := s.Services[id].Revision, at(8080).RevisionID(id)
	s.Revisions[newer] = Revision{ID: newer, Service: id, Spec: at(8080)}
	svc := s.Services[id]
	svc.Revision = newer
	s.Services[id] = svc
	s.Machines["m"] = Machine{ID: "m"}
	for i, rev := range []string{older, newer} {
		rep := []string{"rep_a", "rep_b"}[i]
		s.Replicas[rep] = Replica{ID: rep, Service: id, Revision: rev, Machine: "m", Wanted: WantRunning}
		s.Containers[rep] = Container{Replica: rep, Machine: "m", Revision: rev, State: ContainerRunning,
			Health: HealthNone, Address: netip.MustParseAddr("10.210.0.2")}
	}
	served, _ := Routes(s)
	ups := Upstreams(s, Alive{"m": true}, served[0])
	if len(ups) != 2 || ups[0].Address.Port() != 80 || ups[1].Address.Port() != 8080 {
		t.Fatal(ups)
	}
}
