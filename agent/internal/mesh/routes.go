package mesh

import (
	"net/netip"
	"slices"
)

// Route is a route by the link.
type Route struct {
	To     netip.Prefix
	Source netip.Addr // preferred source; not valid: the kernel's choice
}

// wantedRoutes is one route for each address that a peer may speak from.
// Those to subnets have the machine's own address as source, so that others
// see .1 and not an address they have no way back to; without that address
// (own is not valid) the kernel would refuse them, so they wait.
func wantedRoutes(want map[Key]wanted, own netip.Addr) []Route {
	var routes []Route
	for _, w := range want {
		for _, p := range w.allowedIPs {
			switch {
			case p.Addr().Is6():
				routes = append(routes, Route{To: p})
			case own.IsValid():
				routes = append(routes, Route{To: p, Source: own})
			}
		}
	}
	slices.SortFunc(routes, func(a, b Route) int { return a.To.Compare(b.To) })
	return routes
}

// diffRoutes is what has to be set (added or replaced) and removed.
func diffRoutes(want, have []Route) (set, remove []Route) {
	for _, w := range want {
		if !slices.Contains(have, w) {
			set = append(set, w)
		}
	}
	for _, h := range have {
		// Where only the source differs, setting replaces it.
		if !slices.ContainsFunc(want, func(w Route) bool { return w.To == h.To }) {
			remove = append(remove, h)
		}
	}
	return set, remove
}
