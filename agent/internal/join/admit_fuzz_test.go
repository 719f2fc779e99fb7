package join

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// signed is a ticket of the payload as anybody could make it: with a key of
// their own.
func signed(key ed25519.PrivateKey, payload []byte) string {
	enc := base64.RawURLEncoding
	return ticketHead + enc.EncodeToString(payload) + "." + enc.EncodeToString(ed25519.Sign(key, append([]byte(ticketDomain), payload...)))
}

// FuzzAdmit is for who signs what they like with a key of their own, and says
// of themselves what they like: nothing falls over, no stranger gets in, and
// whoever gets in has an id, a name and a subnet that are some.
func FuzzAdmit(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	good := sample()
	good.IssuerKey = public(key)
	payload, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	id, err := spec.NewID(spec.MachinePrefix, strings.NewReader("12345678"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload, id, "m2", "a key", true, true)
	f.Add(payload, "mch_1", "m1", "its key", false, true)
	f.Add([]byte(strings.Replace(string(payload), "2026", "-2026", 1)), id, "Ä.example.org", "", true, true)
	f.Add([]byte(strings.Replace(string(payload), `"doors":1`, `"doors":-1`, 1)), id, strings.Repeat("x", 300), "k", true, false)
	f.Add([]byte(`{"issuerKey":"`+public(key)+`","members":[{"endpoints":["x"]}]}`), "", "", "", false, false)
	pick := func(netip.Prefix, string, []netip.Prefix) (netip.Prefix, error) {
		return netip.MustParsePrefix("10.210.9.0/24"), nil
	}
	f.Fuzz(func(t *testing.T, payload []byte, id, name, publicKey string, suggested, member bool) {
		ticket, err := Parse(signed(key, payload))
		if err != nil {
			if fault := faults.Of(err); fault == nil || fault.Code != faults.TicketAltered || fault.Hint == "" {
				t.Fatalf("%v", err)
			}
			return
		}
		if len(ticket.Door(ticket.Doors)) != 32 {
			t.Fatal("a door has no key")
		}
		_ = ticket.CheckTime(now)
		state := &spec.State{
			Cluster:  spec.Cluster{ID: spec.ClusterKey, ClusterID: "cls_a", Network: netip.MustParsePrefix("10.210.0.0/16")},
			Machines: map[string]spec.Machine{"mch_1": {ID: "mch_1", Name: "m1", PublicKey: "its key", SigningKey: "another"}},
		}
		if member {
			self := state.Machines["mch_1"]
			self.SigningKey = public(key)
			state.Machines["mch_1"] = self
		}
		got, err := Admit(state, ticket, Request{MachineID: id, Name: name, NameSuggested: suggested, PublicKey: publicKey}, now, pick)
		switch {
		case err != nil:
			if fault := faults.Of(err); fault == nil || fault.Hint == "" {
				t.Fatalf("refused without a hint: %v", err)
			}
		case !member:
			t.Fatalf("a stranger's ticket lets in %+v", got.Machine)
		case !got.Again && (!spec.IsID(spec.MachinePrefix, got.Machine.ID) || spec.CheckMachineName(got.Machine.Name) != nil || !got.Machine.Subnet.IsValid()):
			t.Fatalf("let in as %+v", got.Machine)
		}
	})
}
