package mesh

import (
	"net/netip"
	"slices"
	"time"
)

// PeerState is what handshakes tell of the way to a peer.
type PeerState string

const (
	// PeerUnknown: an endpoint was just chosen and has not answered yet.
	PeerUnknown PeerState = "unknown"
	// PeerUp: the last handshake is recent.
	PeerUp PeerState = "up"
	// PeerDown: the endpoint in use does not answer.
	PeerDown PeerState = "down"
)

const (
	// endpointTimeout is how long a new endpoint has to complete a handshake:
	// three attempts, since WireGuard repeats one after 5 s.
	endpointTimeout = 15 * time.Second
	// upFor is how long after a handshake a peer counts as up. A session is
	// renewed after 120 s, is refused after 180 s, and a renewal is tried for
	// 90 s. Shorter would give up endpoints during a short partition; both
	// sides keeping them is what makes healing instant.
	upFor = 275 * time.Second
	// keepalive keeps the NAT of either side open, and makes a handshake
	// happen even where nobody has anything to say.
	keepalive = 25 * time.Second
)

// path is what is known of the way to one peer.
//
//	 endpoint chosen          no handshake for 15 s        next candidate chosen
//	       |                            |                            |
//	-------+--------- unknown ----------+----------- down -----------+--- unknown ...
//	       |                            (at once, if there is another one)
//	       | handshake
//	       +------------------ up ------------------+---- down ----> next candidate
//	       |                                        |
//	       handshakes renewed every 120 s           275 s after the last
//
// A packet that the peer signed may come from another endpoint than the one in
// use: WireGuard then answers there, and so path takes it over (observe). It
// stays a candidate, because no list of addresses can know what a NAT made of
// a port.
type path struct {
	endpoint  netip.AddrPort // in use; not valid: none, the peer has to call
	since     time.Time      // when we chose it; zero: it was there before us
	learned   netip.AddrPort // last endpoint that the peer itself showed
	handshake time.Time      // last one; zero: never
}

// state is the peer's state at now. patience is endpointTimeout, but for tests.
func (p path) state(now time.Time, patience time.Duration) PeerState {
	switch {
	case !p.handshake.IsZero() && !p.handshake.Before(p.since) && now.Sub(p.handshake) < upFor:
		return PeerUp
	case now.Sub(p.since) < patience:
		return PeerUnknown
	case !p.handshake.IsZero() && now.Sub(p.handshake) < upFor:
		return PeerUp
	}
	return PeerDown
}

// observe is p after a look at the device.
func (p path) observe(endpoint netip.AddrPort, handshake time.Time) path {
	if endpoint.IsValid() && endpoint != p.endpoint {
		p.endpoint, p.learned = endpoint, endpoint
	}
	p.handshake = handshake
	return p
}

// next is p on the way that should be tried now; changed is false when it
// should go on as it is.
func (p path) next(candidates []netip.AddrPort, now time.Time, patience time.Duration) (_ path, changed bool) {
	if p.endpoint.IsValid() && p.state(now, patience) != PeerDown {
		return p, false
	}
	if p.learned.IsValid() && !slices.Contains(candidates, p.learned) {
		candidates = append(slices.Clone(candidates), p.learned)
	}
	if len(candidates) == 0 {
		return p, false
	}
	// Not found is -1, so the first candidate follows an endpoint that is no
	// longer advertised.
	chosen := candidates[(slices.Index(candidates, p.endpoint)+1)%len(candidates)]
	if chosen == p.endpoint {
		return p, false
	}
	p.endpoint, p.since = chosen, now
	return p, true
}

// deadline is when p has to be looked at again, or zero: nothing but a
// handshake can change it.
func (p path) deadline(now time.Time, patience time.Duration) time.Time {
	switch p.state(now, patience) {
	case PeerUnknown:
		return p.since.Add(patience)
	case PeerUp:
		return p.handshake.Add(upFor)
	}
	return time.Time{}
}

// orderEndpoints puts those first that lie on a network this machine is on
// (no router between, and no dependence on a NAT that lets us come back in),
// and leaves out those of an address family that the machine has no address
// of. If that leaves nothing, all are tried.
func orderEndpoints(endpoints []netip.AddrPort, local []netip.Prefix) []netip.AddrPort {
	var near, far []netip.AddrPort
	for _, e := range endpoints {
		switch {
		case slices.ContainsFunc(local, func(p netip.Prefix) bool { return p.Contains(e.Addr()) }):
			near = append(near, e)
		case slices.ContainsFunc(local, func(p netip.Prefix) bool { return p.Addr().Is4() == e.Addr().Is4() }):
			far = append(far, e)
		}
	}
	if ordered := append(near, far...); len(ordered) > 0 {
		return ordered
	}
	return endpoints
}
