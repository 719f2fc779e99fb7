package firewall

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// ruleset is what `nft -j list ruleset` says, cut to what matters here.
func ruleset(objects ...string) []byte {
	return []byte(`{"nftables":[{"metainfo":{"version":"1.1.3"}},` + strings.Join(objects, ",") + `]}`)
}

func chain(family, table, name, hook, policy string) string {
	return `{"chain":{"family":"` + family + `","table":"` + table + `","name":"` + name + `","handle":1,"type":"filter","hook":"` + hook + `","prio":0,"policy":"` + policy + `"}}`
}

func rule(family, table, chain, expr string) string {
	return `{"rule":{"family":"` + family + `","table":"` + table + `","chain":"` + chain + `","handle":51820,"expr":[` + expr + `]}}`
}

const matchPort = `{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"dport"}},"right":51820}},{"accept":null}`

func TestDiagnose(t *testing.T) {
	tests := []struct {
		name    string
		objects []string
		code    string
		hint    string // a part of it
	}{
		{"nothing else", []string{chain("inet", Table, "input", "input", "drop")}, "", ""},
		{"accepting", []string{chain("inet", "filter", "input", "input", "accept"), rule("inet", "filter", "input", matchPort)}, "", ""},
		{"input drops", []string{chain("inet", "filter", "input", "input", "drop")}, "firewall.input-drop", "nft insert rule inet filter input udp dport 51820 accept"},
		{"input drops all but the port", []string{chain("inet", "filter", "input", "input", "drop"), rule("inet", "filter", "input", matchPort)}, "", ""},
		{"port is in a set", []string{chain("inet", "filter", "input", "input", "drop"),
			`{"set":{"family":"inet","name":"open","table":"filter","type":["inet_proto","inet_service"],"handle":2,"elem":[{"concat":["udp",51820]}]}}`}, "", ""},
		{"rejects the rest", []string{chain("inet", "firewalld", "filter_INPUT", "input", "accept"),
			rule("inet", "firewalld", "filter_INPUT", `{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"lo"}},{"accept":null}`),
			rule("inet", "firewalld", "filter_INPUT", `{"counter":{"packets":1,"bytes":1}},{"reject":{"type":"icmpx","expr":"admin-prohibited"}}`)},
			"firewall.input-drop", "firewall-cmd --permanent --add-port=51820/udp"},
		{"rejects some", []string{chain("inet", "x", "i", "input", "accept"),
			rule("inet", "x", "i", `{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"eth1"}},{"drop":null}`)}, "", ""},
		{"NixOS", []string{chain("inet", "nixos-fw", "input", "input", "drop")}, "firewall.input-drop", "networking.firewall.allowedUDPPorts = [ 51820 ];"},
		{"Docker", []string{chain("ip", "filter", "FORWARD", "forward", "drop")}, "firewall.forward-drop", "iptables -I FORWARD -i uncloud0 -j ACCEPT"},
		{"forward knows one link", []string{chain("inet", "filter", "forward", "forward", "drop"),
			rule("inet", "filter", "forward", `{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"uncloud0"}},{"accept":null}`)}, "firewall.forward-drop", "nft insert rule inet filter forward"},
		{"forward knows both", []string{chain("inet", "filter", "forward", "forward", "drop"),
			rule("inet", "filter", "forward", `{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":{"set":["uncloud0","uncloud"]}}},{"accept":null}`)}, "", ""},
		{"output is none of it", []string{chain("inet", "filter", "output", "output", "drop")}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			notes, err := diagnose(ruleset(tt.objects...), testPolicy())
			if err != nil {
				t.Fatal(err)
			}
			if tt.code == "" {
				if len(notes) != 0 {
					t.Errorf("%+v", notes)
				}
				return
			}
			if len(notes) != 1 || notes[0].Code != tt.code || !strings.Contains(notes[0].Hint, tt.hint) || notes[0].Text == "" {
				t.Errorf("%+v", notes)
			}
		})
	}
	if notes, err := diagnose([]byte("{"), testPolicy()); err == nil {
		t.Errorf("half a document: %v", notes)
	}
}

