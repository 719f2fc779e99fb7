package firstboot

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"unicode/utf16"

	"pgregory.net/rapid"

	"uncloud/internal/spec"
)

func utf16With(order binary.AppendByteOrder, text string) string {
	out := order.AppendUint16(nil, 0xfeff)
	for _, u := range utf16.Encode([]rune(text)) {
		out = order.AppendUint16(out, u)
	}
	return string(out)
}

// TestEveryEditorWritesTheSameFile: what a person typed is read alike, whatever
// wrote it.
func TestEveryEditorWritesTheSameFile(t *testing.T) {
	want := Settings{
		Name: "pi-1", Keys: []string{pubkey + " alice"}, WiFi: WiFi{"my network", password}, Country: "DE",
		Address: netip.MustParsePrefix("192.168.1.10/24"), Gateway: netip.MustParseAddr("192.168.1.1"), DNS: []netip.Addr{netip.MustParseAddr("192.168.1.1")},
		TimeZone: "Europe/Berlin", Labels: map[string]string{"zone": "home"}, Roles: []spec.Role{spec.RoleWorker}, Ticket: ticket,
	}
	for name, content := range map[string]string{
		"UTF-8":                 whole,
		"with a mark":           "\xef\xbb\xbf" + whole,
		"carriage returns":      strings.ReplaceAll(whole, "\n", "\r\n"),
		"old carriage returns":  strings.ReplaceAll(whole, "\n", "\r"),
		"UTF-16, little":        utf16With(binary.LittleEndian, strings.ReplaceAll(whole, "\n", "\r\n")),
		"UTF-16, big":           utf16With(binary.BigEndian, whole),
		"tabs":                  strings.ReplaceAll(whole, " = ", "\t=\t"),
		"spaces at the ends":    strings.ReplaceAll(whole, "\n", "  \t\n   "),
		"spaces that never end": strings.ReplaceAll(whole, " = ", "\u00a0=\u00a0"),
		"no spaces":             strings.ReplaceAll(whole, " = ", "="),
		"no last line end":      strings.TrimSpace(whole),
		"capital keys":          strings.NewReplacer("name =", "NAME =", "wifi =", "WiFi =", "country = DE", "Country = de", "role = worker", "Role = Worker").Replace(whole),
		"a bare ticket in it":   strings.ReplaceAll(whole, "ticket = ", ""),
		"a pasted ticket file":  strings.ReplaceAll(whole, "ticket = ", "ticket = # Lets a machine join until 2026.\n"),
		"a ticket below":        strings.ReplaceAll(whole, "ticket = ", "ticket =\n"),
		"a key twice":           whole + "key = " + pubkey + " alice\n",
	} {
		got, troubles := Parse([]byte(content), Checks{})
		if len(troubles) > 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", name, troubles, got, want)
		}
	}
}

