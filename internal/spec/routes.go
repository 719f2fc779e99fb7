package spec

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Route is one place where a service is reached from outside of the mesh.
type Route struct {
	Service     string // id
	Project     string // name
	ServiceName string
	// Port is complete: Published is the port listened on, and Hostname is the
	// one served, in lower case. An empty Hostname of http or https is any name.
	Port Port
}

// String is the route as people write it: "https://app.example.com",
// "8080/tcp" or "5432/tcp on the host".
func (r Route) String() string { return r.Port.String() }

// RouteConflict is a route that is not served, because another service that
// was created earlier (then the one with the lower id) asks for the same.
type RouteConflict struct {
	Route Route
	Owner Route // the one that serves
	// Machine is where a host port is asked for twice; empty for ingress.
	Machine string
}

// Text is the note that the losing service shows.
func (c RouteConflict) Text() string {
	return fmt.Sprintf("%s is served by %s/%s, which was created earlier", c.Route, c.Owner.Project, c.Owner.ServiceName)
}

// HostRoute is a port of one machine that leads to one container there.
type HostRoute struct {
	Route
	Replica string
	Address netip.Addr
}

// String is the port as people write it.
func (p Port) String() string {
	published, isDefault := p.Listen(), p.Published == 0 || p.Published == defaultPort(p.Protocol)
	switch {
	case p.Mode == HostPort && p.HostIP != "":
		return fmt.Sprintf("%s:%d/%s on the host", p.HostIP, published, p.Protocol)
	case p.Mode == HostPort:
		return fmt.Sprintf("%d/%s on the host", published, p.Protocol)
	case p.Hostname == "":
		return fmt.Sprintf("%d/%s", published, p.Protocol)
	case isDefault:
		return p.Protocol + "://" + p.Hostname
	}
	return fmt.Sprintf("%s://%s:%d", p.Protocol, p.Hostname, published)
}

// Listen is the port that is listened on: Published, or what the protocol has
// by convention, or the container's own.
func (p Port) Listen() uint16 {
	if p.Published != 0 {
		return p.Published
	}
	if d := defaultPort(p.Protocol); d != 0 && p.Mode == IngressPort {
		return d
	}
	return p.Container
}

// Transport is the kind of socket: udp, or tcp for everything else.
func (p Port) Transport() string {
	if p.Protocol == "udp" {
		return "udp"
	}
	return "tcp"
}

func defaultPort(protocol string) uint16 {
	switch protocol {
	case "http":
		return 80
	case "https":
		return 443
	}
	return 0
}

// Routes are the ingress routes of all services' current revisions, sorted by
// the age of their service, and the ones that lose to an older service. A
// stopped service keeps its routes: it answers that nobody is there. One that
// never ran asks for none.
//
// Two http (or two https) routes clash when they share port and host name. Two
// protocols on one port clash whatever the name, since one socket speaks one.
func Routes(s *State) ([]Route, []RouteConflict) {
	var served []Route
	var lost []RouteConflict
	var taken claims
	never := s.NeverRan()
	for _, svc := range servicesByAge(s) {
		if never[svc.ID] {
			continue
		}
		for _, r := range IngressRoutes(s, svc, s.Revisions[svc.Revision].Spec) {
			owner, clash := taken.claim(r)
			switch {
			case !clash:
				served = append(served, r)
			case owner.Service != r.Service:
				lost = append(lost, RouteConflict{Route: r, Owner: owner})
			}
		}
	}
	return served, lost
}

// IngressRoutes are the ingress routes that a service would have with a spec.
// A port for http or https without a host name gets <service>.<domain> where
// the cluster has a domain.
func IngressRoutes(s *State, svc Service, spec ServiceSpec) []Route {
	var routes []Route
	for _, p := range spec.Ports {
		if p.Mode != IngressPort {
			continue
		}
		p.Published = p.Listen()
		p.Hostname = strings.ToLower(p.Hostname)
		if p.Hostname == "" && s.Cluster.Domain != "" && defaultPort(p.Protocol) != 0 {
			p.Hostname = svc.Name + "." + s.Cluster.Domain
		}
		routes = append(routes, Route{Service: svc.ID, Project: svc.Project, ServiceName: svc.Name, Port: p})
	}
	return routes
}

