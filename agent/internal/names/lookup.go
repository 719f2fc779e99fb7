package names

import (
	"net/netip"
	"strconv"
	"strings"
)

// order is how the addresses of a service are given.
type order int

const (
	shuffled order = iota // rr., and without a prefix
	nearest               // own machine first, then by round trip time
)

// answer is what a table says about a name.
type answer struct {
	known bool // the name exists, whether or not it has addresses
	entry *entry
	order order
}

// lookup finds a name, which is in lower case and without the zone, for who
// asks from an address.
func (t *Table) lookup(name string, from netip.Addr) answer {
	order, rest := cutOrder(name)
	if rest != name {
		if a := t.plain(rest, from); a.known && a.entry != nil && a.entry.Service {
			a.order = order
			return a
		}
	}
	return t.plain(name, from)
}

// cutOrder takes a prefix off a name. Something that is really called like a
// prefix is found by its whole name where the rest is no service.
func cutOrder(name string) (order, string) {
	if rest, ok := strings.CutPrefix(name, "rr."); ok {
		return shuffled, rest
	}
	if rest, ok := strings.CutPrefix(name, "nearest."); ok {
		return nearest, rest
	}
	return shuffled, name
}

func (t *Table) plain(name string, from netip.Addr) answer {
	if project, ok := t.callers[from]; ok && t.scoped[project][name] != nil {
		return answer{known: true, entry: t.scoped[project][name]}
	}
	for _, names := range []map[string]*entry{t.short, t.names} {
		if e := names[name]; e != nil {
			return answer{known: true, entry: e}
		}
	}
	return answer{known: t.inner[name]}
}

// service finds what a SRV question is about: `_8080._tcp.web` is port 8080
// of web, `_http._tcp.web` the first port that web publishes as http.
func (t *Table) service(name string, from netip.Addr) (a answer, port uint16) {
	portName, rest, ok := strings.Cut(name, ".")
	protocol, rest, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || !strings.HasPrefix(portName, "_") || protocol != "_tcp" && protocol != "_udp" {
		return answer{}, 0
	}
	a = t.lookup(rest, from)
	if a.entry == nil || !a.entry.Service {
		return answer{}, 0
	}
	if n, err := strconv.ParseUint(portName[1:], 10, 16); err == nil && n > 0 {
		return a, uint16(n)
	}
	port, ok = a.entry.Ports[portName[1:]]
	if !ok || (portName == "_udp") != (protocol == "_udp") {
		return answer{}, 0
	}
	return a, port
}

// serves tells whether somebody may ask at all: the cluster and the machine
// itself. Everybody else would make this an open resolver.
func (t *Table) serves(from netip.Addr) bool {
	return from.IsLoopback() || t.network.Contains(from) || t.machines[from]
}

// machine tells whether the question comes from a machine and not from a
// container, which cannot use a management address.
func (t *Table) machine(from netip.Addr) bool {
	return t.machines[from] || from.IsLoopback() && !t.network.Contains(from)
}
