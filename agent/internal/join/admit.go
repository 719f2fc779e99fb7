package join

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Request is what a ticket holder says of itself.
type Request struct {
	MachineID     string
	Name          string
	NameSuggested bool // a taken name gets a number instead of a refusal
	PublicKey     string
	SigningKey    string
	Endpoints     []netip.AddrPort
	Labels        map[string]string
	Roles         []spec.Role // empty: all
	Version       string
	OS            string
	Arch          string
}

// Admission is what a member decided: the rows to write.
type Admission struct {
	Machine spec.Machine
	Use     spec.TicketUse
	// Again is set when the machine was admitted before and only asks again,
	// because the first answer was lost. Nothing needs to be written then.
	Again bool
}

// PickSubnet chooses the /24 of a machine (see mesh.PickSubnet).
type PickSubnet func(network netip.Prefix, publicKey string, taken []netip.Prefix) (netip.Prefix, error)

// Grace is how long after its end a ticket is still answered, so that its
// holder is told why it is refused instead of hearing nothing.
const Grace = 24 * time.Hour

// Admit decides about a ticket holder by this member's own copy of the state.
// In two partitions a ticket may thus be used up twice; that is the price of
// joining without asking a centre, and every use is on record.
func Admit(state *spec.State, t Ticket, req Request, now time.Time, pick PickSubnet) (Admission, error) {
	if err := checkTicket(state, t, req, now); err != nil {
		return Admission{}, err
	}
	use := spec.TicketUse{ID: t.ID + "/" + req.MachineID, Ticket: t.ID, Machine: req.MachineID, At: now}
	if m, ok := state.Machines[req.MachineID]; ok {
		if m.PublicKey != req.PublicKey {
			return Admission{}, faults.New(faults.Conflict, "machine id %s belongs to another machine", req.MachineID).
				WithHint("on the machine that joins: uncloudd reset")
		}
		return Admission{Machine: m, Use: use, Again: true}, nil
	}
	if err := checkIdentity(state, req); err != nil {
		return Admission{}, err
	}
	name, err := chooseName(state, req)
	if err != nil {
		return Admission{}, err
	}
	subnet, err := pick(state.Cluster.Network, req.PublicKey, takenSubnets(state))
	if err != nil {
		return Admission{}, err
	}
	roles := req.Roles
	if len(roles) == 0 {
		roles = []spec.Role{spec.RoleIngress, spec.RoleWorker}
	}
	return Admission{Use: use, Machine: spec.Machine{
		ID: req.MachineID, Name: name, PublicKey: req.PublicKey, SigningKey: req.SigningKey,
		Subnet: subnet, Endpoints: req.Endpoints, Labels: req.Labels,
		Roles: roles, Schedulable: true,
		Version: req.Version, OS: req.OS, Arch: req.Arch, JoinedAt: now,
	}}, nil
}

// What a ticket holder may leave behind for people to read.
const (
	mostNotes   = 8
	longestNote = 400
)

// Note is the ticket's row with what its holder says of a machine that cannot
// ask to be admitted; changed tells whether that is anything new.
func Note(state *spec.State, t Ticket, machine, name, text string, now time.Time) (row spec.Ticket, changed bool, err error) {
	if err := checkTicket(state, t, Request{MachineID: machine}, now); err != nil {
		return row, false, err
	}
	if !spec.IsID(spec.MachinePrefix, machine) {
		return row, false, faults.New(faults.Invalid, "%q is no machine id", machine).WithHint("it is the id in the machine's own identity file: uncloudd status")
	}
	row, known := state.Tickets[t.ID]
	if !known {
		return row, false, faults.New(faults.NotReady, "this member does not have the ticket yet").WithHint("try again in a moment")
	}
	if text != "" {
		words := strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
		text = "machine " + SafeName(name) + " could not join: " + cut(strings.Join(words, " "), longestNote)
	}
	if row.Notes[machine] == text {
		return row, false, nil
	}
	notes := maps.Clone(row.Notes)
	if notes == nil {
		notes = map[string]string{}
	}
	if notes[machine] = text; text == "" {
		delete(notes, machine)
	}
	if len(notes) > mostNotes {
		return row, false, faults.New(faults.Invalid, "ticket %s has %d notes already, and no more are kept", t.ID, mostNotes).
			WithHint("see them: uc machine ls; take the ticket back: uc machine ticket revoke %s", t.ID)
	}
	row.Notes = notes
	return row, true, nil
}

// cut shortens a text to so many characters.
func cut(text string, most int) string {
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}

