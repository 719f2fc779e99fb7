package agent

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"uncloud/agent/internal/firewall"
	"uncloud/agent/internal/join"
	"uncloud/agent/internal/mesh"
	"uncloud/internal/spec"
)

func publicKey(t *testing.T) string {
	t.Helper()
	id, err := newIdentity()
	must(t, err)
	key, _, err := id.publicKeys()
	must(t, err)
	return key.String()
}

// The watchdog asks every few seconds whether steering lives. That it does is
// said, and is no reason to steer.
func TestWhoAsksSteeringIsAnsweredAndNothingElse(t *testing.T) {
	m := &member{
		ping: make(chan chan struct{}), again: make(chan struct{}, 1), ended: make(chan struct{}), mesh: newMesh(mesh.Options{Host: mesh.NewMemoryHost(mesh.Kernel)}),
	}
	steered := make(chan error, 1)
	go func() { steered <- m.awaitCause(t.Context(), wakes{}) }()
	for range 3 {
		if !m.answers(t.Context(), time.Minute) {
			t.Fatal("it does not answer")
		}
	}
	select {
	case <-steered:
		t.Fatal("the question was a cause")
	default:
	}
	m.steerAgain()
	must(t, <-steered)
}

// What reconcile follows wakes it: also a row of what runs, which another
// machine may have written over.
func TestReconcileIsWokenByWhatItReads(t *testing.T) {
	m, _ := withContainers(t)
	wake, cancel := replicaStore{m}.Subscribe()
	defer cancel()
	for _, row := range []spec.Row{
		spec.Container{Replica: "rep_a", Machine: "mch_other"}, spec.Replica{ID: "rep_a", Machine: "mch_self"}, spec.Revision{ID: "rev_a"},
		spec.Service{ID: "svc_a"}, spec.Machine{ID: "mch_self"},
	} {
		_, err := m.store.Update(t.Context(), func(tx *storeTx) error {
			tx.Put(row)
			return nil
		})
		must(t, err)
		select {
		case <-wake:
		case <-time.After(time.Minute):
			t.Fatalf("%s wakes nobody", row.Table())
		}
	}
}

func TestEndedTicketsAreAnsweredForAWhile(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ticket := func(id string, ended time.Duration) spec.Ticket {
		return spec.Ticket{ID: id, PublicKeys: []string{publicKey(t), publicKey(t)}, ExpiresAt: now.Add(-ended)}
	}
	state := &spec.State{
		Tickets: map[string]spec.Ticket{
			"tkt_good": ticket("tkt_good", -time.Hour), "tkt_ended": ticket("tkt_ended", time.Hour), "tkt_gone": ticket("tkt_gone", join.Grace+time.Second),
			"tkt_odd": {ID: "tkt_odd", PublicKeys: []string{"no key"}, ExpiresAt: now},
		},
		TicketUses: map[string]spec.TicketUse{
			"a": {ID: "a", Ticket: "tkt_good", At: now}, "b": {ID: "b", Ticket: "tkt_gone"}, "c": {ID: "c", Ticket: "tkt_early", At: now}, "d": {ID: "d", Ticket: "tkt_never", At: now.Add(-100 * 24 * time.Hour)},
		},
	}
	if got := len(ticketKeys(state, now)); got != 4 {
		t.Errorf("%d keys are answered, want the two doors of two tickets", got)
	}
	var keys []string
	for _, row := range endedTickets(state, now) {
		keys = append(keys, row.Key())
	}
	slices.Sort(keys)
	if want := []string{"b", "d", "tkt_gone"}; !slices.Equal(keys, want) {
		t.Errorf("rows %q are to be removed, want %q", keys, want)
	}
}

func TestUntilTheStoreArrivesWhatTheAdmissionSaidIsBelieved(t *testing.T) {
	network := netip.MustParsePrefix("10.210.0.0/16")
	m := &member{id: Identity{
		MachineID: "mch_self", Network: network,
		Self: spec.Machine{ID: "mch_self", Name: "self"}, Members: []spec.Machine{{ID: "mch_1", Name: "as told"}, {ID: "mch_2"}},
	}}
	partly := &spec.State{Machines: map[string]spec.Machine{"mch_1": {ID: "mch_1", Name: "as stored"}}}
	got := m.membersOf(partly)
	if len(got.Machines) != 3 || got.Machines["mch_1"].Name != "as stored" || got.Cluster.Network != network {
		t.Errorf("%+v", got)
	}
	if len(partly.Machines) != 1 {
		t.Error("the store's own state was changed")
	}
	if got := m.membersOf(&spec.State{}); len(got.Machines) != 3 {
		t.Errorf("with an empty store: %+v", got.Machines)
	}
	whole := &spec.State{Machines: map[string]spec.Machine{"mch_self": {ID: "mch_self"}}}
	if m.membersOf(whole) != whole {
		t.Error("the store is not believed")
	}
}

func TestThePolicyFollowsRolesAndTickets(t *testing.T) {
	key, subnet := publicKey(t), netip.MustParsePrefix("10.210.7.0/24")
	m := &member{cfg: Config{ListenPort: 4000}, id: Identity{MachineID: "mch_self", Network: netip.MustParsePrefix("10.210.0.0/16")}}
	state := &spec.State{
		Machines: map[string]spec.Machine{"mch_self": {ID: "mch_self", PublicKey: key, Subnet: subnet, Roles: []spec.Role{spec.RoleWorker}}},
		Tickets:  map[string]spec.Ticket{"t": {ID: "t", PublicKeys: []string{publicKey(t)}, ExpiresAt: time.Now().Add(time.Hour)}},
	}
	p := m.policy(state)
	if p.Ingress || p.Subnet != subnet || p.WireGuardPort != 4000 || len(p.Members) != 1 || len(p.TicketHolders) != 1 {
		t.Errorf("%+v", p)
	}
	self := state.Machines["mch_self"]
	self.Roles = []spec.Role{spec.RoleIngress}
	state.Machines["mch_self"] = self
	if p := m.policy(state); !p.Ingress || slices.Contains(p.IngressPorts, firewall.Port{Number: 80, Protocol: "tcp"}) {
		t.Errorf("%+v", p)
	}
}

func TestHostPrefix(t *testing.T) {
	for text, want := range map[string]string{
		"": "invalid Prefix", "0.0.0.0": "invalid Prefix", "::": "invalid Prefix", "192.0.2.5": "192.0.2.5/32", "192.0.2.0/24": "192.0.2.0/24",
		"2001:db8::5": "2001:db8::5/128", "nonsense": "invalid Prefix",
	} {
		if got := hostPrefix(text).String(); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func TestAMachineWithABadKeyHasNoManagementAddress(t *testing.T) {
	if managementOf("nonsense").IsValid() {
		t.Error("it has")
	}
	key := publicKey(t)
	parsed, err := mesh.ParseKey(key)
	must(t, err)
	if managementOf(key) != mesh.ManagementAddress(parsed) {
		t.Error("another address than the mesh's")
	}
}
