package schedule

import (
	"fmt"
	"slices"
	"strings"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// refusal is why a machine may not have a replica.
type refusal struct {
	code faults.Code
	text string
}

func (r refusal) none() bool { return r.text == "" }

// refusal is why the machine may not have one more replica now. Lasting rules
// are told before passing ones: that a machine is down does not matter when it
// would not fit anyway.
func (r *request) refusal(m spec.Machine) refusal {
	if why := r.rule(m); !why.none() {
		return why
	}
	name, image := r.names[m.ID], r.ask.Spec.Container.Image
	switch {
	case !r.alive[m.ID]:
		return refusal{faults.MachineDown, name + " is down"}
	case !m.Schedulable:
		return refusal{faults.NoPlace, name + " takes no new replicas"}
	case r.state.Drained(m.ID):
		return refusal{faults.NoPlace, name + " is upgraded now, and gives its replicas away"}
	case r.ask.Images.Lacks(m.ID, image):
		return refusal{faults.NoImage, fmt.Sprintf("%s does not have the image %s, which cannot be pulled", name, image)}
	}
	return r.port(m)
}

// rule is why the machine may not have a replica at all, new or old.
func (r *request) rule(m spec.Machine) refusal {
	name := r.names[m.ID]
	if r.only != nil && !r.only[m.ID] {
		return refusal{faults.NoPlace, name + " is not one of the machines asked for"}
	}
	// A machine without any role is a worker: roles are for those who want to divide.
	if len(m.Roles) > 0 && !slices.Contains(m.Roles, spec.RoleWorker) {
		return refusal{faults.NoPlace, name + " has not the role worker"}
	}
	for _, c := range r.rules {
		if why := c.refuses(m.Labels); why != "" {
			return refusal{faults.NoPlace, name + " " + why}
		}
	}
	for _, v := range r.homes {
		if v.Machine != m.ID {
			down := ""
			if r.alive != nil && !r.alive[v.Machine] {
				down = ", which is down"
			}
			return refusal{faults.NoPlace, fmt.Sprintf("volume %s is not on %s but on %s%s", v.Name, name, r.names[v.Machine], down)}
		}
	}
	return refusal{}
}

// port is why the machine cannot give the ports of the host that are asked for.
func (r *request) port(m spec.Machine) refusal {
	for _, p := range r.ask.Spec.Ports {
		if p.Mode != spec.HostPort {
			continue
		}
		switch holder := r.holder(m, p); holder {
		case "":
		case r.ask.Service.Project + "/" + r.ask.Service.Name:
			return refusal{faults.NoPlace, fmt.Sprintf("%s runs a replica of it already, and port %d/%s leads to one", r.names[m.ID], p.Listen(), p.Transport())}
		default:
			return refusal{faults.Conflict, fmt.Sprintf("port %d/%s of %s is taken by %s", p.Listen(), p.Transport(), r.names[m.ID], holder)}
		}
	}
	return refusal{}
}

// holder is who has a port of the machine, or empty.
func (r *request) holder(m spec.Machine, p spec.Port) string {
	if slices.Contains(m.Roles, spec.RoleIngress) {
		if name, held := r.ingressHolds(p); held {
			return name
		}
	}
	var holders []string
	for _, rep := range r.state.Replicas {
		if rep.Machine != m.ID || r.ask.Spec.Mode == spec.Global && rep.Service == r.ask.Service.ID {
			continue
		}
		svc := r.state.Services[rep.Service]
		for _, q := range r.state.Revisions[rep.Revision].Spec.Ports {
			if q.Mode == spec.HostPort && spec.HostPortsClash(p, q) {
				holders = append(holders, svc.Project+"/"+svc.Name)
			}
		}
	}
	if len(holders) == 0 {
		return ""
	}
	return slices.Min(holders)
}

// ingressHolds tells whether a machine with the ingress role has the port
// already: 80 and 443 always, others where a route listens on them.
func (r *request) ingressHolds(p spec.Port) (string, bool) {
	if p.Listen() == 443 || p.Listen() == 80 && p.Transport() == "tcp" {
		return "the ingress", true
	}
	routes, _ := spec.Routes(r.state)
	for _, route := range routes {
		if route.Port.Transport() == p.Transport() && route.Port.Listen() == p.Listen() {
			return fmt.Sprintf("the route %s of %s/%s", route, route.Project, route.ServiceName), true
		}
	}
	return "", false
}

// constraint is one rule about a label of the machine.
type constraint struct {
	key, value string
	equal      bool
}

// parseConstraint reads "label.key==value" and "label.key!=value".
func parseConstraint(text string) (constraint, error) {
	for _, op := range []string{"==", "!="} {
		left, value, ok := strings.Cut(text, op)
		key, labelled := strings.CutPrefix(strings.TrimSpace(left), "label.")
		if ok && labelled && key != "" {
			return constraint{key: key, value: strings.TrimSpace(value), equal: op == "=="}, nil
		}
	}
	return constraint{}, faults.New(faults.Invalid, "the placement constraint %q is not understood", text).
		WithHint("write it as label.KEY==VALUE or label.KEY!=VALUE")
}

func (c constraint) refuses(labels map[string]string) string {
	value, has := labels[c.key]
	switch {
	case c.equal && !has:
		return fmt.Sprintf("has no label %s=%s", c.key, c.value)
	case c.equal && value != c.value:
		return fmt.Sprintf("has label %s=%s, not %s", c.key, value, c.value)
	case !c.equal && has && value == c.value:
		return fmt.Sprintf("has label %s=%s", c.key, value)
	}
	return ""
}
