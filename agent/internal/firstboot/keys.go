package firstboot

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"uncloud/internal/spec"
)

// key is one that a file may have.
type key struct {
	many   bool // it may be there several times
	secret bool
	read   func(s *Settings, value string, checks Checks) error
}

var keys = map[string]key{
	"name":     {read: readName},
	"key":      {read: readKey, many: true},
	"wifi":     {read: readWiFi, secret: true},
	"country":  {read: readCountry},
	"address":  {read: readAddress},
	"gateway":  {read: readGateway},
	"dns":      {read: readDNS},
	"timezone": {read: readZone},
	"label":    {read: readLabel, many: true},
	"role":     {read: readRole, many: true},
	"ticket":   {read: readTicket, secret: true},
}

func readName(s *Settings, value string, _ Checks) error {
	s.Name = value
	return spec.CheckMachineName(value)
}

func readKey(s *Settings, value string, _ Checks) error {
	public, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(value))
	if err != nil || len(options) > 0 || len(rest) > 0 || !strings.HasPrefix(value, public.Type()+" ") {
		return errors.New("this is no public SSH key: give the one line of a file such as id_ed25519.pub, beginning with ssh-ed25519")
	}
	line := strings.TrimSpace(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))) + " " + comment)
	if !slices.Contains(s.Keys, line) {
		s.Keys = append(s.Keys, line)
	}
	return nil
}

var rawKey = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)

func readWiFi(s *Settings, value string, _ Checks) error {
	network, password, ok := strings.Cut(value, " / ")
	network, password = strings.TrimSpace(network), strings.TrimSpace(password)
	switch {
	case !ok:
		return errors.New("write it as NETWORK / PASSWORD, with spaces around the slash")
	case isQuoted(network) || isQuoted(password):
		return errors.New("write network and password without quotes")
	case network == "" || len(network) > 32 || !utf8.ValidString(network):
		return fmt.Errorf("the name of a network has 1 to 32 bytes, and this has %d", len(network))
	case rawKey.MatchString(password):
		password = strings.ToLower(password)
	case strings.ContainsFunc(password, func(r rune) bool { return r < ' ' || r > '~' }):
		return errors.New("a password of a Wi-Fi has only letters, digits and signs of ASCII, and this has another: a typographic quote, perhaps")
	case len(password) < 8 || len(password) > 63:
		return fmt.Errorf("a password of a Wi-Fi has 8 to 63 characters, and this has %d", len(password))
	}
	s.WiFi = WiFi{Network: network, Password: password}
	return nil
}

var countryRule = regexp.MustCompile(`^[A-Z]{2}$`)

func readCountry(s *Settings, value string, _ Checks) error {
	s.Country = strings.ToUpper(value)
	if !countryRule.MatchString(s.Country) {
		return fmt.Errorf("%q is no country: write its two letters, such as DE", value)
	}
	return nil
}

func readAddress(s *Settings, value string, _ Checks) error {
	if strings.EqualFold(value, "dhcp") {
		s.DHCP = true
		return nil
	}
	p, err := netip.ParsePrefix(value)
	if err != nil {
		return fmt.Errorf("%q is no address with the length of its network: write it as 192.168.1.10/24, or dhcp", value)
	}
	if a := p.Addr(); !usable(a) {
		return fmt.Errorf("%s cannot be the address of a machine", a)
	}
	if p.Bits() < p.Addr().BitLen()-1 && (p.Addr() == p.Masked().Addr() && p.Addr().Is4() || p.Addr() == broadcast(p)) {
		return fmt.Errorf("%s names the whole network %s and no machine in it", p.Addr(), p.Masked())
	}
	s.Address = p
	return nil
}

func usable(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast()
}

// broadcast is the last address of an IPv4 network; not valid for IPv6.
func broadcast(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() {
		return netip.Addr{}
	}
	last := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(last)
}

func readGateway(s *Settings, value string, _ Checks) (err error) {
	s.Gateway, err = readAddr(value)
	return err
}

func readDNS(s *Settings, value string, _ Checks) error {
	for _, one := range strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		a, err := readAddr(one)
		if err != nil {
			return err
		}
		s.DNS = append(s.DNS, a)
	}
	return nil
}

func readAddr(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || !usable(a) {
		return netip.Addr{}, fmt.Errorf("%q is no address of a machine, such as 192.168.1.1", text)
	}
	return a, nil
}

var zoneRule = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$`)

func readZone(s *Settings, value string, checks Checks) error {
	if !zoneRule.MatchString(value) || checks.Zone != nil && !checks.Zone(value) {
		return fmt.Errorf("there is no time zone %q: write it as Europe/Berlin", value)
	}
	s.TimeZone = value
	return nil
}

// labelRule keeps to what placement constraints can name.
var labelRule = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_./]{0,61}[A-Za-z0-9])?$`)

// mostLabels is what a member lets in.
const mostLabels = 64

func readLabel(s *Settings, value string, _ Checks) error {
	name, content, ok := strings.Cut(value, "=")
	name, content = strings.TrimSpace(name), strings.TrimSpace(content)
	switch {
	case !ok || !labelRule.MatchString(name) || len(content) > 255:
		return fmt.Errorf("%q is no label: write it as label = zone=home", value)
	case s.Labels == nil:
		s.Labels = map[string]string{}
	case len(s.Labels) >= mostLabels:
		return fmt.Errorf("a machine has at most %d labels", mostLabels)
	}
	if was, there := s.Labels[name]; there && was != content {
		return fmt.Errorf("the label %s is there already, as %q", name, was)
	}
	s.Labels[name] = content
	return nil
}

func readRole(s *Settings, value string, _ Checks) error {
	role := spec.Role(strings.ToLower(value))
	if role != spec.RoleIngress && role != spec.RoleWorker {
		return fmt.Errorf("there is no role %q: use ingress or worker", value)
	}
	if !slices.Contains(s.Roles, role) {
		s.Roles = append(s.Roles, role)
	}
	return nil
}

func readTicket(s *Settings, value string, checks Checks) error {
	if strings.ContainsAny(value, " \t") {
		return errors.New("a ticket is one word in one line: copy it anew")
	}
	if checks.Ticket != nil {
		if err := checks.Ticket(value); err != nil {
			return err
		}
	}
	s.Ticket = value
	return nil
}
