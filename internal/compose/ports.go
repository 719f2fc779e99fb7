package compose

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"uncloud/internal/spec"
)

// ParsePort reads one port of x-ports or of a command's --publish:
//
//	[hostname:][published:]container[/http|https]             ingress
//	[ip|prefix:]published:container[/tcp|udp]@host            a port of the machine
//
// A hostname without a protocol means https. A port of the machine answers on
// its IPv4 addresses, since containers have no other: an IPv6 address is
// refused. Errors are faults.Invalid.
func ParsePort(text string) (spec.Port, error) {
	rest, mode, marked := strings.Cut(strings.TrimSpace(text), "@")
	rest, protocol := cutProtocol(rest)
	switch {
	case marked && mode == "host":
		return parseHostPort(text, rest, protocol)
	case marked && mode != "ingress":
		return spec.Port{}, invalid("write @host, or nothing for the ingress", "port %q: mode %q is not known", text, mode)
	}
	return parseIngressPort(text, rest, protocol)
}

// cutProtocol splits at the last slash, unless that is the one of a prefix.
func cutProtocol(s string) (rest, protocol string) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 || strings.ContainsAny(s[i:], ":]") {
		return s, ""
	}
	return s[:i], strings.ToLower(s[i+1:])
}

func parseHostPort(text, rest, protocol string) (spec.Port, error) {
	port := spec.Port{Mode: spec.HostPort, Protocol: protocol}
	if protocol == "" {
		port.Protocol = "tcp"
	}
	if port.Protocol != "tcp" && port.Protocol != "udp" {
		return spec.Port{}, invalid("leave @host away to publish it by the ingress",
			"port %q: a port of the machine is tcp or udp, not %s", text, protocol)
	}
	parts, ip := splitLast(rest, 2)
	if len(parts) < 2 {
		return spec.Port{}, invalid("write PUBLISHED:CONTAINER@host", "port %q: the machine's port is missing", text)
	}
	var err error
	if port.Published, err = portNumber(text, parts[0]); err != nil {
		return spec.Port{}, err
	}
	if port.Container, err = portNumber(text, parts[1]); err != nil {
		return spec.Port{}, err
	}
	port.HostIP, err = hostIP(text, ip)
	return port, err
}

// splitLast splits the last n parts off at colons; left is what is before them.
func splitLast(s string, n int) (parts []string, left string) {
	for len(parts) < n {
		i := strings.LastIndexByte(s, ':')
		parts = slices.Insert(parts, 0, s[i+1:])
		if i < 0 {
			return parts, ""
		}
		s = s[:i]
	}
	return parts, s
}

// hostIP checks an address or a prefix. The unspecified address means all of
// the machine's, as does none.
func hostIP(text, ip string) (string, error) {
	plain := strings.NewReplacer("[", "", "]", "").Replace(ip)
	if plain == "" {
		return "", nil
	}
	prefix, err := netip.ParsePrefix(plain)
	if err == nil && prefix.Addr().Is4() {
		return prefix.Masked().String(), nil
	}
	addr, notOne := netip.ParseAddr(plain)
	if err == nil || notOne == nil && !addr.Is4() {
		return "", invalid("name an IPv4 address, leave it away for all of them, or publish http by the ingress, which answers on IPv6 too",
			"port %q: ports of the machine are published on IPv4 only", text)
	}
	if notOne != nil {
		return "", invalid("write an address, or a prefix such as 10.0.0.0/8", "port %q: %q is not an address", text, ip)
	}
	if addr.IsUnspecified() {
		return "", nil
	}
	return addr.String(), nil
}

func parseIngressPort(text, rest, protocol string) (spec.Port, error) {
	parts := strings.Split(rest, ":")
	port := spec.Port{Mode: spec.IngressPort, Protocol: protocol}
	if _, err := strconv.Atoi(parts[0]); err != nil && len(parts) > 1 {
		port.Hostname, parts = strings.ToLower(parts[0]), parts[1:]
	}
	if len(parts) > 2 {
		return spec.Port{}, invalid("write [HOSTNAME:]PORT/http or PUBLISHED:PORT/tcp@host", "port %q cannot be read", text)
	}
	var err error
	if port.Container, err = portNumber(text, parts[len(parts)-1]); err != nil {
		return spec.Port{}, err
	}
	if len(parts) == 2 {
		if port.Published, err = portNumber(text, parts[0]); err != nil {
			return spec.Port{}, err
		}
	}
	return port, checkIngressPort(text, &port)
}

func checkIngressPort(text string, port *spec.Port) error {
	if port.Hostname != "" && !hostname.MatchString(port.Hostname) {
		return invalid("write a whole name such as app.example.com", "port %q: %q is not a host name with a dot", text, port.Hostname)
	}
	switch port.Protocol {
	case "http", "https":
		return nil
	case "":
		if port.Hostname != "" {
			port.Protocol = "https"
			return nil
		}
		port.Protocol = "tcp"
	case "tcp", "udp":
	default:
		return invalid("use http, https, or tcp and udp with @host", "port %q: protocol %q is not known", text, port.Protocol)
	}
	published := port.Published
	if published == 0 {
		published = port.Container
	}
	return invalid(fmt.Sprintf("publish it on the machines that run it: %d:%d/%s@host", published, port.Container, port.Protocol),
		"port %q: the ingress serves http and https, not %s", text, port.Protocol)
}

var hostname = regexp.MustCompile(`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func portNumber(text, number string) (uint16, error) {
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return 0, invalid("a port is 1-65535", "port %q: %q is not a port", text, number)
	}
	return uint16(n), nil
}

// convertPorts takes `ports` as ports of the machine that runs the replica, as
// they are on a single machine with Compose; x-ports has the ingress too.
func (s *service) convertPorts() {
	written := s.sources.scalars([]string{"services", s.name, "ports"})
	for i, p := range s.in.Ports {
		at := []string{"ports", strconv.Itoa(i)}
		if len(written) != len(s.in.Ports) { // a range stands for several ports
			at = at[:1]
		}
		if p.Published == "" || strings.Contains(p.Published, "-") {
			s.refuse(at, fmt.Sprintf("write %[1]d:%[1]d, or publish by the ingress: x-ports: [%[1]d/http]", p.Target),
				"port %d has no one published port", p.Target)
			continue
		}
		ip := p.HostIP
		if strings.Contains(ip, ":") {
			ip = "[" + ip + "]"
		}
		text := fmt.Sprintf("%s:%s:%d/%s", ip, p.Published, p.Target, p.Protocol)
		s.addPort(at, strings.TrimPrefix(text, ":")+"@host")
	}
	for i, text := range s.list("x-ports") {
		s.addPort([]string{"x-ports", strconv.Itoa(i)}, text)
	}
}

func (s *service) addPort(at []string, text string) {
	port, err := ParsePort(text)
	if err != nil {
		s.refuseFault(at, err)
		return
	}
	for _, other := range s.out.Ports {
		sameHost := port.Mode == spec.HostPort && other.HostIP == port.HostIP
		sameName := port.Mode == spec.IngressPort && other.Hostname == port.Hostname
		if other.Mode == port.Mode && (sameHost || sameName) && other.Published == port.Published && other.Protocol == port.Protocol {
			s.refuse(at, "remove one of the two", "port %q is published twice", text)
			return
		}
	}
	s.out.Ports = append(s.out.Ports, port)
}