// checkIdentity refuses an id that is none, and a key that is somebody's: the
// holder proves that it has the ticket, but not that the key is its own, and
// a key that two machines name would take the packets of one of them.
func checkIdentity(state *spec.State, req Request) error {
	if !spec.IsID(spec.MachinePrefix, req.MachineID) {
		return faults.New(faults.Invalid, "%q is no machine id", req.MachineID).
			WithHint("use the same version of uncloudd on all machines")
	}
	taken := func(whose string) error {
		return faults.New(faults.Conflict, "the key of the machine is that of %s", whose).
			WithHint("on the machine that joins: uncloudd reset")
	}
	for _, m := range state.Machines {
		if m.PublicKey == req.PublicKey {
			return taken("machine " + m.Name)
		}
	}
	for _, t := range state.Tickets {
		if slices.Contains(t.PublicKeys, req.PublicKey) {
			return taken("ticket " + t.ID)
		}
	}
	return nil
}

func checkTicket(state *spec.State, t Ticket, req Request, now time.Time) error {
	if t.Cluster != state.Cluster.ClusterID {
		return faults.New(faults.TicketForeign, "the ticket is of another cluster (%s)", t.Cluster).
			WithHint("make one on a member of this cluster: uc machine ticket > uncloud.ticket")
	}
	if issuer, ok := state.Machines[t.Issuer]; !ok || issuer.SigningKey != t.IssuerKey {
		return faults.New(faults.TicketAltered, "the ticket was not signed by a member of this cluster").
			WithHint("make a new one on a member: uc machine ticket > uncloud.ticket")
	}
	if now.After(t.ExpiresAt) {
		return expired(t)
	}
	if row, ok := state.Tickets[t.ID]; ok && row.Revoked {
		return faults.New(faults.TicketExpired, "ticket %s was revoked", t.ID).
			WithHint("make a new one on a member: uc machine ticket > uncloud.ticket")
	}
	return checkUses(state, t, req)
}

func checkUses(state *spec.State, t Ticket, req Request) error {
	var by []string
	for _, u := range state.TicketUses {
		if u.Ticket != t.ID {
			continue
		}
		// Only the answer was lost. Without its row the machine was removed
		// since, and its use counts: a removal closes the ticket behind it.
		if _, member := state.Machines[u.Machine]; member && u.Machine == req.MachineID {
			return nil
		}
		by = append(by, machineName(state, u.Machine))
	}
	if len(by) < t.Uses {
		return nil
	}
	slices.Sort(by)
	return faults.New(faults.TicketUsed, "ticket %s is used up: %s joined with it", t.ID, strings.Join(by, ", ")).
		WithHint("make a new one on a member: uc machine ticket > uncloud.ticket")
}

func machineName(state *spec.State, id string) string {
	if m, ok := state.Machines[id]; ok {
		return m.Name
	}
	return id
}

func chooseName(state *spec.State, req Request) (string, error) {
	name := req.Name
	if req.NameSuggested {
		name = SafeName(name)
	}
	if err := spec.CheckMachineName(name); err != nil {
		return "", faults.New(faults.Invalid, "%w", err).WithHint("choose another: uncloudd join --name NAME TICKET-FILE")
	}
	taken := map[string]bool{}
	for _, m := range state.Machines {
		taken[m.Name] = true
	}
	if !taken[name] {
		return name, nil
	}
	if !req.NameSuggested {
		return "", faults.New(faults.Conflict, "a machine named %s is a member already", name).
			WithHint("choose another: uncloudd join --name NAME TICKET-FILE")
	}
	for i := 2; ; i++ {
		if next := fmt.Sprintf("%s-%d", name, i); !taken[next] {
			return next, nil
		}
	}
}

func takenSubnets(state *spec.State) []netip.Prefix {
	var out []netip.Prefix
	for _, m := range state.Machines {
		if m.Subnet.IsValid() {
			out = append(out, m.Subnet)
		}
	}
	return out
}

// SafeName makes a machine name of a host name: the first label, lower case,
// other characters as "-". It is "machine" where nothing is left.
func SafeName(hostname string) string {
	label, _, _ := strings.Cut(strings.ToLower(hostname), ".")
	name := strings.Map(func(r rune) rune {
		if (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9') {
			return r
		}
		return '-'
	}, label)
	name = strings.Trim(name, "-")
	if len(name) > 60 {
		name = strings.TrimRight(name[:60], "-")
	}
	if name == "" {
		return "machine"
	}
	return name
}
