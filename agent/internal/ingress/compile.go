package ingress

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

	"uncloud/internal/spec"
)

// How a request looks for an upstream. A machine that died stays in the table
// until gossip says so: until then a dial gives up after dialTimeout and the
// next upstream is tried, and later requests are kept away (see penalty).
const (
	tryDuration = "5s"
	tryInterval = "100ms"
	dialTimeout = "2s"
	retryAfter  = "5" // seconds, told with 503
	// streamCloseDelay keeps WebSockets open when a route of some other service
	// changes the configuration.
	streamCloseDelay = "24h"
)

// Certificates of the own authority live long, because each renewal is written
// to disk: a leaf must not outlive the intermediate that signed it.
const (
	leafLifetime         = "2160h" // 90 days
	intermediateLifetime = "8760h" // a year
)

// Compile makes the configuration of an ingress. The services in leaveOut are
// served without their x-caddy; its values say why, for their notes.
func Compile(in Input, leaveOut map[string]string) Compiled {
	c := &compiler{in: in, sites: map[uint16]*site{}, withPolicy: map[string]bool{}, out: Compiled{Upstreams: map[string][]Upstream{}}}
	http, https := in.Settings.ports()
	c.site(http, "http")
	c.site(https, "https")
	routes, conflicts := spec.Routes(in.State)
	for _, lost := range conflicts {
		c.note(lost.Route.Service, "%s", lost.Text())
	}
	c.addSnippets(routes, leaveOut)
	for _, r := range routes {
		c.addRoute(r)
	}
	c.redirect(http, https)
	c.out.Config = raw(c.config(http, https))
	slices.SortStableFunc(c.out.Notes, func(a, b Note) int { return cmp.Compare(a.Service, b.Service) })
	return c.out
}

type compiler struct {
	in           Input
	sites        map[uint16]*site
	policies     []fragmentPolicy           // of snippets
	withPolicy   map[string]bool            // names that those are for
	certificates map[string]json.RawMessage // of snippets
	out          Compiled
}

// site is one port that is listened on. Routes are told apart by host name.
type site struct {
	protocol string
	owned    []json.RawMessage // of snippets: more exact, so they come first
	routes   []json.RawMessage
	any      []json.RawMessage // for whatever name is asked
	errors   []json.RawMessage
	tls      []json.RawMessage
	skip     []string
	hosts    map[string]bool // answered by a route of this site
}

func (c *compiler) site(port uint16, protocol string) *site {
	if c.sites[port] == nil {
		c.sites[port] = &site{protocol: protocol, hosts: map[string]bool{}}
	}
	return c.sites[port]
}

func (c *compiler) note(service, format string, args ...any) {
	c.out.Notes = append(c.out.Notes, Note{Service: service, Text: fmt.Sprintf(format, args...)})
}

// addRoute proxies one published host name.
func (c *compiler) addRoute(r spec.Route) {
	port := r.Port
	if port.Protocol != "http" && port.Protocol != "https" {
		c.note(r.Service, "%s is not served: the ingress serves http and https; publish it on its machines as %d:%d/%s@host",
			r, port.Listen(), port.Container, port.Protocol)
		return
	}
	if port.Hostname == "" && port.Protocol == "https" {
		c.note(r.Service, "%s is not served: https needs a host name, and the cluster has no domain", r)
		return
	}
	name := r.String()
	c.out.Upstreams[name] = c.upstreams(r)
	s := c.site(c.in.Settings.listen(port.Listen()), port.Protocol)
	if port.Hostname == "" {
		s.any = append(s.any, raw(route{Handle: []any{proxy(name)}, Terminal: true}))
		return
	}
	s.hosts[port.Hostname] = true
	s.routes = append(s.routes, raw(route{Match: []match{{Host: []string{port.Hostname}}}, Handle: []any{proxy(name)}, Terminal: true}))
}

func (c *compiler) upstreams(r spec.Route) []Upstream {
	var out []Upstream
	for _, up := range spec.Upstreams(c.in.State, c.in.Alive, r) {
		out = append(out, Upstream{Address: up.Address.String(), Weight: c.in.weight(up.Machine)})
	}
	return out
}

// proxy hands requests to the upstreams that the table has for a route. They
// come in a drawn order, so the policy is to take the first that works.
func proxy(route string) proxyHandler {
	return proxyHandler{
		Handler:          "reverse_proxy",
		DynamicUpstreams: upstreamSource{Source: moduleName, Route: route},
		LoadBalancing:    loadBalancing{Policy: policyRef{"first"}, TryDuration: tryDuration, TryInterval: tryInterval},
		Transport:        transport{Protocol: moduleName, DialTimeout: dialTimeout},
		StreamCloseDelay: streamCloseDelay,
	}
}

