package ingress

import (
	"net/netip"
	"strings"
)

// privateSuffixes are the names that no public authority certifies: those
// reserved by RFC 2606, RFC 6761, RFC 6762 and RFC 8375, and .internal.
var privateSuffixes = []string{
	"internal", "local", "localhost", "test", "example", "invalid", "home.arpa", "onion",
	"example.com", "example.net", "example.org",
}

// PrivateName tells whether a host name cannot have a public certificate, so
// that the cluster's own authority signs it: reserved names, names of a single
// label, and IP addresses. More suffixes may be given.
func PrivateName(name string, more []string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if _, err := netip.ParseAddr(name); err == nil || !strings.Contains(name, ".") {
		return true
	}
	for _, list := range [][]string{privateSuffixes, more} {
		for _, suffix := range list {
			suffix = strings.ToLower(strings.Trim(suffix, "."))
			if name == suffix || strings.HasSuffix(name, "."+suffix) {
				return true
			}
		}
	}
	return false
}
