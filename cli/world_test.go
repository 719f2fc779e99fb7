package cli_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/fakeapi"
	"uncloud/internal/faults"
)

// world is a cluster of three machines that run a shop, as its API tells it.
// Scripts change it by orders.
type world struct {
	mu     sync.Mutex
	set    map[string]string // orders in force
	calls  []string          // what was asked for, for scripts to look at
	events map[string]chan struct{}
}

func newWorld() *world { return &world{set: map[string]string{}, events: map[string]chan struct{}{}} }

// order is one line "api WORD ARGUMENT..." of a script.
func (w *world) order(word string, args []string, callsFile string) error {
	switch word {
	case "await": // until something has happened
		select {
		case <-w.event(args[0]):
			return nil
		case <-time.After(20 * time.Second):
			return fmt.Errorf("%s did not happen", args[0])
		}
	case "calls": // writes what was asked for to the file api-calls
		w.mu.Lock()
		defer w.mu.Unlock()
		text := strings.Join(w.calls, "\n") + "\n"
		w.calls = nil
		return os.WriteFile(callsFile, []byte(text), 0o600)
	}
	w.tell(word, strings.Join(args, " "))
	w.happens(word)
	return nil
}

// tell puts an order in force.
func (w *world) tell(word, value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set[word] = value
}

func (w *world) is(word string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.set[word]
	return ok
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, fmt.Sprintf(format, args...))
}

// event is a channel that is closed when it happens.
func (w *world) event(name string) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.events[name] == nil {
		w.events[name] = make(chan struct{})
	}
	return w.events[name]
}

// happens may be called again: it has happened then already.
func (w *world) happens(name string) {
	c := w.event(name)
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-c:
	default:
		close(c)
	}
}

func (w *world) api() *fakeapi.API {
	a := &fakeapi.API{
		ListMachines: w.listMachines, InspectMachine: w.inspectMachine, RenameMachine: w.renameMachine, LabelMachine: w.labelMachine,
		RemoveMachine: w.removeMachine, CreateTicket: w.createTicket, ListTickets: w.listTickets, RevokeTicket: w.revokeTicket,
		ListServices: w.listServices, InspectService: w.inspectService, ListReplicas: w.listReplicas, ListVolumes: w.listVolumes, ListEvents: w.listEvents,
		PlanDeploy: w.planDeploy, Deploy: w.deploy, Scale: w.scale, Rollback: w.rollback,
		StartServices: w.change("start"), StopServices: w.change("stop"), RemoveServices: w.change("remove"), PlanRemoval: w.planRemoval, RemoveVolumes: w.removeVolumes,
		Info: w.info, Init: w.init, WireGuard: w.wireGuard, Authority: w.authority, StoreStatus: w.storeStatus, CheckStore: w.checkStore, BackupStore: w.backupStore, RestoreStore: w.restoreStore, Logs: w.logs, Exec: w.exec,
		ListImages: w.listImages, HasBlobs: w.hasBlobs, PushImage: w.pushImage,
	}
	w.upgrades(a)
	return a
}

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(-d)) }

func (w *world) machines() []*uncloudv1.Machine {
	second, state := "up", "up"
	if w.is("m2-down") {
		second = "down"
	}
	if w.is("m3-down") {
		state = "down"
	}
	generation := ""
	if w.is("m3-nixos") {
		generation = "7 (booted)"
	}
	return []*uncloudv1.Machine{
		{
			Id: "mch_one", Name: "m1", State: "up", Address: "10.210.19.1", Subnet: "10.210.19.0/24", ManagementAddress: "fd00::1", PublicKey: "a2V5MQ==",
			Endpoints: []string{"203.0.113.1:51820"}, Roles: []string{"ingress", "worker"}, Labels: map[string]string{"zone": "eu", "disk": "ssd"},
			Schedulable: true, Version: "0.1.0", Generation: "12 (booted)", Os: "nixos 26.05", Arch: "arm64", JoinedAt: ago(72 * time.Hour),
		},
		{
			Id: "mch_two", Name: "m2", State: second, Address: "10.210.84.1", Subnet: "10.210.84.0/24", Roles: []string{"worker"}, Schedulable: true, Version: "0.1.0",
			RttMs: 12.34, JoinedAt: ago(time.Hour),
		},
		{
			Id: "mch_three", Name: "m3", State: state, Address: "10.210.7.1", Subnet: "10.210.7.0/24", Roles: []string{"worker"}, Version: "0.0.9", Generation: generation,
			JoinedAt: ago(time.Minute), Health: []*uncloudv1.HealthNote{{Code: "disk-full", Text: "4 % of the disk is left", Hint: "podman image prune"}},
		},
	}
}

func (w *world) listMachines(*uncloudv1.ListMachinesRequest) (*uncloudv1.ListMachinesResponse, error) {
	return &uncloudv1.ListMachinesResponse{Machines: w.machines(), AnsweredBy: "mch_one"}, nil
}

func (w *world) machine(name string) (*uncloudv1.Machine, error) {
	for _, m := range w.machines() {
		if name == m.GetName() || name == m.GetId() || (name == "" && m.GetName() == "m1") {
			return m, nil
		}
	}
	return nil, faults.New(faults.NotFound, "there is no machine %q", name).WithHint("machines are: m1, m2, m3")
}

// reach is machine for one that has to answer.
func (w *world) reach(name string) (string, error) {
	m, err := w.machine(name)
	if err != nil {
		return "", err
	}
	if m.GetState() == "down" {
		return "", faults.New(faults.MachineDown, "machine %s is down", m.GetName()).WithHint("see what the others know of it: uc machine ls")
	}
	return m.GetName(), nil
}

