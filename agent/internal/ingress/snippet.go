package ingress

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"uncloud/internal/spec"
)

// addSnippets adds the x-caddy of each service, oldest first. A snippet may
// serve names on the usual ports that no other service serves; it may not
// change anything that others share.
func (c *compiler) addSnippets(routes []spec.Route, leaveOut map[string]string) {
	owners := map[string]string{}
	for _, r := range routes {
		if listen := r.Port.Listen(); listen == 80 || listen == 443 {
			owners[r.Port.Protocol+"://"+r.Port.Hostname] = r.Service
		}
	}
	for _, svc := range servicesWithSnippet(c.in.State) {
		why := leaveOut[svc.ID]
		if why == "" {
			part, err := c.snippet(svc)
			if err == nil {
				err = part.claim(svc.ID, owners)
			}
			if err == nil {
				c.merge(part)
				c.out.Snippets = append(c.out.Snippets, svc.ID)
				continue
			}
			why = err.Error()
		}
		c.note(svc.ID, "x-caddy is not served: %s", why)
	}
}

func servicesWithSnippet(s *spec.State) []spec.Service {
	var out []spec.Service
	for _, svc := range s.Services {
		if s.Revisions[svc.Revision].Spec.Caddy != "" {
			out = append(out, svc)
		}
	}
	slices.SortFunc(out, func(a, b spec.Service) int {
		if d := a.CreatedAt.Compare(b.CreatedAt); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// snippet is a service's x-caddy as parts of a configuration.
func (c *compiler) snippet(svc spec.Service) (*fragment, error) {
	text, err := c.render(svc, c.in.State.Revisions[svc.Revision].Spec.Caddy)
	if err != nil {
		return nil, err
	}
	if found := readsMachine.FindString(text); found != "" {
		return nil, fmt.Errorf("%q is not allowed: it reads the machine's files or environment", strings.TrimSpace(found))
	}
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "x-caddy"})
	if err != nil {
		return nil, err
	}
	return readFragment(adapted)
}

// readsMachine finds what would put the machine's files (its keys are among
// them) or the agent's environment into answers.
var readsMachine = regexp.MustCompile(`\{file\.|\{env\.|\{\$|(?m)^\s*import\s`)

// render runs the template of a snippet:
//
//	{{.Name}}                          the service's name
//	{{upstreams}} {{upstreams 8080}}   its healthy replicas: "10.210.1.2:8080 10.210.2.2:8080"
//	{{upstreams "api" 8080}}           those of another service of the project
//	{{.Upstreams.api}}                 the same as a list, without port
func (c *compiler) render(svc spec.Service, text string) (string, error) {
	t, err := template.New("x-caddy").Option("missingkey=error").Funcs(template.FuncMap{
		"upstreams": func(args ...any) (string, error) { return c.snippetUpstreams(svc, args) },
	}).Parse(text)
	if err != nil {
		return "", err
	}
	data := struct {
		Name      string
		Upstreams map[string][]string
	}{svc.Name, map[string][]string{}}
	for _, other := range c.in.State.Services {
		if other.Project == svc.Project {
			data.Upstreams[other.Name] = c.addresses(other.ID)
		}
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return "", err
	}
	return b.String(), nil
}

func (c *compiler) snippetUpstreams(svc spec.Service, args []any) (string, error) {
	id, port := svc.ID, ""
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			id = spec.ServiceID(svc.Project, arg)
			if _, known := c.in.State.Services[id]; !known || i > 0 {
				return "", fmt.Errorf("upstreams: the project has no service %q", arg)
			}
		case int:
			if arg < 1 || arg > 65535 || i != len(args)-1 {
				return "", fmt.Errorf("upstreams: %d is not a port", arg)
			}
			port = ":" + strconv.Itoa(arg)
		default:
			return "", errors.New(`upstreams: write upstreams [SERVICE] [PORT], such as upstreams "api" 8080`)
		}
	}
	addresses := c.addresses(id)
	for i := range addresses {
		addresses[i] += port
	}
	return strings.Join(addresses, " "), nil
}

// addresses are a service's replicas that take traffic, those of this machine
// first.
func (c *compiler) addresses(service string) []string {
	var here, there []string
	for _, r := range c.in.State.ReplicasOf(service) {
		addr := c.in.State.Containers[r.ID].Address
		if !addr.IsValid() || !spec.Eligible(c.in.State, c.in.Alive, r) {
			continue
		}
		if r.Machine == c.in.Self {
			here = append(here, bracketed(addr))
		} else {
			there = append(there, bracketed(addr))
		}
	}
	return append(here, there...)
}

func bracketed(addr netip.Addr) string {
	if addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return addr.String()
}

// fragment is what an adapted snippet asks for.
type fragment struct {
	servers      map[string]*fragmentServer // by protocol
	policies     []fragmentPolicy
	certificates map[string]json.RawMessage
}

