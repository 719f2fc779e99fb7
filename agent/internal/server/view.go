package server

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/spec"
)

// view shows one State to people, as the answering machine sees it.
type view struct {
	*spec.State
	member *Member
	alive  spec.Alive
	names  map[string]string // of machines
}

func newView(m *Member) view {
	state := m.State()
	return view{State: state, member: m, alive: m.Alive(), names: state.MachineNames()}
}

// stamp is t as a message; nil for the zero time, so that JSON shows null.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func (v view) machines() []*uncloudv1.Machine {
	out := make([]*uncloudv1.Machine, 0, len(v.Machines))
	for _, m := range v.Machines {
		out = append(out, v.machine(m))
	}
	slices.SortFunc(out, func(a, b *uncloudv1.Machine) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return out
}

func (v view) machine(m spec.Machine) *uncloudv1.Machine {
	out := &uncloudv1.Machine{
		Id: m.ID, Name: v.names[m.ID], State: "down", PublicKey: m.PublicKey, Labels: m.Labels, Schedulable: v.schedulable(m),
		Version: m.Version, Generation: m.Generation, Os: m.OS, Arch: m.Arch, JoinedAt: stamp(m.JoinedAt),
		NixosVersion: m.NixOS, System: m.System,
		ManagementAddress: v.member.ManagementAddress(m.PublicKey).String(),
	}
	if v.alive[m.ID] {
		out.State = "up"
	}
	if m.Subnet.IsValid() {
		out.Subnet, out.Address = m.Subnet.String(), m.Subnet.Addr().Next().String()
	}
	for _, e := range m.Endpoints {
		out.Endpoints = append(out.Endpoints, e.String())
	}
	for _, r := range m.Roles {
		out.Roles = append(out.Roles, string(r))
	}
	if rtt, ok := v.member.RTT(m.ID); ok {
		out.RttMs = float64(rtt.Microseconds()) / 1000
	}
	if m.ID == v.member.Self {
		out.Health = notes(v.member.Notes())
	}
	out.Health = append(out.Health, v.turnNote(m.ID)...)
	for _, text := range v.NotesOfTickets(m.ID, time.Now()) {
		out.Health = append(out.Health, &uncloudv1.HealthNote{Code: "ticket", Text: text})
	}
	return out
}

// schedulable tells whether a machine takes new replicas while it lives.
func (v view) schedulable(m spec.Machine) bool {
	worker := len(m.Roles) == 0 || slices.Contains(m.Roles, spec.RoleWorker)
	return m.Schedulable && worker && !v.Drained(m.ID)
}

func notes(in []Note) []*uncloudv1.HealthNote {
	out := make([]*uncloudv1.HealthNote, 0, len(in))
	for _, n := range in {
		out = append(out, n.Message())
	}
	return out
}

