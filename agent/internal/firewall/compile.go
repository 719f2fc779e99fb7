package firewall

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Table is the name of the table in the family inet.
const Table = "uncloud"

const dnsPort = 53

// Ruleset is a compiled policy.
type Ruleset struct {
	Text    string // the table, as `nft -f` reads it
	Hash    string // of Text
	Skipped []Skip // published ports that are not in Text

	leads translations
}

// Compile makes the rules of a policy. It returns an error for a policy that
// cannot be right; a single port that cannot be published is only skipped.
func Compile(p Policy) (Ruleset, error) {
	if err := p.check(); err != nil {
		return Ruleset{}, fmt.Errorf("compile firewall: %w", err)
	}
	published, skipped := p.published()
	var t text
	t.open("table inet " + Table)
	t.rule(ownedFlags)
	t.sources(p)
	t.input(p)
	t.forward(p)
	t.output(p)
	t.destinations(p, published)
	t.egress(p)
	t.close()
	sum := sha256.Sum256([]byte(t.String()))
	leads := translations{subnet: p.Subnet}
	for _, pub := range published {
		if pub.Protocol == "udp" {
			leads.udp = append(leads.udp, pub)
		}
	}
	return Ruleset{Text: t.String(), Hash: hex.EncodeToString(sum[:16]), Skipped: skipped, leads: leads}, nil
}

// ownedFlags is the one line that a kernel without owned, persistent tables
// cannot have.
const ownedFlags = "flags owner, persist"

// sources says which address may come in by which link. It looks at packets
// before connection tracking and address translation, so it also cuts
// connections that were made before a machine was removed.
func (t *text) sources(p Policy) {
	t.base("sources", "filter", "prerouting", "raw",
		`iifname "lo" accept`,
		"ip saddr 127.0.0.0/8 drop",
		"ip daddr 127.0.0.0/8 drop", // route_localnet would let the link's neighbours in
		`iifname "`+p.Bridge+`" goto sources_bridge`,
		`iifname "`+p.Link+`" goto sources_mesh`,
		"goto sources_outside")
	t.chain("sources_bridge",
		"ip saddr "+p.machineAddr().String()+" drop",
		"ip saddr "+p.Subnet.String()+" accept",
		"drop")
	t.chain("sources_mesh",
		"ip saddr "+p.Subnet.String()+" drop",
		"ip saddr "+p.ClusterNetwork.String()+" accept",
		match("ip6 saddr", slices.Concat(p.peers(), p.holders()), "accept"),
		"drop")
	t.chain("sources_outside",
		"ip saddr "+p.ClusterNetwork.String()+" drop",
		"ip daddr "+p.ClusterNetwork.String()+" drop",
		match("ip6 saddr", p.everyone(), "drop"),
		match("ip6 daddr", p.everyone(), "drop"))
}

// input says what reaches the machine itself.
func (t *text) input(p Policy) {
	agent := []string{
		"tcp dport " + set(p.Ports.tcp()) + " drop",
		"udp dport " + set([]uint16{p.Ports.Gossip}) + " drop",
	}
	t.base("input", "filter", "input", "filter - 10", slices.Concat([]string{
		"ct state established,related accept",
		`iifname "lo" accept`,
		`iifname "` + p.Bridge + `" goto input_containers`,
		`iifname "` + p.Link + `" goto input_mesh`,
		fmt.Sprintf("udp dport %d accept", p.WireGuardPort),
	}, agent)...)
	t.chain("input_mesh", slices.Concat([]string{
		match("ip6 saddr", p.holders(), "goto input_tickets"),
		match("ip6 saddr", p.peers(), "accept"),
	}, agent, []string{
		"ip saddr & " + hostMask(p.Subnet) + " == 0.0.0.1 accept",
		"goto input_containers",
	})...)
	t.chain("input_tickets",
		fmt.Sprintf("ip6 daddr %s tcp dport %d accept", p.Management, p.Ports.Admission),
		"drop")
	t.chain("input_containers",
		fmt.Sprintf("ip daddr %s meta l4proto { tcp, udp } th dport %d accept", p.machineAddr(), dnsPort),
		match("tcp dport", p.ingress("tcp"), "accept"),
		match("udp dport", p.ingress("udp"), "accept"),
		"icmp type echo-request accept",
		"reject with icmpx admin-prohibited")
}

// forward keeps containers inside the cluster network, and the cluster
// network closed to everybody else but for published ports.
func (t *text) forward(p Policy) {
	bridge, link := `"`+p.Bridge+`"`, `"`+p.Link+`"`
	t.base("forward", "filter", "forward", "filter - 10",
		"ct state established,related accept",
		"iifname "+bridge+" goto forward_containers",
		"iifname "+link+" goto forward_mesh",
		"oifname "+bridge+" ct status dnat accept",
		"oifname { "+bridge+", "+link+" } drop")
	t.chain("forward_containers",
		"oifname "+bridge+" accept",
		"oifname "+link+" ip daddr "+p.ClusterNetwork.String()+" accept",
		"oifname "+link+" drop",
		"ip daddr "+p.ClusterNetwork.String()+" drop", // a subnet that no machine has: not for the default route
		"accept")
	t.chain("forward_mesh",
		match("ip6 saddr", p.holders(), "drop"),
		"oifname "+bridge+" ip saddr "+p.ClusterNetwork.String()+" accept",
		"oifname "+link+" accept", // a pair of machines that this one relays
		"drop")
}

