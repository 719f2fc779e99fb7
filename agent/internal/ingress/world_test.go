package ingress

import (
	"fmt"
	"net/netip"
	"time"

	"uncloud/internal/spec"
)

// world builds states for tests, one service or replica a call.
type world struct {
	state spec.State
	alive spec.Alive
	rtt   map[string]time.Duration
	set   Settings
	clock time.Time
}

func newWorld() *world {
	w := &world{
		state: spec.State{
			Machines: map[string]spec.Machine{}, Services: map[string]spec.Service{}, Revisions: map[string]spec.Revision{},
			Replicas: map[string]spec.Replica{}, Containers: map[string]spec.Container{},
		},
		alive: spec.Alive{}, rtt: map[string]time.Duration{},
		clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	for _, m := range []string{"self", "near", "far"} {
		w.state.Machines[m] = spec.Machine{ID: m, Name: m}
		w.alive[m] = true
	}
	w.rtt["near"], w.rtt["far"] = 300*time.Microsecond, 80*time.Millisecond
	return w
}

func (w *world) input() Input {
	s := w.copyState()
	return Input{State: &s, Alive: w.alive, Self: "self", RTT: w.rtt, Settings: w.set}
}

// copyState keeps what was given out as it was: a State is immutable.
func (w *world) copyState() spec.State {
	s := w.state
	s.Services, s.Revisions = clone(s.Services), clone(s.Revisions)
	s.Replicas, s.Containers = clone(s.Replicas), clone(s.Containers)
	return s
}

func clone[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// service adds one of project shop, each younger than the one before.
func (w *world) service(name, caddy string, ports ...spec.Port) string {
	w.clock = w.clock.Add(time.Minute)
	id, rev := spec.ServiceID("shop", name), "rev_"+name
	w.state.Services[id] = spec.Service{
		ID: id, Project: "shop", Name: name, Mode: spec.Replicated, Revision: rev, Wanted: spec.WantRunning, CreatedAt: w.clock,
	}
	w.state.Revisions[rev] = spec.Revision{ID: rev, Service: id, Spec: spec.ServiceSpec{Name: name, Caddy: caddy, Ports: ports}}
	return id
}

// replica adds a healthy one and gives its id.
func (w *world) replica(service, machine, address string) string {
	svc := w.state.Services[service]
	id := fmt.Sprintf("rep_%s_%s", svc.Name, address)
	w.state.Replicas[id] = spec.Replica{ID: id, Service: service, Revision: svc.Revision, Machine: machine, Wanted: spec.WantRunning}
	w.state.Containers[id] = spec.Container{
		Replica: id, Machine: machine, Revision: svc.Revision, Address: netip.MustParseAddr(address),
		State: spec.ContainerRunning, Health: spec.HealthHealthy,
	}
	return id
}

func (w *world) drain(replica string) {
	r := w.state.Replicas[replica]
	r.Wanted = spec.WantDraining
	w.state.Replicas[replica] = r
}

func ingressPort(protocol, hostname string, container uint16) spec.Port {
	return spec.Port{Mode: spec.IngressPort, Hostname: hostname, Container: container, Protocol: protocol}
}