func (v view) services(project string) []*uncloudv1.Service {
	out := []*uncloudv1.Service{}
	for _, s := range v.Services {
		if project == "" || s.Project == project {
			out = append(out, v.service(s))
		}
	}
	slices.SortFunc(out, func(a, b *uncloudv1.Service) int {
		return cmp.Or(cmp.Compare(a.GetProject(), b.GetProject()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return out
}

func (v view) service(s spec.Service) *uncloudv1.Service {
	rev := v.Revisions[s.Revision].Spec
	out := &uncloudv1.Service{
		Id: s.ID, Project: s.Project, Name: s.Name, Mode: string(s.Mode), Revision: s.Revision, Replicas: int32(s.Replicas), //nolint:gosec // small
		Wanted: string(s.Wanted), Image: rev.Container.Image, CreatedAt: stamp(s.CreatedAt), Endpoints: v.endpoints(s, rev), Health: v.serviceNotes(s),
	}
	replicas := v.ReplicasOf(s.ID)
	for _, r := range replicas {
		if spec.Eligible(v.State, v.alive, r) {
			out.ReplicasHealthy++
		}
	}
	if s.Mode == spec.Global {
		out.Replicas = int32(len(replicas)) //nolint:gosec // small
	}
	return out
}

// endpoints are where a service answers: its routes that are served, and its
// host ports.
func (v view) endpoints(s spec.Service, rev spec.ServiceSpec) []string {
	out := []string{}
	served, _ := spec.Routes(v.State)
	for _, r := range served {
		if r.Service == s.ID {
			out = append(out, r.String())
		}
	}
	for _, p := range rev.Ports {
		if p.Mode == spec.HostPort {
			out = append(out, p.String())
		}
	}
	return out
}

func (v view) serviceNotes(s spec.Service) []*uncloudv1.HealthNote {
	var out []*uncloudv1.HealthNote
	_, conflicts := spec.Routes(v.State)
	for _, c := range conflicts {
		if c.Route.Service == s.ID {
			out = append(out, &uncloudv1.HealthNote{Code: "route-taken", Text: c.Text()})
		}
	}
	if v.NeverRan()[s.ID] {
		out = append(out, &uncloudv1.HealthNote{Code: "never-ran",
			Text: "its first deploy failed here; it is forgotten when every machine is up and none runs it"})
	}
	if lost := v.superseded(s); lost != "" {
		out = append(out, &uncloudv1.HealthNote{Code: "superseded", Text: "revision " + lost + " was superseded by " + s.Revision})
	}
	return out
}

// superseded is the revision of the last rollout that gave way to another
// revision, until a rollout of the service is done after it: then the service is
// where it was to go, and the rest is history.
func (v view) superseded(s spec.Service) (revision string) {
	var lost, done time.Time
	for _, r := range v.Rollouts {
		switch {
		case r.Service != s.ID:
		case r.Stage == spec.RolloutDone && r.EndedAt.After(done):
			done = r.EndedAt
		case r.Stage == spec.RolloutSuperseded && r.To != s.Revision && r.EndedAt.After(lost):
			revision, lost = r.To, r.EndedAt
		}
	}
	if !lost.After(done) {
		return ""
	}
	return revision
}

// inspectService is a service with everything that is known of it.
func (v view) inspectService(s spec.Service) *uncloudv1.Service {
	out := v.service(s)
	out.SpecJson = string(spec.Canonical(v.Revisions[s.Revision].Spec))
	for _, r := range v.ReplicasOf(s.ID) {
		out.ReplicaList = append(out.ReplicaList, v.replica(r))
	}
	out.Rollouts = v.rollouts(s.ID)
	return out
}

// rollouts are a service's rollouts, the newest first.
func (v view) rollouts(service string) []*uncloudv1.Rollout {
	var found []spec.Rollout
	for _, r := range v.Rollouts {
		if r.Service == service {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b spec.Rollout) int {
		return cmp.Or(b.StartedAt.Compare(a.StartedAt), cmp.Compare(a.ID, b.ID))
	})
	out := make([]*uncloudv1.Rollout, 0, len(found))
	for _, r := range found {
		out = append(out, &uncloudv1.Rollout{
			Id: r.ID, Service: r.Service, FromRevision: r.From, ToRevision: r.To, Stage: string(r.Stage),
			Driver: v.MachineName(r.Driver), Error: r.Error, StartedAt: stamp(r.StartedAt), EndedAt: stamp(r.EndedAt),
		})
	}
	return out
}

// replica shows a replica by what its machine said last. Where the machine is
// down nobody knows, and that is what is shown.
func (v view) replica(r spec.Replica) *uncloudv1.Replica {
	svc, c := v.Services[r.Service], v.Containers[r.ID]
	out := &uncloudv1.Replica{
		Id: r.ID, Name: r.Name, Project: svc.Project, Service: svc.Name, ServiceId: r.Service, Revision: r.Revision,
		Machine: v.MachineName(r.Machine), MachineId: r.Machine, Wanted: string(r.Wanted), State: string(spec.ContainerPending),
		Image: v.Revisions[r.Revision].Spec.Container.Image, CreatedAt: stamp(r.CreatedAt),
	}
	if c.Machine == r.Machine {
		out.State, out.Health, out.ContainerId = string(c.State), string(c.Health), c.EngineID
		out.ExitCode, out.Error, out.Since = int32(c.ExitCode), c.Error, stamp(c.Since) //nolint:gosec // small
		if c.Address.IsValid() {
			out.Address = c.Address.String()
		}
	}
	if !v.alive[r.Machine] {
		out.State, out.Health = "unknown", ""
	}
	return out
}

// replicas are those that fit the filters; empty filters fit all.
func (v view) replicas(project, service, machine string) []*uncloudv1.Replica {
	out := []*uncloudv1.Replica{}
	for _, r := range v.Replicas {
		svc := v.Services[r.Service]
		if (project == "" || svc.Project == project) && (service == "" || r.Service == service) && (machine == "" || r.Machine == machine) {
			out = append(out, v.replica(r))
		}
	}
	slices.SortFunc(out, func(a, b *uncloudv1.Replica) int {
		return cmp.Or(cmp.Compare(a.GetProject(), b.GetProject()), cmp.Compare(a.GetService(), b.GetService()),
			cmp.Compare(a.GetMachine(), b.GetMachine()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return out
}

func (v view) volumes(project string) []*uncloudv1.Volume {
	out := []*uncloudv1.Volume{}
	for _, vol := range v.Volumes {
		if project == "" || vol.Project == project {
			out = append(out, v.volume(vol))
		}
	}
	slices.SortFunc(out, func(a, b *uncloudv1.Volume) int {
		return cmp.Or(cmp.Compare(a.GetProject(), b.GetProject()), cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetMachine(), b.GetMachine()))
	})
	return out
}

func (v view) volume(vol spec.Volume) *uncloudv1.Volume {
	out := &uncloudv1.Volume{
		Id: vol.ID, Project: vol.Project, Name: vol.Name, Machine: v.MachineName(vol.Machine), Driver: cmp.Or(vol.Spec.Driver, "local"),
		CreatedAt: stamp(vol.CreatedAt), UsedBy: []string{},
	}
	for _, r := range v.Replicas {
		if r.Machine == vol.Machine && v.Services[r.Service].Project == vol.Project && usesVolume(v.Revisions[r.Revision].Spec, vol.Name) {
			out.UsedBy = append(out.UsedBy, r.Name)
		}
	}
	slices.Sort(out.UsedBy)
	return out
}

func usesVolume(s spec.ServiceSpec, name string) bool {
	return slices.ContainsFunc(s.Container.Mounts, func(m spec.Mount) bool { return m.Type == spec.MountVolume && m.Source == name })
}

func (v view) events(limit int) []*uncloudv1.Event {
	all := make([]spec.Event, 0, len(v.Events))
	for _, e := range v.Events {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b spec.Event) int { return cmp.Or(b.At.Compare(a.At), strings.Compare(a.ID, b.ID)) })
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	out := make([]*uncloudv1.Event, 0, len(all))
	for _, e := range all {
		out = append(out, &uncloudv1.Event{At: stamp(e.At), Machine: v.MachineName(e.Machine), Kind: e.Kind, Subject: e.Subject, Text: e.Text})
	}
	return out
}