// TestWhatCannotBeIsASentence that names line and key.
func TestWhatCannotBeIsASentence(t *testing.T) {
	checks := Checks{
		Ticket: func(string) error { return errors.New("the ticket is damaged or was altered: it is cut short") },
		Zone:   func(name string) bool { return name == "Europe/Berlin" },
	}
	tests := []struct{ line, said string }{
		{"naame = pi", `line 2: there is no key "naame": did you mean name?`},
		{"addreess = 1.2.3.4/24", `there is no key "addreess": did you mean address?`},
		{"Hostname = pi", `there is no key "hostname": did you mean name?`},
		{"ssh_key = x", `there is no key "ssh_key": did you mean key?`},
		{"ssid = x", "did you mean wifi?"},
		{"time-zone = x", "did you mean timezone?"},
		{"quux = x", `there is no key "quux": use address, country,`},
		{strings.Repeat("x", 41) + " = 1", `line 2: what is before "=" is no key`},
		{"= pi", `line 2: there is nothing before "="`},
		{"name: pi", `line 2: there is no "=": write KEY = VALUE`},
		{"name =", "line 2, name: it has no value"},
		{"name = # later", "line 2, name: it has no value"},
		{"name = Pi_1", `line 2, name: "Pi_1" cannot name a machine: use 1-63 of a-z, 0-9 and -`},
		{`name = "pi-1"`, "line 2, name: write the value without quotes"},
		{"name = “pi-1”", "line 2, name: write the value without quotes"},
		{"name = pi–1", `"pi–1" cannot name a machine`},
		{"name = pi\u200b1", "line 2: there is an invisible character (U+200B)"},
		{"name = M\xfcller", "line 2: this is not UTF-8: save the file as UTF-8"},
		{"name = pi\nname = po", "line 3, name: it is in line 2 already, and may be there once"},
		{"key = /home/me/.ssh/id_ed25519.pub", "line 2, key: this is no public SSH key"},
		{"key = -----BEGIN OPENSSH PRIVATE KEY-----", "line 2, key: this is no public SSH key"},
		{"key = " + pubkey[:40], "line 2, key: this is no public SSH key"},
		{`key = command="rm" ` + pubkey, "line 2, key: this is no public SSH key"},
		{"key = ssh-rsa " + strings.Fields(pubkey)[1], "line 2, key: this is no public SSH key"},
		{"wifi = home", "line 2, wifi: write it as NETWORK / PASSWORD, with spaces around the slash"},
		{"wifi = home/secret12", "line 2, wifi: write it as NETWORK / PASSWORD"},
		{"wifi = home / short", "line 2, wifi: a password of a Wi-Fi has 8 to 63 characters, and this has 5"},
		{"wifi = home / don’t tell", "and this has another: a typographic quote, perhaps"},
		{`wifi = "home" / "secret12"`, "line 2, wifi: write the value without quotes"},
		{"wifi = home / 'secret12'", "line 2, wifi: write network and password without quotes"},
		{"wifi = home / secret12 # upstairs", `line 2, wifi: " #" could begin a comment or be part of the value`},
		{"wifi = " + strings.Repeat("x", 33) + " / secret12", "line 2, wifi: the name of a network has 1 to 32 bytes, and this has 33"},
		{"wifi = / secret12", "line 2, wifi: write it as NETWORK / PASSWORD"},
		{"country = Germany", `line 2, country: "Germany" is no country: write its two letters`},
		{"address = 192.168.1.10", `line 2, address: "192.168.1.10" is no address with the length of its network`},
		{"address = 192.168.1.0/24", "line 2, address: 192.168.1.0 names the whole network 192.168.1.0/24"},
		{"address = 192.168.1.255/24", "line 2, address: 192.168.1.255 names the whole network"},
		{"address = 127.0.0.1/8", "line 2, address: 127.0.0.1 cannot be the address of a machine"},
		{"address = 192.168.1.10/24\ngateway = 192.168.2.1", "line 3, gateway: 192.168.2.1 is not in the network of the address, 192.168.1.0/24"},
		{"address = 192.168.1.10/24\ngateway = 192.168.1.10", "line 3, gateway: 192.168.1.10 is the machine's own address"},
		{"address = dhcp\ngateway = 192.168.1.10", "line 3, gateway: with address = dhcp it comes by DHCP too"},
		{"gateway = 192.168.1.1", "line 2, gateway: it goes with an address"},
		{"dns = 192.168.1.1", "line 2, dns: it goes with an address"},
		{"dns = dns.example.com", `line 2, dns: "dns.example.com" is no address of a machine`},
		{"timezone = Europe/Bärlin", `line 2, timezone: there is no time zone "Europe/Bärlin": write it as Europe/Berlin`},
		{"timezone = ../../shadow", "line 2, timezone: there is no time zone"},
		{"timezone = Europe/Hamburg", `there is no time zone "Europe/Hamburg"`},
		{"label = zone", `line 2, label: "zone" is no label: write it as label = zone=home`},
		{"label = a=1\nlabel = a=2", `line 3, label: the label a is there already, as "1"`},
		{"role = boss", `line 2, role: there is no role "boss": use ingress or worker`},
		{"ticket = uncloud-ticket-v1.abc", "line 2, ticket: the ticket is damaged or was altered"},
		{"ticket = uncloud-ticket-v1.abc def", "line 2, ticket: a ticket is one word in one line"},
		{"uncloud-ticket-v1.abc", "line 2, ticket: the ticket is damaged"},
		{"ticket =", "line 2, ticket: it has no value"},
		{"ticket = # Lets a machine join until 2026.\nname = pi-1", "line 2, ticket: it has no value"},
		{"ticket = # Lets a machine join.\nuncloud-ticket-v1.abc", "line 3, ticket: the ticket is damaged"},
		{"ticket = uncloud-ticket-v1.abc # mine", `line 2, ticket: " #" could begin a comment`},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			got, troubles := Parse([]byte("# a file\n"+tt.line+"\n"), checks)
			var said []string
			for _, trouble := range troubles {
				said = append(said, trouble.String())
			}
			if all := strings.Join(said, "\n"); len(troubles) == 0 || !strings.Contains(all, tt.said) {
				t.Errorf("said %q, want %q", all, tt.said)
			}
			if !got.empty() {
				t.Errorf("and took %+v", got)
			}
		})
	}
}

