package server

import (
	"context"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// clusterService answers for the whole cluster from this machine's copy of the state.
type clusterService struct{ *Server }

const (
	defaultTicketTime = time.Hour
	maxTicketUses     = 1000
)

func (s clusterService) view() (view, error) {
	m, err := s.host.Member()
	if err != nil {
		return view{}, err
	}
	return newView(m), nil
}

func (s clusterService) ListMachines(ctx context.Context, _ *connect.Request[uncloudv1.ListMachinesRequest]) (*connect.Response[uncloudv1.ListMachinesResponse], error) {
	v, err := s.view()
	if err != nil {
		return nil, err
	}
	machines := v.machines()
	s.suffering(ctx, v, machines...)
	return connect.NewResponse(&uncloudv1.ListMachinesResponse{Machines: machines, AnsweredBy: v.member.Self}), nil
}

func (s clusterService) InspectMachine(ctx context.Context, req *connect.Request[uncloudv1.InspectMachineRequest]) (*connect.Response[uncloudv1.Machine], error) {
	v, err := s.view()
	if err != nil {
		return nil, err
	}
	m, err := findMachine(v.State, req.Msg.GetMachine())
	if err != nil {
		return nil, err
	}
	machine := v.machine(v.Machines[m.ID])
	s.suffering(ctx, v, machine)
	return connect.NewResponse(machine), nil
}

func (s clusterService) RenameMachine(ctx context.Context, req *connect.Request[uncloudv1.RenameMachineRequest]) (*connect.Response[uncloudv1.Machine], error) {
	name := req.Msg.GetName()
	if err := spec.CheckMachineName(name); err != nil {
		return nil, faults.New(faults.Invalid, "%w", err).WithHint("choose another: uc machine rename %s NAME", req.Msg.GetMachine())
	}
	return s.changeMachine(ctx, req.Msg.GetMachine(), func(state *spec.State, m *spec.Machine) error {
		if other, ok := state.MachineByRef(name); ok && other.ID != m.ID {
			return faults.New(faults.Conflict, "a machine named %s is a member already", name).WithHint("see the names: uc machine ls")
		}
		m.Name = name
		return nil
	})
}

func (s clusterService) LabelMachine(ctx context.Context, req *connect.Request[uncloudv1.LabelMachineRequest]) (*connect.Response[uncloudv1.Machine], error) {
	return s.changeMachine(ctx, req.Msg.GetMachine(), func(_ *spec.State, m *spec.Machine) error {
		labels := maps.Clone(m.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		for _, k := range req.Msg.GetRemove() {
			delete(labels, k)
		}
		maps.Copy(labels, req.Msg.GetSet())
		m.Labels = labels
		return changeRoles(m, req.Msg.GetAddRoles(), req.Msg.GetRemoveRoles())
	})
}

func changeRoles(m *spec.Machine, add, remove []string) error {
	roles := slices.Clone(m.Roles)
	for _, r := range slices.Concat(add, remove) {
		if role := spec.Role(r); role != spec.RoleIngress && role != spec.RoleWorker {
			return faults.New(faults.Invalid, "there is no role %q", r).WithHint("roles are: ingress, worker")
		}
	}
	for _, r := range add {
		if !slices.Contains(roles, spec.Role(r)) {
			roles = append(roles, spec.Role(r))
		}
	}
	roles = slices.DeleteFunc(roles, func(r spec.Role) bool { return slices.Contains(remove, string(r)) })
	slices.Sort(roles)
	m.Roles = roles
	return nil
}

// changeMachine applies a change to the row of the machine that ref names and
// shows the result.
func (s clusterService) changeMachine(ctx context.Context, ref string, change func(*spec.State, *spec.Machine) error) (*connect.Response[uncloudv1.Machine], error) {
	member, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	var id string
	_, err = member.Update(ctx, func(tx Tx) error {
		found, err := findMachine(tx.State(), ref)
		if err != nil {
			return err
		}
		id = found.ID
		m := tx.State().Machines[id]
		if err := change(tx.State(), &m); err != nil {
			return err
		}
		tx.Put(m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	v := newView(member)
	return connect.NewResponse(v.machine(v.Machines[id])), nil
}

func (s clusterService) CreateTicket(ctx context.Context, req *connect.Request[uncloudv1.CreateTicketRequest]) (*connect.Response[uncloudv1.CreateTicketResponse], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	valid, uses := time.Duration(req.Msg.GetValidSeconds())*time.Second, int(req.Msg.GetUses())
	if valid == 0 {
		valid = defaultTicketTime
	}
	if uses == 0 {
		uses = 1
	}
	if valid < 0 || valid > spec.LongestTicket || uses < 0 || uses > maxTicketUses {
		return nil, faults.New(faults.Invalid, "a ticket is valid for at most %d days and %d uses", spec.LongestTicket/(24*time.Hour), maxTicketUses).
			WithHint("such as: uc machine ticket --valid 24h --uses 3")
	}
	id, text, expires, err := m.IssueTicket(ctx, valid, uses)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&uncloudv1.CreateTicketResponse{Id: id, Ticket: text, ExpiresAt: stamp(expires)}), nil
}

func (s clusterService) ListServices(_ context.Context, req *connect.Request[uncloudv1.ListServicesRequest]) (*connect.Response[uncloudv1.ListServicesResponse], error) {
	v, err := s.view()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&uncloudv1.ListServicesResponse{Services: v.services(req.Msg.GetProject())}), nil
}

func (s clusterService) InspectService(_ context.Context, req *connect.Request[uncloudv1.InspectServiceRequest]) (*connect.Response[uncloudv1.Service], error) {
	v, err := s.view()
	if err != nil {
		return nil, err
	}
	svc, err := findService(v.State, req.Msg.GetService())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(v.inspectService(svc)), nil
}

func (s clusterService) ListReplicas(_ context.Context, req *connect.Request[uncloudv1.ListReplicasRequest]) (*connect.Response[uncloudv1.ListReplicasResponse], error) {
	v, err := s.view()
	if err != nil {
		return nil, err
	}
	var service, machine string
	if ref := req.Msg.GetService(); ref != "" {
		svc, err := findService(v.State, ref)
		if err != nil {
			return nil, err
		}
		service = svc.ID
	}
	if ref := req.Msg.GetMachine(); ref != "" {
		m, err := findMachine(v.State, ref)
		if err != nil {
			return nil, err
		}
		machine = m.ID
	}
	return connect.NewResponse(&uncloudv1.ListReplicasResponse{Replicas: v.replicas(req.Msg.GetProject(), service, machine)}), nil
}

func (s clusterService) ListVolumes(_ context.Context, req *connect.Request[uncloudv1.ListVolumesRequest]) (*connect.Response[uncloudv1.ListVolumesResponse], error) {
	v, err := s.view()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&uncloudv1.ListVolumesResponse{Volumes: v.volumes(req.Msg.GetProject())}), nil
}

func (s clusterService) ListEvents(_ context.Context, req *connect.Request[uncloudv1.ListEventsRequest]) (*connect.Response[uncloudv1.ListEventsResponse], error) {
	v, err := s.view()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&uncloudv1.ListEventsResponse{Events: v.events(int(req.Msg.GetLimit()))}), nil
}
