package firewall

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Note is something that a person has to change on the machine, because a
// firewall of theirs stands in the way. Any table may drop a packet that ours
// has accepted, so no rule of ours can help.
type Note struct {
	Code string // stable: "firewall.input-drop", "firewall.forward-drop", "firewall.not-owned"
	Text string // one sentence
	Hint string // the exact rule or option; empty where there is none
}

// Diagnose looks at the machine's other tables for chains that drop what the
// cluster needs: the WireGuard port coming in, and containers' packets being
// forwarded. A table that names the port, or one of the links, is taken to
// have been opened on purpose: what exactly its rules do is not judged.
// Rules of iptables-legacy are not seen by nft and so not here.
func (f *Firewall) Diagnose(ctx context.Context, p Policy) ([]Note, error) {
	out, err := run(ctx, f.nft, "-j", "list", "ruleset")
	if err != nil {
		return nil, fmt.Errorf("diagnose firewall: %w", err)
	}
	notes, err := diagnose(out, p)
	if err != nil {
		return nil, fmt.Errorf("diagnose firewall: %w", err)
	}
	if s := f.Status(); s.Hash != "" && !s.Can.Persistent {
		notes = append(notes, Note{
			Code: "firewall.not-owned",
			Text: "a reload of this machine's own firewall removes the cluster's rules for a moment: its kernel or nft is too old to protect them",
			Hint: "Linux 6.9 and nftables 1.1 or newer protect them",
		})
	}
	return notes, nil
}

// host is another table of the machine, as far as it matters here.
type host struct {
	family, name string
	chains       []hostChain
	words        map[string]bool // every string and number in its rules and sets
}

type hostChain struct {
	name, hook, policy string
	dropsRest          bool // its last rule drops or rejects whatever comes to it
}

// drops tells whether what no rule accepts is lost.
func (c hostChain) drops() bool { return c.policy == "drop" || c.dropsRest }

func diagnose(ruleset []byte, p Policy) ([]Note, error) {
	hosts, err := readHosts(ruleset)
	if err != nil {
		return nil, err
	}
	var notes []Note
	for _, h := range hosts {
		for _, c := range h.chains {
			port := fmt.Sprint(p.WireGuardPort)
			switch {
			case c.hook == "input" && c.drops() && !h.words[port]:
				notes = append(notes, h.inputNote(c, port))
			case c.hook == "forward" && c.drops() && (!h.words[p.Bridge] || !h.words[p.Link]):
				notes = append(notes, h.forwardNote(c, p))
			}
		}
	}
	return notes, nil
}

func (h host) inputNote(c hostChain, port string) Note {
	return Note{
		Code: "firewall.input-drop",
		Text: fmt.Sprintf("the machine's own firewall (table %s %s, chain %s) seems to drop the mesh's port %s/udp", h.family, h.name, c.name, port),
		Hint: h.dialect(
			"firewall-cmd --permanent --add-port="+port+"/udp && firewall-cmd --reload",
			"networking.firewall.allowedUDPPorts = [ "+port+" ];",
			"iptables -I "+c.name+" -p udp --dport "+port+" -j ACCEPT",
			fmt.Sprintf("nft insert rule %s %s %s udp dport %s accept", h.family, h.name, c.name, port)),
	}
}

func (h host) forwardNote(c hostChain, p Policy) Note {
	insert := fmt.Sprintf("nft insert rule %s %s %s ", h.family, h.name, c.name)
	links := fmt.Sprintf(`{ "%s", "%s" } accept`, p.Bridge, p.Link)
	return Note{
		Code: "firewall.forward-drop",
		Text: fmt.Sprintf("the machine's own firewall (table %s %s, chain %s) seems to drop what its containers send and receive", h.family, h.name, c.name),
		Hint: h.dialect(
			fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-interface=%s --add-interface=%s && firewall-cmd --reload", p.Bridge, p.Link),
			fmt.Sprintf(`networking.firewall.extraForwardRules = ''iifname %s; oifname %s'';`, links, links),
			strings.Join(iptablesForward(c.name, p), " && "),
			insert+"'iifname "+links+"' && "+insert+"'oifname "+links+"'"),
	}
}

func iptablesForward(chain string, p Policy) []string {
	var rules []string
	for _, link := range []string{p.Bridge, p.Link} {
		rules = append(rules, "iptables -I "+chain+" -i "+link+" -j ACCEPT", "iptables -I "+chain+" -o "+link+" -j ACCEPT")
	}
	return rules
}

// dialect picks the words of whoever wrote the table.
func (h host) dialect(firewalld, nixos, iptables, nft string) string {
	switch {
	case h.name == "firewalld":
		return firewalld
	case strings.HasPrefix(h.name, "nixos-fw"):
		return nixos
	case h.name == "filter" && h.family == "ip": // the table of iptables-nft, and of ufw and Docker over it
		return iptables
	}
	return nft
}

// readHosts reads `nft -j list ruleset`: one list of tables, chains, sets and
// rules, each naming its table.
func readHosts(ruleset []byte) ([]*host, error) {
	var doc struct {
		Objects []map[string]json.RawMessage `json:"nftables"`
	}
	if err := json.Unmarshal(ruleset, &doc); err != nil {
		return nil, fmt.Errorf("read ruleset: %w", err)
	}
	var hosts []*host
	for _, object := range doc.Objects {
		for kind, raw := range object {
			var o hostObject
			if json.Unmarshal(raw, &o) != nil || !o.concerns(kind) {
				continue
			}
			i := slices.IndexFunc(hosts, func(h *host) bool { return h.family == o.Family && h.name == o.Table })
			if i < 0 {
				hosts = append(hosts, &host{family: o.Family, name: o.Table, words: map[string]bool{}})
				i = len(hosts) - 1
			}
			hosts[i].add(kind, o)
		}
	}
	return hosts, nil
}

type hostObject struct {
	Family, Table, Name, Chain string
	Hook, Policy               string
	Type                       any // of a set it may be a list
	Expr                       []map[string]any
	Elem                       any
}

// dropsAll tells whether a rule matches everything and lets nothing on.
func (o hostObject) dropsAll() bool {
	drops := false
	for _, statement := range o.Expr {
		for word := range statement {
			switch word {
			case "drop", "reject":
				drops = true
			case "counter", "log", "limit":
			default:
				return false
			}
		}
	}
	return drops
}

func (o hostObject) concerns(kind string) bool {
	ours := o.Family == "inet" && o.Table == Table
	return !ours && o.Table != "" && (kind == "chain" || kind == "rule" || kind == "set" || kind == "map") &&
		(o.Family == "inet" || o.Family == "ip")
}

func (h *host) add(kind string, o hostObject) {
	switch {
	case kind == "chain" && o.Type == "filter":
		h.chains = append(h.chains, hostChain{name: o.Name, hook: o.Hook, policy: o.Policy})
	case kind == "rule":
		if i := slices.IndexFunc(h.chains, func(c hostChain) bool { return c.name == o.Chain }); i >= 0 {
			h.chains[i].dropsRest = o.dropsAll()
		}
		for _, statement := range o.Expr {
			h.learn(statement)
		}
	case kind == "set" || kind == "map":
		h.learn(o.Elem)
	}
}

// learn collects the words of a rule or set, wherever in it they are.
func (h *host) learn(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, inner := range v {
			h.learn(inner)
		}
	case []any:
		for _, inner := range v {
			h.learn(inner)
		}
	case float64:
		h.words[fmt.Sprint(int64(v))] = true
	case string:
		h.words[v] = true
	}
}
