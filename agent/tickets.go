package agent

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"uncloud/agent/internal/join"
	"uncloud/agent/internal/mesh"
	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// ticketMembers bounds how many machines a ticket names. More only make the
// file larger: one that answers is enough.
const ticketMembers = 8

// issueTicket makes a ticket and records it. It returns once this machine lets
// its holder in; the others follow as the row reaches them.
func (m *member) issueTicket(ctx context.Context, valid time.Duration, uses int) (string, string, time.Time, error) {
	fail := func(err error) (string, string, time.Time, error) { return "", "", time.Time{}, err }
	id, err := spec.NewID(spec.TicketPrefix, cryptoRandom)
	if err != nil {
		return fail(fmt.Errorf("draw ticket id: %w", err))
	}
	secret := make([]byte, 32)
	if _, err := io.ReadFull(cryptoRandom, secret); err != nil {
		return fail(fmt.Errorf("draw ticket: %w", err))
	}
	now, members := time.Now(), m.ticketMembers()
	if len(members) == 0 {
		return fail(faults.New(faults.Unreachable, "no address is known that another machine could reach this one at").
			WithHint("name one, as 203.0.113.5:51820: %s", setting("endpoints", "network.endpoints")))
	}
	t := join.Ticket{
		ID: id, Cluster: m.id.ClusterID, ExpiresAt: now.Add(valid).Truncate(time.Second), Uses: uses, Secret: secret, Doors: join.DoorsFor(uses),
		Issuer: m.id.MachineID, Members: members, Network: m.id.Network,
	}
	text, err := t.Sign(m.id.Signer())
	if err != nil {
		return fail(err)
	}
	doors, err := publicDoors(t)
	if err != nil {
		return fail(err)
	}
	_, err = m.store.Update(ctx, func(tx *storeTx) error {
		tx.Put(spec.Ticket{
			ID: id, Issuer: m.id.MachineID, PublicKeys: doors, Uses: uses, ExpiresAt: t.ExpiresAt, CreatedAt: now,
		})
		for _, old := range endedTickets(tx.State(), now) {
			tx.Delete(old.Table(), old.Key())
		}
		return nil
	})
	if err != nil {
		return fail(err)
	}
	if err := m.steerNetwork(ctx); err != nil {
		return fail(err)
	}
	return id, text, t.ExpiresAt, nil
}

// doorKey is the private WireGuard key of a ticket's door.
func doorKey(t join.Ticket, i int) (mesh.Key, error) {
	return mesh.NewPrivateKey(bytes.NewReader(t.Door(i)))
}

func publicDoors(t join.Ticket) ([]string, error) {
	var out []string
	for i := range t.Doors {
		private, err := doorKey(t, i)
		if err != nil {
			return nil, err
		}
		public, err := private.Public()
		if err != nil {
			return nil, err
		}
		out = append(out, public.String())
	}
	return out, nil
}

// endedTickets are the rows that nobody needs any more: tickets past their
// grace, and their uses. They are removed when the next ticket is made, since
// nothing may be written for the mere passing of time.
func endedTickets(state *spec.State, now time.Time) []spec.Row {
	var rows []spec.Row
	for _, t := range state.Tickets {
		if now.After(t.ExpiresAt.Add(join.Grace)) {
			rows = append(rows, t)
		}
	}
	for _, u := range state.TicketUses {
		t, ok := state.Tickets[u.Ticket]
		// A use may arrive before its ticket: without one it goes when no
		// ticket can be that old.
		if now.After(u.At.Add(spec.LongestTicket+join.Grace)) || ok && now.After(t.ExpiresAt.Add(join.Grace)) {
			rows = append(rows, u)
		}
	}
	return rows
}

