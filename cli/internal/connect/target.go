package connect

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"

	"uncloud/internal/faults"
)

// DefaultSocket is where a machine's agent listens.
const DefaultSocket = "/run/uncloud/uncloud.sock"

// Target is one way to reach a machine. Exactly one of Socket and Host is set.
type Target struct {
	Socket  string // absolute path of a unix socket
	User    string // of SSH; empty leaves it to ssh's own configuration
	Host    string
	Port    string // empty leaves it to ssh's own configuration
	KeyFile string // private key; empty leaves it to ssh's agent and configuration
}

// ParseTarget reads unix:///path, ssh://[user@]host[:port], or the latter
// without its scheme.
func ParseTarget(text string) (Target, error) {
	if path, ok := strings.CutPrefix(text, "unix://"); ok {
		return unixTarget(path)
	}
	if !strings.Contains(text, "://") {
		text = "ssh://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return Target{}, badTarget(text).Because(err)
	}
	password := false
	if u.User != nil {
		_, password = u.User.Password()
	}
	if u.Scheme != "ssh" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || password {
		return Target{}, badTarget(text)
	}
	t := Target{User: u.User.Username(), Host: u.Hostname(), Port: u.Port()}
	// A name that starts with a dash would be an option to ssh.
	if t.Host == "" || strings.HasPrefix(t.Host, "-") || strings.HasPrefix(t.User, "-") {
		return Target{}, badTarget(text)
	}
	if strings.Contains(t.Host, ":") {
		if _, err := netip.ParseAddr(t.Host); err != nil || !strings.HasPrefix(u.Host, "[") {
			return Target{}, badTarget(text)
		}
	}
	return t, nil
}

func unixTarget(path string) (Target, error) {
	if !filepath.IsAbs(path) {
		return Target{}, badTarget("unix://" + path)
	}
	return Target{Socket: path}, nil
}

func badTarget(text string) *faults.Fault {
	return faults.New(faults.Invalid, "%q is no way to reach a machine", text).
		WithHint("write ssh://user@host, ssh://user@host:port or unix:///path/of/socket")
}

func (t Target) String() string {
	if t.Socket != "" {
		return "unix://" + t.Socket
	}
	return "ssh://" + t.address()
}

func (t Target) address() string {
	host := t.Host
	if t.Port != "" {
		host = net.JoinHostPort(t.Host, t.Port)
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if t.User != "" {
		return t.User + "@" + host
	}
	return host
}
