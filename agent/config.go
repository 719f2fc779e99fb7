package agent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"

	"uncloud/agent/internal/firstboot"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Places and ports. They are the same on every machine, so that one machine
// can address another without asking.
const (
	DefaultConfigFile = "/etc/uncloud/config.json"
	DefaultStateDir   = "/var/lib/uncloud"
	DefaultSocket     = "/run/uncloud/uncloud.sock"
	DefaultPodman     = "unix:///run/podman/podman.sock"
	DefaultWireGuard  = 51820
	// DefaultFirstBootDir is where uncloudd first-boot keeps what a flashed
	// machine was told.
	DefaultFirstBootDir = "/var/lib/uncloud-first-boot"

	apiPort       = 51000
	gossipPort    = 51001
	syncPort      = 51002
	metricsPort   = 51003
	admissionPort = 51004

	linkName = "uncloud"
)

// DefaultNetwork is the cluster network that machine init takes when it is
// given none.
var DefaultNetwork = netip.MustParsePrefix("10.210.0.0/16")

// Config is the machine's configuration file, and the defaults where there is
// none. What is decided once for a cluster is not here but in its state.
type Config struct {
	// Name is the machine's name when it becomes a member; empty is the host name.
	Name string `json:"name"`
	// Labels and Roles are given to the machine when it becomes a member. Empty
	// Roles are all roles.
	Labels map[string]string `json:"labels"`
	Roles  []spec.Role       `json:"roles"`
	// TicketFile is looked for while the machine is no member: it joins by itself.
	TicketFile string `json:"ticketFile"`
	// Endpoints are tried by others besides the addresses that the machine finds
	// on its links: a public address behind a forwarding router.
	Endpoints endpoints `json:"endpoints"`
	// Interfaces are the links whose addresses are told to others; none are all.
	Interfaces []string `json:"interfaces"`
	// ListenPort is the one UDP port. Changing it on a member is noticed by the others.
	ListenPort uint16 `json:"listenPort"`
	// MTU of the WireGuard link; 0 is that of the way out minus 80.
	MTU int `json:"mtu"`

	StateDir     string `json:"stateDir"`
	Socket       string `json:"socket"`
	PodmanSocket string `json:"podmanSocket"`

	Ingress IngressConfig `json:"ingress"`
	Upgrade UpgradeConfig `json:"upgrade"`

	// LogLevel is debug, info, warn or error.
	LogLevel string `json:"logLevel"`

	// firstBoot is the directory of uncloudd first-boot, and untold why what it
	// says could not be read: nothing that a member needs is there.
	firstBoot string
	untold    error
}

// IngressConfig is how this machine serves routes, where it has the role.
type IngressConfig struct {
	Email      string `json:"email"`      // for the certificate authority, optional
	ACMEServer string `json:"acmeServer"` // directory URL; empty is Let's Encrypt
	ACMERoots  string `json:"acmeRoots"`  // PEM file that the ACME server is checked with; empty is the system's
}

// endpoints are addresses with ports. A bad one is refused by name.
type endpoints []netip.AddrPort

func (e *endpoints) UnmarshalJSON(text []byte) error {
	var all []string
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("endpoints: %w", err)
	}
	*e = nil
	for _, one := range all {
		parsed, err := netip.ParseAddrPort(one)
		if err != nil {
			return fmt.Errorf("%q is no endpoint such as 203.0.113.5:51820", one)
		}
		*e = append(*e, parsed)
	}
	return nil
}

// setting says where a person sets a key of the configuration. The file is one
// that NixOS writes, so there it is an option below services.uncloud.
func setting(key, option string) string {
	return key + " in " + DefaultConfigFile + " (on NixOS services.uncloud." + option + ")"
}

// LoadConfig reads a configuration file over the defaults, and over that what
// a flashed machine was told at its boot. A missing default file is no error;
// an unknown key is one, by name.
func LoadConfig(path string) (Config, error) { return loadConfig(path, DefaultFirstBootDir) }

func loadConfig(path, firstBoot string) (Config, error) {
	c, err := readConfig(path)
	if err != nil {
		return c, err
	}
	if err := c.check(path); err != nil {
		return c, err
	}
	told, err := c.overlaid(filepath.Join(firstBoot, firstboot.ConfigFile))
	if err != nil {
		told, told.untold = c, err
	}
	told.firstBoot = firstBoot
	return told, nil
}

func readConfig(path string) (Config, error) {
	c := Config{
		ListenPort: DefaultWireGuard, StateDir: DefaultStateDir, Socket: DefaultSocket, PodmanSocket: DefaultPodman, LogLevel: "info",
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && path == DefaultConfigFile {
		return c, nil
	}
	if err != nil {
		return c, faults.New(faults.Invalid, "read configuration: %w", err).WithHint("check --config, or leave it out for the defaults")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, faults.New(faults.Invalid, "configuration %s: %w", path, err).WithHint("compare it with the reference in docs/configuration.md")
	}
	return c, nil
}

// overlaid is the configuration with what the machine was told when it was
// flashed: who it is when it becomes a member, and nothing else.
func (c Config) overlaid(path string) (Config, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the machine's own
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	var told firstboot.Config
	if err == nil {
		err = json.Unmarshal(text, &told)
	}
	if err != nil {
		return c, faults.New(faults.Invalid, "read what uncloud.txt said: %w", err).
			WithHint("remove %s, and give the machine its uncloud.txt anew", path)
	}
	c.Name = cmp.Or(told.Name, c.Name)
	c.TicketFile = cmp.Or(told.TicketFile, c.TicketFile)
	if len(told.Roles) > 0 {
		c.Roles = told.Roles
	}
	if len(told.Labels) > 0 {
		labels := maps.Clone(c.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, told.Labels)
		c.Labels = labels
	}
	return c, c.check(path)
}

func (c Config) check(path string) error {
	bad := func(format string, args ...any) error {
		return faults.New(faults.Invalid, "configuration %s: %s", path, fmt.Sprintf(format, args...)).
			WithHint("compare it with the reference in docs/configuration.md")
	}
	if c.Name != "" {
		if err := spec.CheckMachineName(c.Name); err != nil {
			return bad("%v", err)
		}
	}
	if c.ListenPort == 0 {
		return bad("listenPort is 0, and ports are 1-65535")
	}
	if c.MTU != 0 && (c.MTU < 1280 || c.MTU > 65535) {
		return bad("mtu is %d; use 0 for automatic, or 1280-65535", c.MTU)
	}
	for _, r := range c.Roles {
		if r != spec.RoleIngress && r != spec.RoleWorker {
			return bad("there is no role %q: use ingress or worker", r)
		}
	}
	return nil
}
