package names

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"uncloud/internal/spec"
)

// View is what a Table follows from.
type View struct {
	State *spec.State
	Alive spec.Alive
	Self  string // id of the machine that answers
	// RTT is how far a machine is, if that is known. It may be nil.
	RTT func(machine string) (time.Duration, bool)
	// Management is the management address of a machine. It may be nil.
	Management func(spec.Machine) netip.Addr
}

// Table is every answer about the cluster that a machine can give. It is
// immutable.
type Table struct {
	network netip.Prefix
	own     netip.Addr // where this machine answers; invalid until it has a subnet
	names   map[string]*entry
	// short names mean a service of the caller's project, or else the oldest
	// of that name anywhere.
	short    map[string]*entry            // by service
	scoped   map[string]map[string]*entry // by project, service
	callers  map[netip.Addr]string        // project of each running container
	machines map[netip.Addr]bool          // addresses of machines
	reverse  map[netip.Addr]string        // name of each address, without the zone
	inner    map[string]bool              // names that exist only because others end with them
}

// entry is what is known of a name.
type entry struct {
	Service    bool
	Endpoints  []endpoint // nearest first
	Management netip.Addr // of a machine
	Ports      map[string]uint16
}

type endpoint struct {
	Addr netip.Addr
	Host string // its own name, without the zone
}

// Compile makes the table of a view. It reads the whole state once; answering
// then needs a few map lookups.
func Compile(v View) *Table {
	c := compiler{View: v, machineName: v.State.MachineNames(), distance: map[string]time.Duration{}}
	c.t = &Table{
		network: v.State.Cluster.Network, names: map[string]*entry{}, short: map[string]*entry{}, scoped: map[string]map[string]*entry{},
		callers: map[netip.Addr]string{}, machines: map[netip.Addr]bool{}, reverse: map[netip.Addr]string{},
		inner: map[string]bool{"": true, "machine": true},
	}
	if subnet := v.State.Machines[v.Self].Subnet; subnet.IsValid() {
		c.t.own = machineAddr(subnet)
	}
	c.settleSubnets()
	c.addServices()
	c.addMachines()
	c.addContainers()
	return c.t
}

type compiler struct {
	View
	t           *Table
	machineName map[string]string
	subnetOwner map[netip.Prefix]string
	distance    map[string]time.Duration
}

