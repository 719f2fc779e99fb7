package join

import (
	"crypto/ed25519"
	"encoding/base64"
	"math/rand"
	"net/netip"
	"strings"
	"testing"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

var (
	now    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	source = rand.New(rand.NewSource(7)) //nolint:gosec // a fixed key makes the test repeatable
)

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(source)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) string {
	return base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
}

func sample() Ticket {
	return Ticket{
		ID: "tkt_a", Cluster: "cls_a", ExpiresAt: now.Add(time.Hour), Uses: 1, Secret: []byte("secret"), Doors: 1, Issuer: "mch_1",
		Members: []Member{{Machine: "mch_1", PublicKey: "pk", Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:51820")}}},
	}
}

func TestTicketSurvivesTheFile(t *testing.T) {
	text, err := sample().Sign(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, form := range map[string]string{
		"as written": text, "with carriage returns": strings.ReplaceAll(text, "\n", "\r\n"),
		"without its comment": text[strings.Index(text, ticketHead):], "with blank lines": "\n\n" + text + "\n",
	} {
		got, err := Parse(form)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.ID != "tkt_a" || got.Members[0].Endpoints[0].Port() != 51820 || !got.ExpiresAt.Equal(now.Add(time.Hour)) {
			t.Errorf("%s: read back as %+v", name, got)
		}
	}
}

func TestEveryAlterationIsNoticed(t *testing.T) {
	text, err := sample().Sign(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	body := strings.TrimSpace(text[strings.Index(text, ticketHead):])
	for i := range body {
		b := []byte(body)
		b[i] ^= 1
		got, err := Parse(string(b))
		if err == nil && !sameBits(body, string(b)) {
			t.Fatalf("byte %d of the ticket changed and nobody noticed: %+v", i, got)
		}
		if err != nil && faults.CodeOf(err) != faults.TicketAltered {
			t.Fatalf("byte %d: code %q, want %q", i, faults.CodeOf(err), faults.TicketAltered)
		}
	}
	for _, cut := range []int{0, 5, len(ticketHead), len(body) / 2, len(body) - 1} {
		if _, err := Parse(body[:cut]); err == nil {
			t.Errorf("a ticket cut at %d was accepted", cut)
		}
	}
}

// sameBits is true where two texts differ only in the unused low bits of a
// final base64 character, which change nothing of what is signed.
func sameBits(a, b string) bool {
	decode := func(s string) string {
		head, tail, _ := strings.Cut(strings.TrimPrefix(s, ticketHead), ".")
		x, err1 := base64.RawURLEncoding.DecodeString(head)
		y, err2 := base64.RawURLEncoding.DecodeString(tail)
		if err1 != nil || err2 != nil || !strings.HasPrefix(s, ticketHead) {
			return s
		}
		return string(x) + "\x00" + string(y)
	}
	return decode(a) == decode(b)
}

func cluster(issuer ed25519.PrivateKey) *spec.State {
	return &spec.State{
		Cluster: spec.Cluster{ID: spec.ClusterKey, ClusterID: "cls_a", Network: netip.MustParsePrefix("10.210.0.0/16")},
		Machines: map[string]spec.Machine{"mch_1": {
			ID: "mch_1", Name: "m1", PublicKey: "pk", SigningKey: public(issuer), Subnet: netip.MustParsePrefix("10.210.1.0/24"), JoinedAt: now,
		}},
		Tickets:    map[string]spec.Ticket{"tkt_a": {ID: "tkt_a", Uses: 1, ExpiresAt: now.Add(time.Hour)}},
		TicketUses: map[string]spec.TicketUse{},
	}
}

func pickSeven(_ netip.Prefix, _ string, _ []netip.Prefix) (netip.Prefix, error) {
	return netip.MustParsePrefix("10.210.7.0/24"), nil
}

func TestAdmit(t *testing.T) {
	issuer, stranger := newKey(t), newKey(t)
	req := Request{MachineID: spec.DerivedID(spec.MachinePrefix, "2"), Name: "m2", PublicKey: "pk2"}
	tests := []struct {
		name   string
		change func(*spec.State, *Ticket, *Request)
		code   faults.Code
		want   string // machine name
	}{
		{"a good ticket", func(*spec.State, *Ticket, *Request) {}, "", "m2"},
		{"the row of the ticket has not arrived yet", func(s *spec.State, _ *Ticket, _ *Request) { clear(s.Tickets) }, "", "m2"},
		{"expired", func(_ *spec.State, k *Ticket, _ *Request) { k.ExpiresAt = now.Add(-time.Second) }, faults.TicketExpired, ""},
		{"revoked", func(s *spec.State, _ *Ticket, _ *Request) {
			s.Tickets["tkt_a"] = spec.Ticket{ID: "tkt_a", Revoked: true}
		}, faults.TicketExpired, ""},
		{"of another cluster", func(_ *spec.State, k *Ticket, _ *Request) { k.Cluster = "cls_b" }, faults.TicketForeign, ""},
		{"signed by a stranger", func(_ *spec.State, k *Ticket, _ *Request) { k.IssuerKey = public(stranger) }, faults.TicketAltered, ""},
		{"signed by a machine that was removed", func(s *spec.State, _ *Ticket, _ *Request) { delete(s.Machines, "mch_1") }, faults.TicketAltered, ""},
		{"used up", func(s *spec.State, _ *Ticket, _ *Request) {
			s.TicketUses["tkt_a/mch_9"] = spec.TicketUse{Ticket: "tkt_a", Machine: "mch_9"}
		}, faults.TicketUsed, ""},
		{"used by this very machine, whose answer was lost", func(s *spec.State, _ *Ticket, r *Request) {
			s.TicketUses["tkt_a/mch_2"] = spec.TicketUse{Ticket: "tkt_a", Machine: r.MachineID}
			s.Machines[r.MachineID] = spec.Machine{ID: r.MachineID, Name: "m2", PublicKey: r.PublicKey}
		}, "", "m2"},
		{"used by this very machine, which was removed since", func(s *spec.State, _ *Ticket, r *Request) {
			s.TicketUses["tkt_a/mch_2"] = spec.TicketUse{Ticket: "tkt_a", Machine: r.MachineID}
		}, faults.TicketUsed, ""},
		{"no machine id", func(_ *spec.State, _ *Ticket, r *Request) { r.MachineID = "m1" }, faults.Invalid, ""},
		{"a member's key", func(_ *spec.State, _ *Ticket, r *Request) { r.PublicKey = "pk" }, faults.Conflict, ""},
		{"the key of a ticket", func(s *spec.State, _ *Ticket, r *Request) {
			s.Tickets["tkt_b"] = spec.Ticket{ID: "tkt_b", PublicKeys: []string{r.PublicKey}}
		}, faults.Conflict, ""},
		{"name taken", func(_ *spec.State, _ *Ticket, r *Request) { r.Name = "m1" }, faults.Conflict, ""},
		{"suggested name taken", func(_ *spec.State, _ *Ticket, r *Request) { r.Name, r.NameSuggested = "M1.example.com", true }, "", "m1-2"},
		{"impossible name", func(_ *spec.State, _ *Ticket, r *Request) { r.Name = "no spaces" }, faults.Invalid, ""},
		{"somebody else's id", func(_ *spec.State, _ *Ticket, r *Request) { r.MachineID = "mch_1" }, faults.Conflict, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			state, ticket, req := cluster(issuer), sample(), req
			ticket.IssuerKey = public(issuer)
			tt.change(state, &ticket, &req)
			got, err := Admit(state, ticket, req, now, pickSeven)
			if faults.CodeOf(err) != tt.code {
				t.Fatalf("error %v, want code %q", err, tt.code)
			}
			if err == nil && got.Machine.Name != tt.want {
				t.Errorf("admitted as %q, want %q", got.Machine.Name, tt.want)
			}
			if err != nil && faults.Of(err).Hint == "" {
				t.Errorf("%v has no hint", err)
			}
		})
	}
}

func TestAdmittedTwiceIsAdmittedOnce(t *testing.T) {
	issuer := newKey(t)
	state, ticket := cluster(issuer), sample()
	ticket.IssuerKey = public(issuer)
	req := Request{MachineID: spec.DerivedID(spec.MachinePrefix, "2"), Name: "m2", PublicKey: "pk2"}
	first, err := Admit(state, ticket, req, now, pickSeven)
	if err != nil {
		t.Fatal(err)
	}
	state.Machines[req.MachineID], state.TicketUses[first.Use.ID] = first.Machine, first.Use
	again, err := Admit(state, ticket, req, now.Add(time.Minute), pickSeven)
	if err != nil || !again.Again || again.Machine.Subnet != first.Machine.Subnet {
		t.Errorf("second answer %+v, %v; want the first again", again, err)
	}
}

func TestDoors(t *testing.T) {
	a, b := Ticket{Secret: []byte("a")}, Ticket{Secret: []byte("b")}
	seen := map[string]bool{}
	for _, ticket := range []Ticket{a, b} {
		for i := range DoorsFor(5) {
			seed := string(ticket.Door(i))
			if len(seed) != 32 || seen[seed] {
				t.Errorf("door %d has a seed of %d bytes, seen before: %v", i, len(seed), seen[seed])
			}
			seen[seed] = true
		}
	}
	if DoorsFor(1) != 1 || DoorsFor(2) != 8 || DoorsFor(1000) != maxDoors {
		t.Errorf("doors for 1, 2, 1000 machines: %d, %d, %d", DoorsFor(1), DoorsFor(2), DoorsFor(1000))
	}
}

func TestSafeName(t *testing.T) {
	for in, want := range map[string]string{
		"pi-1": "pi-1", "Pi_One.local": "pi-one", "": "machine", "---": "machine", "ä": "machine", strings.Repeat("a", 80): strings.Repeat("a", 60),
	} {
		if got := SafeName(in); got != want || spec.CheckMachineName(got) != nil {
			t.Errorf("SafeName(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestAHolderMayLeaveANote(t *testing.T) {
	issuer := newKey(t)
	state, ticket := cluster(issuer), sample()
	ticket.IssuerKey = public(issuer)
	row := spec.Ticket{ID: ticket.ID, Issuer: ticket.Issuer, Uses: ticket.Uses, ExpiresAt: ticket.ExpiresAt}
	state.Tickets[row.ID] = row
	leave := func(machine, text string, at time.Time) (bool, error) {
		got, changed, err := Note(state, ticket, machine, "Pi 1", text, at)
		if err == nil {
			state.Tickets[row.ID] = got
		}
		return changed, err
	}
	machine := spec.DerivedID(spec.MachinePrefix, "2")
	for _, again := range []bool{false, true} {
		if changed, err := leave(machine, "uncloud.txt on ESP, line 3:\n\x1b[31mthere is no key", now); err != nil || changed == again {
			t.Fatal(changed, err)
		}
	}
	shown := func(at time.Time) string { return strings.Join(state.NotesOfTickets(ticket.Issuer, at), "\n") }
	if got := shown(now); got != "machine pi-1 could not join: uncloud.txt on ESP, line 3: [31mthere is no key" {
		t.Errorf("%q", got)
	}
	if len(state.TicketUses) != 0 {
		t.Error("the ticket is used up")
	}
	if shown(ticket.ExpiresAt) != "" || state.NotesOfTickets("mch_other", now) != nil {
		t.Error("shown elsewhere, or for ever")
	}
	state.Machines[machine] = spec.Machine{ID: machine}
	if shown(now) != "" {
		t.Error("shown of a member")
	}
	delete(state.Machines, machine)
	if _, err := leave(machine, strings.Repeat("ä", 10_000), now); err != nil || len([]rune(shown(now))) > longestNote+100 {
		t.Error(err, len(shown(now)))
	}
	if changed, err := leave(machine, "", now); err != nil || !changed || shown(now) != "" {
		t.Error(changed, err, shown(now))
	}
	for i := range mostNotes + 1 {
		_, err := leave(spec.DerivedID(spec.MachinePrefix, strings.Repeat("x", i+9)), "x", now)
		if (i < mostNotes) != (err == nil) {
			t.Error(i, err)
		}
	}
	if _, err := leave("no id", "x", now); faults.CodeOf(err) != faults.Invalid {
		t.Error(err)
	}
	if _, err := leave(machine, "x", ticket.ExpiresAt.Add(1)); faults.CodeOf(err) != faults.TicketExpired {
		t.Error(err)
	}
}
