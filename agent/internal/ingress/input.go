package ingress

import (
	"time"

	"uncloud/internal/spec"
)

// Input is all that a configuration follows from.
type Input struct {
	State *spec.State
	Alive spec.Alive
	Self  string // id of this machine
	// RTT is the measured round trip to other machines; a nearer one gets more
	// of the requests. One that is missing counts as near.
	RTT      map[string]time.Duration
	Settings Settings
}

// Settings are what the machine's owner may choose. The zero value is right
// for an ingress that faces the internet.
type Settings struct {
	// Address is the one address to listen on; empty means all of the machine's.
	Address string
	// HTTPPort and HTTPSPort stand in for 80 and 443, for tests and for
	// machines behind a forwarded port. Zero means 80 and 443.
	HTTPPort, HTTPSPort uint16
	// ACMEEmail is given to the certificate authority; it may be empty.
	ACMEEmail string
	// ACMEDirectory is the authority's URL; empty means Let's Encrypt.
	ACMEDirectory string
	// ACMERoots are PEM files of roots to trust when talking to the authority.
	ACMERoots []string
	// PrivateSuffixes are domains such as "corp.example.net" for which no public
	// authority gives certificates, beyond those of PrivateName.
	PrivateSuffixes []string
	// Linger is how long a replaced configuration goes on for the connections
	// that it has, before it closes the idle ones. A new connection that sends
	// its first request later than this is cut off; a Load that changes the
	// configuration takes this long. Zero means DefaultLinger.
	Linger time.Duration
}

// DefaultLinger is enough for a TLS handshake and a request from the other side
// of the world.
const DefaultLinger = time.Second

// Compiled is what Compile makes of an Input.
type Compiled struct {
	Config    []byte                // Caddy's JSON, canonical
	Upstreams map[string][]Upstream // by route, as the configuration names it
	Notes     []Note                // sorted by service
	// Snippets are the services whose x-caddy is part of Config, oldest first.
	Snippets []string
}

// Upstream is one container behind a route.
type Upstream struct {
	Address string // host:port
	Weight  int    // share of the requests, relative to the others of the route
}

// Note tells the owner of a service what is not served, and why.
type Note struct {
	Service string // id
	Text    string
}

// Weights halve with each doubling of the distance. The steps are coarse on
// purpose: the jitter of a measurement should not change the table.
const (
	selfWeight = 2000
	nearWeight = 1000 // less than 1 ms away, or not measured
)

func (in *Input) weight(machine string) int {
	if machine == in.Self {
		return selfWeight
	}
	w := nearWeight
	for d := time.Millisecond; d <= in.RTT[machine] && w > 1; d *= 2 {
		w /= 2
	}
	return w
}

func (s Settings) ports() (http, https uint16) {
	http, https = 80, 443
	if s.HTTPPort != 0 {
		http = s.HTTPPort
	}
	if s.HTTPSPort != 0 {
		https = s.HTTPSPort
	}
	return http, https
}

func (s Settings) linger() time.Duration {
	if s.Linger == 0 {
		return DefaultLinger
	}
	return s.Linger
}

// listen is the port of this machine that stands for a route's port.
func (s Settings) listen(port uint16) uint16 {
	http, https := s.ports()
	switch port {
	case 80:
		return http
	case 443:
		return https
	}
	return port
}