// ticketMembers are the machines that a holder may ask: this one first, then
// others that live.
func (m *member) ticketMembers() []join.Member {
	state, alive := m.store.State(), m.gossip.Alive()
	var out []join.Member
	for _, o := range state.Machines {
		endpoints := o.Endpoints
		if s := m.seenEndpoint(o.ID); s.IsValid() && !slices.Contains(endpoints, s) {
			endpoints = append(slices.Clone(endpoints), s)
		}
		if alive[o.ID] && len(endpoints) > 0 {
			out = append(out, join.Member{Machine: o.ID, PublicKey: o.PublicKey, Endpoints: endpoints})
		}
	}
	slices.SortFunc(out, func(a, b join.Member) int {
		self := func(x join.Member) int {
			if x.Machine == m.id.MachineID {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(self(a), self(b)), cmp.Compare(a.Machine, b.Machine))
	})
	return out[:min(len(out), ticketMembers)]
}

// seenEndpoint is where a peer's packets come from: what a NAT made of its
// address, which the peer itself cannot know.
func (m *member) seenEndpoint(machine string) (e netip.AddrPort) {
	status, err := m.mesh.Status()
	if err != nil {
		return e
	}
	for _, p := range status.Peers {
		if p.Machine == machine && p.State == mesh.PeerUp {
			return p.Endpoint
		}
	}
	return e
}

// admit decides about the holder of a ticket and writes its rows.
func (m *member) admit(ctx context.Context, text string, req *uncloudv1.AdmitRequest) (*uncloudv1.AdmitResponse, error) {
	ticket, err := join.Parse(text)
	if err != nil {
		return nil, err
	}
	if !m.isReady() {
		return nil, faults.New(faults.NotReady, "this member still catches up with the others").WithHint("try again in a moment")
	}
	wanted, err := admitWanted(req)
	if err != nil {
		return nil, err
	}
	var got join.Admission
	version, err := m.store.Update(ctx, func(tx *storeTx) error {
		got, err = join.Admit(tx.State(), ticket, wanted, time.Now(), pickSubnet)
		if err != nil || got.Again {
			return err
		}
		tx.Put(got.Machine, got.Use)
		m.tell(tx, "machine.joined", got.Machine.ID, got.Machine.Name+" joined with "+ticket.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.log.Info("machine admitted", "machine", got.Machine.ID, "name", got.Machine.Name, "ticket", ticket.ID)
	res := &uncloudv1.AdmitResponse{
		ClusterId: m.id.ClusterID, Network: m.id.Network.String(), Name: got.Machine.Name, Subnet: got.Machine.Subnet.String(),
		Site: version.Site.String(), Version: version.Seq,
	}
	for _, o := range m.store.State().Machines {
		if o.ID != got.Machine.ID {
			res.Members = append(res.Members, memberMessage(o))
		}
	}
	// The tunnel must be there before the new machine calls.
	return res, m.steerNetwork(ctx)
}

// report keeps the note of a ticket holder.
func (m *member) report(ctx context.Context, req *uncloudv1.ReportRequest) error {
	ticket, err := join.Parse(req.GetTicket())
	if err != nil {
		return err
	}
	if !m.isReady() {
		return faults.New(faults.NotReady, "this member still catches up with the others").WithHint("try again in a moment")
	}
	_, err = m.store.Update(ctx, func(tx *storeTx) error {
		row, changed, err := join.Note(tx.State(), ticket, req.GetMachineId(), req.GetName(), req.GetText(), time.Now())
		if err != nil || !changed {
			return err
		}
		m.log.Info("note of a ticket holder", "machine", req.GetMachineId(), "ticket", ticket.ID, "said", row.Notes[req.GetMachineId()])
		tx.Put(row)
		return nil
	})
	return err
}

func pickSubnet(network netip.Prefix, publicKey string, taken []netip.Prefix) (netip.Prefix, error) {
	key, err := mesh.ParseKey(publicKey)
	if err != nil {
		return netip.Prefix{}, faults.New(faults.Invalid, "the machine's key cannot be read: %w", err).
			WithHint("use the same version of uncloudd on all machines")
	}
	return mesh.PickSubnet(network, key, taken)
}

// What a machine may say of itself: each is kept by every member for ever.
const (
	mostEndpoints = 32
	mostLabels    = 64
	longestLabel  = 255
	longestWord   = 128 // version, system, architecture
)

// checkSize bounds what a ticket holder may write into the state of all.
func checkSize(req *uncloudv1.AdmitRequest) error {
	longest := max(len(req.GetVersion()), len(req.GetOs()), len(req.GetArch()), len(req.GetSigningKey()))
	label := 0
	for k, v := range req.GetLabels() {
		label = max(label, len(k), len(v))
	}
	for _, c := range []struct {
		what    string
		n, most int
	}{
		{"too many endpoints", len(req.GetEndpoints()), mostEndpoints},
		{"too many labels", len(req.GetLabels()), mostLabels},
		{"too long a label", label, longestLabel},
		{"too many roles", len(req.GetRoles()), len(allRoles)},
		{"too long a description", longest, longestWord},
	} {
		if c.n > c.most {
			return faults.New(faults.Invalid, "the machine that joins has %s: %d, and at most %d are let in", c.what, c.n, c.most).
				WithHint("see its configuration: %s", setting("labels, roles and endpoints", "labels, .roles and .network.endpoints"))
		}
	}
	return nil
}

func admitWanted(req *uncloudv1.AdmitRequest) (join.Request, error) {
	out := join.Request{
		MachineID: req.GetMachineId(), Name: req.GetName(), NameSuggested: req.GetNameSuggested(), PublicKey: req.GetPublicKey(),
		SigningKey: req.GetSigningKey(), Labels: req.GetLabels(), Version: req.GetVersion(), OS: req.GetOs(), Arch: req.GetArch(),
	}
	if _, err := mesh.ParseKey(out.PublicKey); err != nil || out.MachineID == "" || out.SigningKey == "" {
		return out, faults.New(faults.Invalid, "the request for admission is not complete").WithHint("use the same version of uncloudd on all machines")
	}
	if err := checkSize(req); err != nil {
		return out, err
	}
	for _, r := range req.GetRoles() {
		if !slices.Contains(allRoles, spec.Role(r)) {
			return out, faults.New(faults.Invalid, "there is no role %q: use ingress or worker", r).
				WithHint("see its configuration: %s", setting("roles", "roles"))
		}
		out.Roles = append(out.Roles, spec.Role(r))
	}
	for _, text := range req.GetEndpoints() {
		e, err := netip.ParseAddrPort(text)
		if err != nil {
			return out, faults.New(faults.Invalid, "%q is no endpoint", text).WithHint("write it as 203.0.113.5:51820")
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	return out, nil
}

func memberMessage(o spec.Machine) *uncloudv1.Member {
	msg := &uncloudv1.Member{MachineId: o.ID, Name: o.Name, PublicKey: o.PublicKey, Subnet: o.Subnet.String()}
	for _, e := range o.Endpoints {
		msg.Endpoints = append(msg.Endpoints, e.String())
	}
	return msg
}
