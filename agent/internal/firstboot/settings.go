package firstboot

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"uncloud/internal/spec"
)

// Settings are what a file asks for. What is empty stays as it was.
type Settings struct {
	Name     string
	Keys     []string // lines of authorized_keys
	WiFi     WiFi
	Country  string // ISO 3166, of the Wi-Fi
	DHCP     bool   // asked for by name
	Address  netip.Prefix
	Gateway  netip.Addr
	DNS      []netip.Addr
	TimeZone string
	Labels   map[string]string
	Roles    []spec.Role
	Ticket   string // a secret
}

// WiFi is a network and its password, which is a secret: 8 to 63 characters,
// or the key itself as 64 hexadecimal digits.
type WiFi struct{ Network, Password string }

// Checks are what only others know of values. A nil one finds nothing wrong.
type Checks struct {
	// Ticket tells what is wrong with a ticket without knowing the time, which
	// a machine may not have yet.
	Ticket func(text string) error
	// Zone tells whether the machine has a time zone.
	Zone func(name string) bool
}

// forMember is what a machine takes that belongs to a cluster already. Its
// name, labels and roles are the cluster's now.
func (s Settings) forMember() Settings {
	s.Name, s.Labels, s.Roles, s.Ticket = "", nil, nil, ""
	return s
}

// hasAddress tells whether the file says how the machine gets its address.
func (s Settings) hasAddress() bool { return s.DHCP || s.Address.IsValid() }

// identity is what only a machine takes that is no member yet.
func (s Settings) identity() Settings {
	return Settings{Name: s.Name, Labels: s.Labels, Roles: s.Roles, Ticket: s.Ticket}
}

func (s Settings) empty() bool { return reflect.ValueOf(s).IsZero() }

// String tells what is in them, without the secrets.
func (s Settings) String() string {
	var out []string
	add := func(there bool, format string, args ...any) {
		if there {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	add(s.Name != "", "name %s", s.Name)
	add(len(s.Keys) == 1, "1 key")
	add(len(s.Keys) > 1, "%d keys", len(s.Keys))
	add(s.WiFi.Network != "", "Wi-Fi %s", s.WiFi.Network)
	add(s.Country != "", "country %s", s.Country)
	add(s.DHCP, "address by DHCP")
	add(s.Address.IsValid(), "address %s", s.Address)
	add(s.Gateway.IsValid(), "gateway %s", s.Gateway)
	add(len(s.DNS) > 0, "dns")
	add(s.TimeZone != "", "time zone %s", s.TimeZone)
	add(len(s.Labels) == 1, "1 label")
	add(len(s.Labels) > 1, "%d labels", len(s.Labels))
	add(len(s.Roles) > 0, "roles")
	add(s.Ticket != "", "ticket")
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, ", ")
}
