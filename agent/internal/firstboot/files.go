package firstboot

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"uncloud/internal/spec"
)

// The files of the directory, and who reads them.
const (
	ConfigFile   = "config.json"     // the agent, over its own configuration
	TicketFile   = "ticket"          // the agent, which removes it when it has joined
	TroublesFile = "troubles"        // the agent, which tells the cluster
	RefusedFile  = "refused.json"    // the agent, which tells the cluster of a file that was refused
	keysFile     = "authorized_keys" // sshd
	networkFile  = "network/10-first-boot.network"
	wifiDir      = "wifi"
	givenFile    = "wifi-given" // the networks that iwd has from here
	countryFile  = "country"
	hostnameFile = "hostname"
	zoneFile     = "timezone"

	// takingFile is there while the secrets are being taken off a volume, and
	// credentialFile names the credential that was taken last.
	takingFile     = "taking.json"
	credentialFile = "credential"
)

// Config is what the agent reads over its own configuration.
type Config struct {
	Name       string            `json:"name,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Roles      []spec.Role       `json:"roles,omitempty"`
	TicketFile string            `json:"ticketFile,omitempty"`
}

// Refused is of a file from which nothing was taken: who it is about, and the
// ticket with which the cluster can be told.
type Refused struct {
	Name   string `json:"name,omitempty"`
	Ticket string `json:"ticket"`
}

// file is one file of the directory, by its path in it.
type file struct {
	name    string
	content string
	mode    fs.FileMode
}

// before is what was in the directory that the new files follow from.
type before struct {
	config  Config
	hasWiFi bool
}

// files are what the settings make. The agent's configuration is the last: it
// names the ticket.
func (s Settings) files(dir string, was before) ([]file, error) {
	var out []file
	add := func(wanted bool, name, content string, mode fs.FileMode) {
		if wanted {
			out = append(out, file{name, content, mode})
		}
	}
	add(len(s.Keys) > 0, keysFile, strings.Join(s.Keys, "\n")+"\n", 0o644)
	add(s.WiFi.Network != "", path.Join(wifiDir, wifiName(s.WiFi.Network)), s.WiFi.iwd(), 0o600)
	add(s.Country != "", countryFile, s.Country+"\n", 0o644)
	add(s.hasAddress(), networkFile, s.networkd(was.hasWiFi || s.WiFi.Network != ""), 0o644)
	add(s.TimeZone != "", zoneFile, s.TimeZone+"\n", 0o644)
	add(s.Name != "", hostnameFile, s.Name+"\n", 0o644)
	add(s.Ticket != "", TicketFile, s.Ticket+"\n", 0o600)
	config := s.over(was.config, dir)
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", ConfigFile, err)
	}
	add(s.Name != "" || s.Labels != nil || s.Roles != nil || s.Ticket != "", ConfigFile, string(text)+"\n", 0o644)
	return out, nil
}

func (s Settings) over(c Config, dir string) Config {
	if s.Name != "" {
		c.Name = s.Name
	}
	if s.Labels != nil {
		c.Labels = s.Labels
	}
	if s.Roles != nil {
		c.Roles = s.Roles
	}
	if s.Ticket != "" {
		c.TicketFile = path.Join(dir, TicketFile)
	}
	return c
}

// networkd is the configuration of the link that has the address: the Wi-Fi
// where one was named, and otherwise the cable.
func (s Settings) networkd(wifi bool) string {
	var b strings.Builder
	b.WriteString("# Written at boot from uncloud.txt.\n[Match]\n")
	if wifi {
		b.WriteString("Type=wlan\n")
	} else {
		// Not the bridges and tunnels of the machine, which are no cables.
		b.WriteString("Type=ether\nKind=!*\n")
	}
	b.WriteString("\n[Network]\n")
	if s.DHCP {
		b.WriteString("DHCP=yes\n")
	}
	if s.Address.IsValid() {
		fmt.Fprintf(&b, "Address=%s\n", s.Address)
	}
	if s.Gateway.IsValid() {
		fmt.Fprintf(&b, "Gateway=%s\n", s.Gateway)
	}
	for _, d := range s.DNS {
		fmt.Fprintf(&b, "DNS=%s\n", d)
	}
	return b.String()
}

var plainWiFiName = regexp.MustCompile(`^[A-Za-z0-9 _-]+$`)

// wifiName is what iwd calls the file of a network.
func wifiName(network string) string {
	if !plainWiFiName.MatchString(network) {
		network = "=" + hex.EncodeToString([]byte(network))
	}
	return network + ".psk"
}

// iwd is the file of a network. Its reader drops spaces at the ends of a
// value and knows backslash as the beginning of an escape.
func (w WiFi) iwd() string {
	if rawKey.MatchString(w.Password) {
		return "[Security]\nPreSharedKey=" + w.Password + "\n"
	}
	return "[Security]\nPassphrase=" + strings.ReplaceAll(w.Password, `\`, `\\`) + "\n"
}