func TestAFileThatIsNoneIsSaid(t *testing.T) {
	for name, tt := range map[string]struct{ content, said string }{
		"empty":        {"", "there is nothing in it but comments"},
		"comments":     {"# name = pi\n\n", "there is nothing in it but comments"},
		"rich text":    {`{\rtf1\ansi name = pi}`, "it is a formatted document: save it as plain text"},
		"binary":       {"PK\x03\x04\x00\x00", "it is no plain text"},
		"UTF-16 bare":  {"n\x00a\x00m\x00e\x00", "it is no plain text"},
		"half UTF-16":  {"\xff\xfen\x00a", "it is no plain text"},
		"much too big": {strings.Repeat("name = pi\n", 40000), "it is larger than 256 kB"},
	} {
		if _, troubles := Parse([]byte(tt.content), Checks{}); len(troubles) != 1 || !strings.Contains(troubles[0].String(), tt.said) {
			t.Errorf("%s: %v", name, troubles)
		}
	}
	_, troubles := Parse([]byte(strings.Repeat("what is this\n", 100)), Checks{})
	if len(troubles) != mostTroubles {
		t.Errorf("%d sentences for one file", len(troubles))
	}
}

func TestWhatIsUnusualAndRight(t *testing.T) {
	for content, want := range map[string]Settings{
		"wifi = Anna’s iPhone / 12345678":             {WiFi: WiFi{"Anna’s iPhone", "12345678"}},
		"wifi = a/b / c/d#e=f\\g":                     {WiFi: WiFi{"a/b", "c/d#e=f\\g"}},
		"wifi = x / " + strings.Repeat("AB", 32):      {WiFi: WiFi{"x", strings.Repeat("ab", 32)}},
		"address = fd00::5/64\ngateway = fe80::1":     {Address: netip.MustParsePrefix("fd00::5/64"), Gateway: netip.MustParseAddr("fe80::1")},
		"address = 10.0.0.1/31\ndns=1.1.1.1, 9.9.9.9": {Address: netip.MustParsePrefix("10.0.0.1/31"), DNS: []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("9.9.9.9")}},
		"label = a=\nlabel = b=c=d":                   {Labels: map[string]string{"a": "", "b": "c=d"}},
	} {
		if got, troubles := Parse([]byte(content), Checks{}); len(troubles) > 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %+v", content, troubles, got)
		}
	}
}

// TestTheNearestKeyIsMeant: one slip of the finger away from a key, it is the
// one that is suggested.
func TestTheNearestKeyIsMeant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SampledFrom([]string{"address", "gateway", "timezone", "country", "ticket", "label"}).Draw(t, "key")
		at := rapid.IntRange(0, len(want)-1).Draw(t, "at")
		slip := []string{
			want[:at] + want[at+1:], want[:at] + "x" + want[at:], want[:at] + "x" + want[at+1:],
			want[:at] + want[at+1:min(at+2, len(want))] + want[at:at+1] + want[min(at+2, len(want)):],
		}[rapid.IntRange(0, 3).Draw(t, "slip")]
		if slip == want {
			return
		}
		if got := nearest(slip); got != want {
			t.Errorf("%q is near %q, not %q", slip, got, want)
		}
	})
}

// secretOf are what may be in no sentence and on no volume.
const secretWord = "SeCrEtSeCrEt"

// FuzzParse: whatever a volume holds, there is an answer; a file is taken whole
// or not at all; no sentence holds a line break or a secret; and what is left
// of an accepted file is no longer than it was, holds no secret, and is
// accepted again where anything is left.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("\xef\xbb\xbfname=pi\r\nwifi=a / " + secretWord + "\r\n"))
	f.Add([]byte(utf16With(binary.LittleEndian, "wifi = a / "+secretWord)))
	f.Add([]byte("uncloud-ticket-v1." + secretWord))
	f.Add([]byte("wifi=a / " + secretWord + "\rname=x"))
	f.Add([]byte("ticket = # Lets a machine join.\nuncloud-ticket-v1." + secretWord + "\nname = pi-1"))
	f.Add([]byte("naame = pi\n" + secretWord))
	f.Fuzz(func(t *testing.T, content []byte) {
		s, troubles := Parse(content, Checks{})
		if len(troubles) > 0 {
			if !s.empty() {
				t.Errorf("took %+v in spite of %v", s, troubles)
			}
			for _, trouble := range troubles {
				if strings.ContainsAny(trouble.String(), "\n\r\x00\x1b") {
					t.Errorf("no sentence: %q", trouble)
				}
			}
			return
		}
		left := redact(content)
		if len(left) > len(content) {
			t.Errorf("%d bytes are left of %d", len(left), len(content))
		}
		if s.WiFi.Network == "" && s.Ticket == "" {
			return
		}
		if strings.Contains(left, secretWord) && (strings.Contains(s.WiFi.Password, secretWord) || strings.Contains(s.Ticket, secretWord)) &&
			strings.Count(string(content), secretWord) == 1 {
			t.Errorf("the secret is left: %q", left)
		}
		again, troubles := Parse([]byte(left), Checks{})
		s.WiFi, s.Ticket = WiFi{}, ""
		if s.empty() {
			return
		}
		if len(troubles) > 0 || !reflect.DeepEqual(again, s) {
			t.Errorf("%q is left of %q: %v", left, content, troubles)
		}
	})
}