// fragmentPolicy says how the names of a snippet get certificates.
type fragmentPolicy struct {
	Subjects []string         `json:"subjects"`
	Issuers  []map[string]any `json:"issuers,omitempty"`
	KeyType  string           `json:"key_type,omitempty"`
}

// fragmentServer has the keys of a Caddy server that a snippet may set. The
// decoder refuses all others.
type fragmentServer struct {
	Listen      []string          `json:"listen"`
	Routes      []json.RawMessage `json:"routes"`
	Errors      *errorRoutes      `json:"errors"`
	TLSPolicies []json.RawMessage `json:"tls_connection_policies"`
	AutoHTTPS   struct {
		Skip []string `json:"skip"`
	} `json:"automatic_https"`

	hosts []string
}

// readFragment takes an adapted snippet apart, and refuses what would reach
// beyond the names that the snippet serves.
func readFragment(adapted []byte) (*fragment, error) {
	var in struct {
		Apps struct {
			HTTP struct {
				Servers map[string]*fragmentServer `json:"servers"`
			} `json:"http"`
			TLS struct {
				Certificates map[string]json.RawMessage `json:"certificates"`
				Automation   struct {
					Policies []fragmentPolicy `json:"policies"`
				} `json:"automation"`
			} `json:"tls"`
		} `json:"apps"`
	}
	dec := json.NewDecoder(bytes.NewReader(adapted))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, fmt.Errorf("it may only have sites, without global options, logs and named routes (%w)", err)
	}
	out := &fragment{
		servers:  map[string]*fragmentServer{},
		policies: in.Apps.TLS.Automation.Policies, certificates: in.Apps.TLS.Certificates,
	}
	for _, name := range slices.Sorted(maps.Keys(in.Apps.HTTP.Servers)) {
		if err := out.add(in.Apps.HTTP.Servers[name]); err != nil {
			return nil, err
		}
	}
	for _, p := range out.policies {
		if len(p.Subjects) == 0 {
			return nil, errors.New("a tls policy must be that of a named site")
		}
		for _, issuer := range p.Issuers {
			if issuer["module"] == "internal" && issuer["lifetime"] == nil {
				issuer["lifetime"] = leafLifetime
			}
		}
	}
	return out, nil
}

func (f *fragment) add(s *fragmentServer) error {
	protocol := map[string]string{":80": "http", ":443": "https"}[strings.Join(s.Listen, " ")]
	if protocol == "" || f.servers[protocol] != nil {
		return fmt.Errorf("it may only listen on ports 80 and 443, not on %s", strings.Join(s.Listen, " "))
	}
	routes := s.Routes
	if s.Errors != nil {
		routes = slices.Concat(routes, s.Errors.Routes)
	}
	for _, r := range routes {
		var with struct{ Match []struct{ Host []string } }
		if err := json.Unmarshal(r, &with); err != nil {
			return err
		}
		if len(with.Match) == 0 {
			return errors.New("each site must have a host name")
		}
		for _, m := range with.Match {
			if len(m.Host) == 0 {
				return errors.New("each site must have a host name")
			}
			s.hosts = append(s.hosts, m.Host...)
		}
	}
	f.servers[protocol] = s
	return nil
}

// claim takes the fragment's names for a service, unless another has one.
func (f *fragment) claim(service string, owners map[string]string) error {
	var names []string
	for protocol, s := range f.servers {
		for _, host := range s.hosts {
			names = append(names, protocol+"://"+strings.ToLower(host))
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if owner, taken := owners[name]; taken && owner != service {
			return fmt.Errorf("%s is served by another service", name)
		}
	}
	for _, name := range names {
		owners[name] = service
	}
	return nil
}

func (c *compiler) merge(f *fragment) {
	http, https := c.in.Settings.ports()
	for protocol, in := range f.servers {
		s := c.site(map[string]uint16{"http": http, "https": https}[protocol], protocol)
		s.owned = append(s.owned, in.Routes...)
		if in.Errors != nil {
			s.errors = append(s.errors, in.Errors.Routes...)
		}
		for _, p := range in.TLSPolicies {
			if string(p) != "{}" { // the default, which the site has once at the end
				s.tls = append(s.tls, p)
			}
		}
		s.skip = append(s.skip, in.AutoHTTPS.Skip...)
		for _, host := range in.hosts {
			s.hosts[strings.ToLower(host)] = true
		}
	}
	c.policies = append(c.policies, f.policies...)
	for _, p := range f.policies {
		for _, subject := range p.Subjects {
			c.withPolicy[subject] = true
		}
	}
	for loader, list := range f.certificates {
		if c.certificates == nil {
			c.certificates = map[string]json.RawMessage{}
		}
		c.certificates[loader] = joinLists(c.certificates[loader], list)
	}
}

// joinLists is the items of two JSON lists.
func joinLists(a, b json.RawMessage) json.RawMessage {
	var all []json.RawMessage
	for _, list := range []json.RawMessage{a, b} {
		var items []json.RawMessage
		if json.Unmarshal(list, &items) == nil {
			all = append(all, items...)
		}
	}
	return raw(all)
}
