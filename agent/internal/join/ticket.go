// Package join lets machines in: it owns the ticket file, and the decision
// whether the holder of a ticket becomes a member and as what.
//
// It refuses to touch the network, the store or the clock: packets belong to
// the mesh, rows to the store, and both are wired up in agent.go.
//
// A ticket opens doors: WireGuard keys that follow from its secret, which the
// members keep as peers that reach the admission port and nothing else. So
// joining needs no port but the one of WireGuard, and nobody without the secret
// gets a packet through. A ticket for many machines has many doors, because two
// holders behind one key would take each other's session away: each picks one
// at random, and another when nobody answers.
package join

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"uncloud/internal/faults"
)

// Ticket is the content of a ticket file.
type Ticket struct {
	ID        string    `json:"id"`
	Cluster   string    `json:"cluster"`
	ExpiresAt time.Time `json:"expires"`
	Uses      int       `json:"uses"`
	// Secret is what the WireGuard keys of its doors follow from. Whoever has it can join.
	Secret []byte `json:"secret"`
	// Doors is how many of these keys the members know.
	Doors int `json:"doors"`
	// Issuer is the machine that signed, IssuerKey its Ed25519 public key, base64.
	Issuer    string   `json:"issuer"`
	IssuerKey string   `json:"issuerKey"`
	Members   []Member `json:"members"`
	// Network is the cluster's, so that a machine that uses it for something
	// else notices before the ticket is used.
	Network netip.Prefix `json:"network"`
}

// Member is a machine that a ticket holder may ask for admission.
type Member struct {
	Machine   string           `json:"machine"`
	PublicKey string           `json:"publicKey"` // WireGuard, base64
	Endpoints []netip.AddrPort `json:"endpoints"`
}

const (
	ticketHead = "uncloud-ticket-v1."
	// ticketDomain separates this signature from any other that the key may make.
	ticketDomain = "uncloud ticket v1\x00"
	// maxTicket bounds what is read: a ticket with a hundred members is about 20 kB.
	maxTicket = 1 << 20
)

// Sign makes the text of the ticket file.
func (t Ticket) Sign(key ed25519.PrivateKey) (string, error) {
	t.IssuerKey = base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	payload, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("encode ticket %s: %w", t.ID, err)
	}
	sig := ed25519.Sign(key, append([]byte(ticketDomain), payload...))
	enc := base64.RawURLEncoding
	return fmt.Sprintf("# Lets a machine join until %s. Whoever holds this file can join: keep it secret.\n%s%s.%s\n",
		t.ExpiresAt.UTC().Format("2006-01-02 15:04 MST"), ticketHead, enc.EncodeToString(payload), enc.EncodeToString(sig)), nil
}

// Parse reads a ticket file and checks that it is whole: signed by the key
// that it names. Whether that key is a member's is for a member to say.
// It returns a ticket-altered fault for anything else.
func Parse(text string) (Ticket, error) {
	body, ok := ticketLine(text)
	if !ok {
		return Ticket{}, notATicket()
	}
	head, tail, ok := strings.Cut(body, ".")
	if !ok {
		return Ticket{}, altered("it is cut short")
	}
	payload, err1 := base64.RawURLEncoding.DecodeString(head)
	sig, err2 := base64.RawURLEncoding.DecodeString(tail)
	if err1 != nil || err2 != nil {
		return Ticket{}, altered("it has characters that no ticket has")
	}
	var t Ticket
	if err := json.Unmarshal(payload, &t); err != nil {
		return Ticket{}, altered("its content cannot be read")
	}
	key, err := base64.StdEncoding.DecodeString(t.IssuerKey)
	if err != nil || len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, append([]byte(ticketDomain), payload...), sig) {
		return Ticket{}, altered("its signature does not fit")
	}
	return t, nil
}

// ticketLine finds the ticket among comments and blank lines.
func ticketLine(text string) (string, bool) {
	if len(text) > maxTicket {
		return "", false
	}
	for line := range strings.Lines(text) {
		if body, ok := strings.CutPrefix(strings.TrimSpace(line), ticketHead); ok {
			return body, true
		}
	}
	return "", false
}

// maxDoors bounds what a ticket costs the members: a peer for each door.
const maxDoors = 32

// DoorsFor is how many doors a ticket for so many machines has: one for one
// machine, otherwise four for each, so that few holders meet behind one.
func DoorsFor(uses int) int {
	if uses <= 1 {
		return 1
	}
	return min(4*uses, maxDoors)
}

// Door is the seed of a door's WireGuard key, 32 bytes.
func (t Ticket) Door(i int) []byte {
	mac := hmac.New(sha256.New, t.Secret)
	fmt.Fprintf(mac, "uncloud door %d", i)
	return mac.Sum(nil)
}

// CheckTime tells whether the ticket is still good at now by the holder's own
// clock. A machine without a clock battery may boot in the past, so only an
// expiry is believed here; the member decides.
func (t Ticket) CheckTime(now time.Time) error {
	if now.After(t.ExpiresAt) {
		return expired(t)
	}
	return nil
}

func notATicket() error {
	return faults.New(faults.TicketAltered, "this is not a ticket: no line of it begins with %q", ticketHead).
		WithHint("make one on a member: uc machine ticket > uncloud.ticket")
}

func altered(why string) error {
	return faults.New(faults.TicketAltered, "the ticket is damaged or was altered: %s", why).
		WithHint("copy it again, or make a new one on a member: uc machine ticket > uncloud.ticket")
}

func expired(t Ticket) error {
	return faults.New(faults.TicketExpired, "ticket %s expired on %s", t.ID, t.ExpiresAt.UTC().Format("2006-01-02 15:04 MST")).
		WithHint("make a new one on a member: uc machine ticket > uncloud.ticket")
}
