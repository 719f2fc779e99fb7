package join

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"uncloud/internal/faults"
)

// FuzzParse reads any ticket file, and any content under a signature that fits:
// who may make tickets is no reason to trust what is in them. What is taken is
// the same when it is signed and read again.
func FuzzParse(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	issuer := base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	good := Ticket{ID: "tkt_a", ExpiresAt: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Secret: bytes.Repeat([]byte{1}, 32)}
	text, err := good.Sign(key)
	if err != nil {
		f.Fatal(err)
	}
	good.IssuerKey = issuer
	payload, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, payload)
	f.Add(text[:len(text)-9], []byte(`{"issuerKey": "`+issuer+`"}`))
	f.Add(strings.Replace(text, ".", "", 1), []byte(`null`))
	f.Add("", []byte(``))
	f.Fuzz(func(t *testing.T, text string, payload []byte) {
		sound(t, key, text)
		sig := ed25519.Sign(key, append([]byte(ticketDomain), payload...))
		enc := base64.RawURLEncoding
		sound(t, key, ticketHead+enc.EncodeToString(payload)+"."+enc.EncodeToString(sig))
	})
}

func sound(t *testing.T, key ed25519.PrivateKey, text string) {
	t.Helper()
	got, err := Parse(text)
	if err != nil {
		if faults.CodeOf(err) != faults.TicketAltered {
			t.Fatalf("refused as %s: %v", faults.CodeOf(err), err)
		}
		return
	}
	again, err := got.Sign(key)
	if err != nil {
		t.Fatalf("%+v cannot be signed: %v", got, err)
	}
	same, err := Parse(again)
	if err != nil || same.ID != got.ID || !same.ExpiresAt.Equal(got.ExpiresAt) || !bytes.Equal(same.Secret, got.Secret) {
		t.Fatalf("%+v became %+v, %v", got, same, err)
	}
}
