// Package ingress serves the published host names of services on ports 80 and
// 443, with Caddy inside the agent. It owns those ports, the certificates and
// the meaning of x-caddy, and it is the only importer of Caddy. It refuses to
// decide which service owns a name (spec.Routes does), which replica takes
// traffic (spec.Upstreams does) and which machine is an ingress (the agent does).
//
// Compile is pure: a state becomes one Caddy configuration, a table of the
// upstreams behind each route, and notes for people. Server loads both: the
// table at once, and the configuration only when it differs from the one that
// runs. DESIGN.md says why the upstreams are not part of the configuration.
package ingress