// TestDiagnoseHintForNixOS gives nft what NixOS would make of the option.
func TestDiagnoseHintForNixOS(t *testing.T) {
	notes, err := diagnose(ruleset(chain("inet", "nixos-fw", "forward", "forward", "drop")), testPolicy())
	if err != nil || len(notes) != 1 {
		t.Fatal(notes, err)
	}
	rules, ok := strings.CutPrefix(notes[0].Hint, "networking.firewall.extraForwardRules = ''")
	rules, ended := strings.CutSuffix(rules, "'';")
	if !ok || !ended || strings.Count(rules, " accept") != 2 {
		t.Fatalf("%q", notes[0].Hint)
	}
	w := newWorld(t)
	if out, err := w.nft("-c", "table inet nixos-fw {\nchain forward-allow {\n"+rules+"\n}\n}\n"); err != nil {
		t.Errorf("nft refuses %q: %s", rules, out)
	}
}

// TestDiagnoseHintsHelp does what the hints say, and sees that it was that.
func TestDiagnoseHintsHelp(t *testing.T) {
	w := newWorld(t)
	w.serve("m", socket{"udp", "", "[::]:51820"})
	w.serve("outside", socket{"tcp", "", "192.0.2.1:9000"})
	w.actor("m", "own").apply(kernelPolicy())
	host := "table inet filter { chain input { type filter hook input priority 0; policy drop; ct state established accept; }; " +
		"chain forward { type filter hook forward priority 0; policy drop; }; }"
	if out, err := w.nft(host); err != nil {
		t.Fatal(out)
	}
	reached := func(wait time.Duration) (mesh, internet string) {
		return w.dial("outside", wait, socket{"udp", "", "192.0.2.7:51820"})[0], w.dial("c1", wait, socket{"tcp", "", "192.0.2.1:9000"})[0]
	}
	if mesh, internet := reached(500 * time.Millisecond); mesh != "" || internet != "" {
		t.Fatalf("the host's firewall lets through: %q %q", mesh, internet)
	}
	notes := w.diagnose()
	if len(notes) != 2 {
		t.Fatalf("%+v", notes)
	}
	for _, n := range notes {
		hint := strings.ReplaceAll(n.Hint, "nft ", testNft()+" ")
		if out, err := w.command("m", "sh", "-c", hint).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", hint, out)
		}
	}
	if mesh, internet := reached(10 * time.Second); mesh != "192.0.2.1" || internet != "192.0.2.7" {
		t.Errorf("after the hints: %q %q", mesh, internet)
	}
	if notes := w.diagnose(); len(notes) != 0 {
		t.Errorf("after the hints: %+v", notes)
	}
}

func (w world) diagnose() []Note {
	w.t.Helper()
	out, err := w.nft("-j", "list", "ruleset")
	if err != nil {
		w.t.Fatal(out)
	}
	notes, err := diagnose([]byte(out), kernelPolicy())
	if err != nil {
		w.t.Fatal(err)
	}
	return notes
}

func TestComplaint(t *testing.T) {
	sent := "destroy table inet uncloud; table inet uncloud { flags owner, persist; chain a { type nat; tcp dport x drop; }; }"
	carets := func(word string) string { return strings.Repeat(" ", strings.Index(sent, word)) + "^^^" }
	const mark = "Error: No such file or directory"
	tests := []struct {
		name  string
		lines []string
		want  string
	}{
		{"none", []string{mark}, ""},
		{"carets of the last mark", []string{"                  ^^^^^^", mark}, ""},
		{"one", []string{"Error: syntax error", sent, carets("dport"), mark}, `syntax error: "tcp dport x drop"`},
		{"two, the first counts", []string{"Error: Operation not permitted", sent, carets("destroy"), "Error: other", sent, carets("dport"), mark},
			`Operation not permitted: "destroy table inet uncloud"`},
		{"without a place", []string{"Error: Could not process rule: Message too long", mark}, "Could not process rule: Message too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := complaintError(tt.lines)
			if err == nil {
				err = errors.New("")
			}
			if err.Error() != tt.want {
				t.Errorf("%q", err)
			}
		})
	}
}