// redirect sends http to https for the names that only https serves. The port
// is part of the address where it is not the usual one.
func (c *compiler) redirect(http, https uint16) {
	from, to := c.sites[http], c.sites[https]
	target := "https://{http.request.host}{http.request.uri}"
	if https != 443 {
		target = fmt.Sprintf("https://{http.request.host}:%d{http.request.uri}", https)
	}
	var names []string
	for host := range to.hosts {
		if !from.hosts[host] {
			names = append(names, host)
		}
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	from.routes = append(from.routes, raw(route{
		Match: []match{{Host: names}}, Terminal: true,
		Handle: []any{staticResponse{Handler: "static_response", StatusCode: 308, Headers: map[string][]string{"Location": {target}}}},
	}))
}

func (c *compiler) config(http, https uint16) config {
	app := httpApp{HTTPPort: http, HTTPSPort: https, ShutdownDelay: c.in.Settings.linger().String(), Servers: map[string]*server{}}
	for port, s := range c.sites {
		app.Servers[fmt.Sprintf("%s-%d", s.protocol, port)] = s.server(c.in.Settings.Address, port)
	}
	return config{
		Admin:   admin{Disabled: true},
		Logging: logging{map[string]logConfig{"default": {Writer: writerRef{moduleName}, Level: "INFO"}}},
		Storage: storageRef{moduleName},
		Apps: map[string]any{
			"http": app,
			"tls":  c.tls(),
			"pki": pkiApp{map[string]authority{"local": {
				Name: "uncloud", RootCommonName: "uncloud ingress root", IntermediateLifetime: intermediateLifetime,
			}}},
		},
	}
}

func (s *site) server(address string, port uint16) *server {
	notFound := staticResponse{Handler: "static_response", StatusCode: 404, Body: "no service has this name\n"}
	out := &server{
		Listen:    []string{moduleName + "/" + net.JoinHostPort(address, strconv.Itoa(int(port)))},
		Routes:    slices.Concat(s.owned, s.routes, s.any, []json.RawMessage{raw(route{Handle: []any{notFound}, Terminal: true})}),
		Errors:    &errorRoutes{append(slices.Clone(s.errors), raw(unavailable))},
		AutoHTTPS: autoHTTPS{Disabled: s.protocol == "http", DisableRedir: true, Skip: s.skip},
	}
	if s.protocol == "http" {
		out.Protocols = []string{"h1"} // the others need TLS
	} else {
		out.TLSPolicies = append(slices.Clone(s.tls), json.RawMessage("{}"))
	}
	return out
}

// unavailable answers where no upstream was found.
var unavailable = route{
	Match: []match{{Vars: map[string][]string{"{http.error.status_code}": {"502", "503", "504"}}}},
	Handle: []any{map[string]any{
		"handler": "static_response", "status_code": "{http.error.status_code}",
		"headers": map[string][]string{"Retry-After": {retryAfter}}, "body": "the service is not available\n",
	}},
	Terminal: true,
}

// tls lets the own authority sign private names, and a public one the rest.
// Stapling, storage checks and cleaning are off, since each writes to disk now
// and then; the large authorities do not offer OCSP any more.
func (c *compiler) tls() tlsApp {
	var private []string
	for _, s := range c.sites {
		for host := range s.hosts {
			if s.protocol == "https" && !c.withPolicy[host] && PrivateName(host, c.in.Settings.PrivateSuffixes) {
				private = append(private, host)
			}
		}
	}
	slices.Sort(private)
	var policies []json.RawMessage
	for _, p := range c.policies {
		policies = append(policies, raw(p))
	}
	if len(private) > 0 {
		policies = append(policies, raw(policy{Subjects: slices.Compact(private),
			Issuers: []issuer{{Module: "internal", Lifetime: leafLifetime}}}))
	}
	set := c.in.Settings
	policies = append(policies, raw(policy{Issuers: []issuer{{
		Module: "acme", CA: set.ACMEDirectory, Email: set.ACMEEmail, Roots: set.ACMERoots,
	}}}))
	return tlsApp{
		Certificates: maps.Clone(c.certificates), Automation: automation{policies},
		DisableOCSPStapling: true, DisableStorageCheck: true, DisableStorageClean: true,
	}
}