// HostRoutes are the host ports of one machine, each with the container that
// it leads to, and the ones that lose. Between services the older serves;
// within a service the replica that takes traffic, then the older one.
func HostRoutes(s *State, machine string) ([]HostRoute, []RouteConflict) {
	var served []HostRoute
	var lost []RouteConflict
	for _, rep := range replicasForPorts(s, machine) {
		svc, c := s.Services[rep.Service], s.Containers[rep.ID]
		for _, p := range s.Revisions[rep.Revision].Spec.Ports {
			if p.Mode != HostPort {
				continue
			}
			p.Published = p.Listen()
			r := HostRoute{
				Route:   Route{Service: svc.ID, Project: svc.Project, ServiceName: svc.Name, Port: p},
				Replica: rep.ID, Address: c.Address,
			}
			i := slices.IndexFunc(served, func(o HostRoute) bool { return HostPortsClash(o.Port, p) })
			switch {
			case i < 0:
				served = append(served, r)
			case served[i].Service != r.Service:
				lost = append(lost, RouteConflict{Route: r.Route, Owner: served[i].Route, Machine: machine})
			}
		}
	}
	return served, lost
}

// replicasForPorts are the machine's replicas whose container has an address,
// first those that should have a port that is asked for twice.
func replicasForPorts(s *State, machine string) []Replica {
	var reps []Replica
	for _, r := range s.Replicas {
		c, ok := s.Containers[r.ID]
		_, known := s.Services[r.Service]
		if ok && known && r.Machine == machine && c.Machine == machine && c.State == ContainerRunning && c.Address.IsValid() {
			reps = append(reps, r)
		}
	}
	slices.SortFunc(reps, func(a, b Replica) int {
		draining := func(r Replica) int {
			if r.Wanted == WantRunning {
				return 0
			}
			return 1
		}
		return cmp.Or(
			compareAge(s.Services[a.Service], s.Services[b.Service]),
			cmp.Compare(draining(a), draining(b)),
			a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return reps
}

// HostPortsClash tells whether two host ports cannot be had on one machine.
func HostPortsClash(a, b Port) bool {
	if a.Transport() != b.Transport() || a.Listen() != b.Listen() {
		return false
	}
	if a.HostIP == "" || b.HostIP == "" {
		return true
	}
	pa, okA := hostPrefix(a.HostIP)
	pb, okB := hostPrefix(b.HostIP)
	return !okA || !okB || pa.Overlaps(pb)
}

func hostPrefix(s string) (netip.Prefix, bool) {
	if addr, err := netip.ParseAddr(s); err == nil {
		if addr.IsUnspecified() {
			return netip.PrefixFrom(addr, 0), true
		}
		return netip.PrefixFrom(addr, addr.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	return p, err == nil
}

func servicesByAge(s *State) []Service {
	all := make([]Service, 0, len(s.Services))
	for _, svc := range s.Services {
		all = append(all, svc)
	}
	slices.SortFunc(all, compareAge)
	return all
}

// compareAge puts the service first that keeps what two of them ask for.
func compareAge(a, b Service) int {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
}

// claims says who has which socket, and which name on it.
type claims struct {
	sockets map[socket]Route
	names   map[name]Route
}

type socket struct {
	transport string
	port      uint16
}

type name struct {
	socket
	hostname string
}

// claim takes what r needs, or tells who has it.
func (c *claims) claim(r Route) (owner Route, clash bool) {
	if c.sockets == nil {
		c.sockets, c.names = map[socket]Route{}, map[name]Route{}
	}
	sock := socket{r.Port.Transport(), r.Port.Listen()}
	first, used := c.sockets[sock]
	if used && (first.Port.Protocol != r.Port.Protocol || defaultPort(r.Port.Protocol) == 0) {
		return first, true
	}
	n := name{sock, r.Port.Hostname}
	if owner, clash = c.names[n]; clash {
		return owner, true
	}
	if !used {
		c.sockets[sock] = r
	}
	c.names[n] = r
	return Route{}, false
}

// Upstream is one container that answers for a route.
type Upstream struct {
	Replica string
	Machine string
	Address netip.AddrPort
}

// Upstreams are the containers behind an ingress route that take traffic by
// the view of the machine whose Alive this is, in the order of replica ids. The
// port is that of each replica's own revision: while a rollout changes the
// container port, old and new replicas are both reached where they listen.
func Upstreams(s *State, alive Alive, route Route) []Upstream {
	var ups []Upstream
	for _, r := range s.ReplicasOf(route.Service) {
		if !Eligible(s, alive, r) {
			continue
		}
		for _, own := range IngressRoutes(s, s.Services[route.Service], s.Revisions[r.Revision].Spec) {
			if addr := s.Containers[r.ID].Address; own.samePlace(route) && addr.IsValid() {
				ups = append(ups, Upstream{r.ID, r.Machine, netip.AddrPortFrom(addr, own.Port.Container)})
				break
			}
		}
	}
	return ups
}

// samePlace tells whether two routes of one service are the same from outside.
func (r Route) samePlace(o Route) bool {
	a, b := r.Port, o.Port
	a.Container, b.Container = 0, 0
	return a == b
}