// output keeps other users of this machine from borrowing its membership: the
// agents trust the address, and the address is everybody's here. Metrics stay
// open to a local collector.
func (t *text) output(p Policy) {
	agents := set(p.everyone())
	ports := []uint16{p.Ports.API, p.Ports.Gossip, p.Ports.Sync, p.Ports.Admission}
	t.base("output", "filter", "output", "filter - 10",
		"ct state new meta skuid != 0 ip6 daddr "+agents+" tcp dport "+set(ports)+" reject with tcp reset",
		"ct state new meta skuid != 0 ip6 daddr "+agents+" udp dport "+set([]uint16{p.Ports.Gossip})+" reject")
}

// destinations leads published ports to their containers: for packets that
// come in, and for those of the machine's own processes.
func (t *text) destinations(p Policy, published []Publish) {
	// nft before 1.0.9 knows the name dstnat in prerouting only.
	t.base("destinations_in", "nat", "prerouting", "-100", "fib daddr type local goto published")
	t.base("destinations_local", "nat", "output", "-100", "fib daddr type local goto published")
	rules := make([]string, 0, len(published))
	for _, pub := range published {
		rules = append(rules, publishRule(p, pub))
	}
	t.chain("published", rules...)
}

func publishRule(p Policy, pub Publish) string {
	var where string
	switch {
	case pub.HostIP.IsValid() && pub.HostIP.IsSingleIP():
		where = "ip daddr " + pub.HostIP.Addr().String() + " "
	case pub.HostIP.IsValid() && pub.HostIP.Bits() > 0:
		where = "ip daddr " + pub.HostIP.Masked().String() + " "
	}
	if pub.HostPort == dnsPort { // the cluster's names stay where they are
		where += "ip daddr != " + p.machineAddr().String() + " "
	}
	return fmt.Sprintf("%s%s dport %d dnat ip to %s:%d", where, pub.Protocol, pub.HostPort, pub.ContainerAddr, pub.ContainerPort)
}

// egress says as whom packets leave. A nat chain ends with the first binding:
// a source translated to itself is one, so no other table masquerades it.
func (t *text) egress(p Policy) {
	bridge, link, subnet := `"`+p.Bridge+`"`, `"`+p.Link+`"`, p.Subnet.String()
	t.base("egress", "nat", "postrouting", "srcnat - 10",
		"oifname "+link+" ip saddr "+p.ClusterNetwork.String()+" snat ip to ip saddr",
		"oifname "+bridge+" ip saddr 127.0.0.0/8 masquerade",
		"ip saddr "+subnet+" ip daddr "+subnet+" ct status dnat masquerade",
		"ip saddr "+subnet+" oifname != { "+bridge+", "+link+", \"lo\" } masquerade")
}

// ingress are the ports that the ingress serves by one protocol.
func (p Policy) ingress(protocol string) []uint16 {
	var ports []uint16
	if p.Ingress {
		ports = append(ports, 443)
	}
	if p.Ingress && protocol == "tcp" {
		ports = append(ports, 80)
	}
	for _, port := range p.IngressPorts {
		if port.Protocol == protocol {
			ports = append(ports, port.Number)
		}
	}
	return ports
}

// hostMask is the mask of the part of an address that subnets leave to it.
func hostMask(subnet netip.Prefix) string {
	mask := uint32(1)<<(32-subnet.Bits()) - 1
	return netip.AddrFrom4([4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}).String()
}

func comparePublish(a, b Publish) int {
	return cmp.Or(
		cmp.Compare(b.HostIP.Bits(), a.HostIP.Bits()),
		a.HostIP.Addr().Compare(b.HostIP.Addr()),
		cmp.Compare(a.HostPort, b.HostPort),
		cmp.Compare(a.Protocol, b.Protocol))
}

// match is a rule for a key that is in a list, or no rule for an empty list:
// nft has no empty anonymous set.
func match[T any](key string, list []T, verdict string) string {
	if len(list) == 0 {
		return ""
	}
	return key + " " + set(list) + " " + verdict
}

// set is a list as an anonymous set: sorted, each element once.
func set[T any](list []T) string {
	words := make([]string, 0, len(list))
	for _, v := range list {
		words = append(words, fmt.Sprint(v))
	}
	slices.SortFunc(words, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	return "{ " + strings.Join(slices.Compact(words), ", ") + " }"
}

// text is nft's language, one statement a line.
type text struct {
	strings.Builder
	depth int
}

func (t *text) open(head string) {
	t.rule(head + " {")
	t.depth++
}

func (t *text) close() {
	t.depth--
	t.rule("}")
}

// rule writes a statement; an empty one is no statement.
func (t *text) rule(s string) {
	if s != "" {
		t.WriteString(strings.Repeat("\t", t.depth) + s + "\n")
	}
}

func (t *text) chain(name string, rules ...string) {
	t.open("chain " + name)
	for _, r := range rules {
		t.rule(r)
	}
	t.close()
}

func (t *text) base(name, kind, hook, priority string, rules ...string) {
	t.chain(name, append([]string{fmt.Sprintf("type %s hook %s priority %s; policy accept", kind, hook, priority)}, rules...)...)
}

// line is the ruleset as one line, which is one transaction of `nft -i`. In
// that form an inner brace needs a semicolon after it.
func (r Ruleset) line(persistent bool) string {
	var b strings.Builder
	for s := range strings.Lines(r.Text) {
		s = strings.TrimSpace(s)
		switch {
		case s == ownedFlags && !persistent:
			continue
		case strings.HasSuffix(s, "{"):
			b.WriteString(s + " ")
		default:
			b.WriteString(s + "; ")
		}
	}
	return strings.TrimSuffix(b.String(), "; ")
}