func (w *world) inspectMachine(r *uncloudv1.InspectMachineRequest) (*uncloudv1.Machine, error) {
	return w.machine(r.GetMachine())
}

func (w *world) renameMachine(r *uncloudv1.RenameMachineRequest) (*uncloudv1.Machine, error) {
	if r.GetName() == "m2" {
		return nil, faults.New(faults.Conflict, "a machine named m2 is a member already").WithHint("see the names: uc machine ls")
	}
	m, err := w.machine(r.GetMachine())
	if err == nil {
		m.Name = r.GetName()
	}
	return m, err
}

func (w *world) labelMachine(r *uncloudv1.LabelMachineRequest) (*uncloudv1.Machine, error) {
	m, err := w.machine(r.GetMachine())
	if err != nil {
		return nil, err
	}
	for key, value := range r.GetSet() {
		m.Labels[key] = value
	}
	for _, key := range r.GetRemove() {
		delete(m.Labels, key)
	}
	m.Roles = slices.DeleteFunc(append(m.Roles, r.GetAddRoles()...), func(role string) bool { return slices.Contains(r.GetRemoveRoles(), role) })
	return m, nil
}

func (w *world) removeMachine(_ context.Context, r *uncloudv1.RemoveMachineRequest, tell fakeapi.Tell) error {
	m, err := w.machine(r.GetMachine())
	if err != nil {
		return err
	}
	w.note("remove %s force=%t", m.GetName(), r.GetForce())
	step := &uncloudv1.Step{Kind: "move", Service: "db", Replica: "db-9z8y", Text: "move db-9z8y to m1"}
	return tellAll(tell, &uncloudv1.Progress{Kind: "step-start", Step: step}, &uncloudv1.Progress{Kind: "step-done", Step: step},
		&uncloudv1.Progress{Kind: "done", Done: true})
}

func tellAll(tell fakeapi.Tell, messages ...*uncloudv1.Progress) error {
	for _, m := range messages {
		if err := tell(m); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) createTicket(r *uncloudv1.CreateTicketRequest) (*uncloudv1.CreateTicketResponse, error) {
	w.note("ticket valid=%d uses=%d", r.GetValidSeconds(), r.GetUses())
	return &uncloudv1.CreateTicketResponse{
		Id: "tkt_abc", Ticket: "uncloud-ticket-v1 AAAA\n",
		ExpiresAt: timestamppb.New(noon.Add(time.Duration(r.GetValidSeconds()) * time.Second)),
	}, nil
}

func (w *world) info(machine string) (*uncloudv1.InfoResponse, error) {
	name, err := w.reach(machine)
	return &uncloudv1.InfoResponse{Version: "0.1.0", MachineId: "mch_one", Name: name, ClusterId: "cls_x", Phase: "ready", Address: "10.210.19.1"}, err
}

func (w *world) init(r *uncloudv1.InitRequest) (*uncloudv1.InfoResponse, error) {
	if !w.is("new") {
		return nil, faults.New(faults.IsMember, "this machine is a member of a cluster already").WithHint("to leave it: uncloudd reset")
	}
	w.note("init name=%s network=%s domain=%s endpoints=%s", r.GetName(), r.GetNetwork(), r.GetDomain(), strings.Join(r.GetEndpoints(), ","))
	return &uncloudv1.InfoResponse{ClusterId: "cls_x", Name: r.GetName(), Address: "10.210.19.1", Phase: "ready"}, nil
}

func (w *world) authority(machine string) (*uncloudv1.AuthorityResponse, error) {
	name, err := w.reach(machine)
	return &uncloudv1.AuthorityResponse{Pem: "-----BEGIN CERTIFICATE-----\nroot of " + name + "\n-----END CERTIFICATE-----\n"}, err
}

func (w *world) wireGuard(machine string) (*uncloudv1.WireGuardResponse, error) {
	name, err := w.reach(machine)
	return &uncloudv1.WireGuardResponse{
		Interface: "uncloud", PublicKey: "key of " + name, Port: 51820, Kind: "kernel",
		Peers: []*uncloudv1.WireGuardPeer{
			{Machine: "m2", PublicKey: "a2V5Mg==", Endpoint: "198.51.100.2:51820", State: "up", LastHandshake: ago(40 * time.Second), Received: 1234567, Sent: 890, AllowedIps: []string{"fd00::2/128", "10.210.84.0/24"}, RttMs: 12.34},
			{Machine: "m3", State: "down"},
		},
	}, err
}

func (w *world) storeStatus(machine string) (*uncloudv1.StoreStatusResponse, error) {
	name, err := w.reach(machine)
	digest := "5f1c"
	if w.is("stores-differ") && name == "m2" {
		digest = "77aa"
	}
	own, missing := uint64(12), uint64(2)
	if w.is("own-changes") && !w.is("shared") && name == "m1" {
		own += 3
	}
	if w.is("stores-whole") {
		missing = 0
	}
	return &uncloudv1.StoreStatusResponse{
		Site: "site-" + name, Digest: digest, Size: 40960, Tombstones: 4, Spoilt: 1,
		Sites: []*uncloudv1.SiteStatus{{Site: "site-m1", Head: own}, {Site: "site-m2", Head: 7, Missing: missing}},
		Peers: []*uncloudv1.PeerStatus{{Machine: "m2", Connected: true, LastSync: ago(5 * time.Second)}, {Machine: "m3", Queued: 3, Missing: 2, Error: "connection refused"}},
	}, err
}