func machineAddr(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// settleSubnets says whose a subnet is while two machines that joined in two
// partitions have the same: packets go to the one that joined earlier, so the
// other's containers cannot be named until it has renumbered.
func (c *compiler) settleSubnets() {
	c.subnetOwner = map[netip.Prefix]string{}
	byAge := slices.SortedFunc(maps.Values(c.State.Machines), func(a, b spec.Machine) int {
		return cmp.Or(a.JoinedAt.Compare(b.JoinedAt), cmp.Compare(a.ID, b.ID))
	})
	for _, m := range byAge {
		if _, taken := c.subnetOwner[m.Subnet]; !taken && m.Subnet.IsValid() {
			c.subnetOwner[m.Subnet] = m.ID
		}
	}
}

// routable tells whether packets to an address of a machine arrive there.
func (c *compiler) routable(machine string, addr netip.Addr) bool {
	subnet := c.State.Machines[machine].Subnet
	return addr.IsValid() && subnet.Contains(addr) && c.subnetOwner[subnet] == machine
}

func (c *compiler) addServices() {
	services := slices.SortedFunc(maps.Values(c.State.Services), func(a, b spec.Service) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	replicas := map[string][]spec.Replica{}
	for _, r := range c.State.Replicas {
		replicas[r.Service] = append(replicas[r.Service], r)
	}
	for _, svc := range services {
		e := c.service(svc, replicas[svc.ID])
		name, project := strings.ToLower(svc.Name), strings.ToLower(svc.Project)
		c.t.names[strings.ToLower(svc.ID)] = e
		c.t.names[name+"."+project] = e
		c.t.inner[project] = true
		if c.t.scoped[project] == nil {
			c.t.scoped[project] = map[string]*entry{}
		}
		c.t.scoped[project][name] = e
		if c.t.short[name] == nil {
			c.t.short[name] = e
		}
	}
}

func (c *compiler) service(svc spec.Service, replicas []spec.Replica) *entry {
	eligible := slices.DeleteFunc(replicas, func(r spec.Replica) bool {
		return !spec.Eligible(c.State, c.Alive, r) || !c.routable(r.Machine, c.State.Containers[r.ID].Address)
	})
	slices.SortFunc(eligible, func(a, b spec.Replica) int {
		return cmp.Or(
			cmp.Compare(c.far(a.Machine), c.far(b.Machine)),
			cmp.Compare(a.Machine, b.Machine), cmp.Compare(a.ID, b.ID))
	})
	e := &entry{Service: true, Ports: map[string]uint16{}}
	for _, r := range eligible {
		e.Endpoints = append(e.Endpoints, endpoint{c.State.Containers[r.ID].Address, c.containerName(r)})
	}
	for _, p := range c.State.Revisions[svc.Revision].Spec.Ports {
		if _, first := e.Ports[p.Protocol]; !first {
			e.Ports[p.Protocol] = p.Container
		}
	}
	return e
}

// far is the distance of a machine: this one is nearest, the unknown farthest.
func (c *compiler) far(machine string) time.Duration {
	if machine == c.Self {
		return -1
	}
	d, known := c.distance[machine]
	if known {
		return d
	}
	d = time.Duration(1<<63 - 1)
	if c.RTT != nil {
		if rtt, ok := c.RTT(machine); ok {
			d = rtt
		}
	}
	c.distance[machine] = d // once, so that an order cannot contradict itself
	return d
}

// addMachines names machines. They come after services, so that a project
// called "machine" takes no machine's name.
func (c *compiler) addMachines() {
	for id, m := range c.State.Machines {
		e := &entry{}
		name := strings.ToLower(c.machineName[id]) + ".machine"
		c.t.names[name] = e
		var addr, management netip.Addr
		if c.subnetOwner[m.Subnet] == id {
			addr = machineAddr(m.Subnet)
		}
		if c.Management != nil {
			management = c.Management(m)
		}
		for _, a := range []netip.Addr{addr, management} {
			if a.IsValid() {
				c.t.machines[a] = true
			}
			if a.IsValid() && c.Alive[id] {
				c.t.reverse[a] = name
			}
		}
		if addr.IsValid() && c.Alive[id] {
			e.Endpoints = []endpoint{{addr, name}}
		}
		if c.Alive[id] {
			e.Management = management
		}
	}
}

// addContainers names each running container of a living machine, healthy or
// not: who uses such a name means this one.
func (c *compiler) addContainers() {
	byAge := slices.SortedFunc(maps.Values(c.State.Replicas), func(a, b spec.Replica) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	for _, r := range byAge {
		ct, ok := c.State.Containers[r.ID]
		if !ok || ct.Machine != r.Machine || ct.State != spec.ContainerRunning || !c.routable(r.Machine, ct.Address) {
			continue
		}
		c.t.callers[ct.Address] = strings.ToLower(c.State.Services[r.Service].Project)
		if !c.Alive[r.Machine] {
			continue
		}
		name := c.containerName(r)
		e := &entry{Endpoints: []endpoint{{ct.Address, name}}}
		c.t.reverse[ct.Address] = name
		_, machine, _ := strings.Cut(name, ".")
		for _, n := range []string{name, strings.ToLower(r.ID) + "." + machine} {
			if c.t.names[n] == nil {
				c.t.names[n] = e
			}
		}
	}
}

func (c *compiler) containerName(r spec.Replica) string {
	return strings.ToLower(r.Name + "." + c.machineName[r.Machine] + ".machine")
}
