package server

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

type progressStream = connect.ServerStream[uncloudv1.Progress]

func (s clusterService) PlanDeploy(ctx context.Context, req *connect.Request[uncloudv1.DeployRequest]) (*connect.Response[uncloudv1.Plan], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	opts, err := deployOptions(req.Msg)
	if err != nil {
		return nil, err
	}
	p, err := m.Rollouts.PlanDeploy(ctx, opts)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(planMessage(m.State(), p)), nil
}

func (s clusterService) Deploy(ctx context.Context, req *connect.Request[uncloudv1.DeployRequest], stream *progressStream) error {
	opts, err := deployOptions(req.Msg)
	if err != nil {
		return err
	}
	return s.drive(stream, func(m *Member, tell func(Progress)) error { return m.Rollouts.Deploy(ctx, opts, tell) })
}

func (s clusterService) Scale(ctx context.Context, req *connect.Request[uncloudv1.ScaleRequest], stream *progressStream) error {
	return s.drive(stream, func(m *Member, tell func(Progress)) error {
		svc, err := findService(m.State(), req.Msg.GetService())
		if err != nil {
			return err
		}
		return m.Rollouts.Scale(ctx, svc.ID, int(req.Msg.GetReplicas()), req.Msg.GetDryRun(), req.Msg.GetAgreed(), tell)
	})
}

func (s clusterService) StartServices(ctx context.Context, req *connect.Request[uncloudv1.ServicesRequest], stream *progressStream) error {
	return s.driveServices(stream, req.Msg, func(m *Member, ids []string, tell func(Progress)) error {
		return m.Rollouts.Start(ctx, ids, tell)
	})
}

func (s clusterService) StopServices(ctx context.Context, req *connect.Request[uncloudv1.ServicesRequest], stream *progressStream) error {
	return s.driveServices(stream, req.Msg, func(m *Member, ids []string, tell func(Progress)) error {
		return m.Rollouts.Stop(ctx, ids, tell)
	})
}

func (s clusterService) PlanRemoval(_ context.Context, req *connect.Request[uncloudv1.ServicesRequest]) (*connect.Response[uncloudv1.Plan], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	ids, err := namedServices(m.State(), req.Msg)
	if err != nil {
		return nil, err
	}
	p, err := m.Rollouts.PlanRemoval(ids, req.Msg.GetVolumes())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(planMessage(m.State(), p)), nil
}

func (s clusterService) RemoveServices(ctx context.Context, req *connect.Request[uncloudv1.ServicesRequest], stream *progressStream) error {
	return s.driveServices(stream, req.Msg, func(m *Member, ids []string, tell func(Progress)) error {
		return m.Rollouts.Remove(ctx, ids, req.Msg.GetVolumes(), req.Msg.GetAgreed(), tell)
	})
}

func (s clusterService) Rollback(ctx context.Context, req *connect.Request[uncloudv1.RollbackRequest], stream *progressStream) error {
	return s.drive(stream, func(m *Member, tell func(Progress)) error {
		svc, err := findService(m.State(), req.Msg.GetService())
		if err != nil {
			return err
		}
		return m.Rollouts.Rollback(ctx, svc.ID, req.Msg.GetRevision(), req.Msg.GetDryRun(), req.Msg.GetAgreed(), tell)
	})
}

func (s clusterService) RemoveVolumes(ctx context.Context, req *connect.Request[uncloudv1.RemoveVolumesRequest], stream *progressStream) error {
	return s.drive(stream, func(m *Member, tell func(Progress)) error {
		if len(req.Msg.GetVolumes()) == 0 {
			return faults.New(faults.Invalid, "no volume was named").WithHint("see what there is: uc volume ls")
		}
		return m.Rollouts.RemoveVolumes(ctx, req.Msg.GetVolumes(), tell)
	})
}

// driveServices is drive for calls that name services.
func (s clusterService) driveServices(stream *progressStream, msg *uncloudv1.ServicesRequest, do func(*Member, []string, func(Progress)) error) error {
	return s.drive(stream, func(m *Member, tell func(Progress)) error {
		ids, err := namedServices(m.State(), msg)
		if err != nil {
			return err
		}
		return do(m, ids, tell)
	})
}

// namedServices are the ids of the services that a request names: all are found
// before anything is done to the first.
func namedServices(state *spec.State, msg *uncloudv1.ServicesRequest) ([]string, error) {
	var ids []string
	for _, ref := range msg.GetServices() {
		svc, err := findService(state, ref)
		if err != nil {
			return nil, err
		}
		ids = append(ids, svc.ID)
	}
	if len(ids) == 0 {
		return nil, faults.New(faults.Invalid, "no service was named").WithHint("see what there is: uc ls")
	}
	return ids, nil
}

// drive runs a call that tells its progress. That nobody listens any more
// shows as the end of the call's context, so sends may fail in silence.
func (s clusterService) drive(stream *progressStream, do func(*Member, func(Progress)) error) error {
	m, err := s.host.Member()
	if err != nil {
		return err
	}
	var sending sync.Mutex
	send := func(p *uncloudv1.Progress) error {
		sending.Lock()
		defer sending.Unlock()
		return stream.Send(p)
	}
	err = do(m, func(p Progress) {
		send(progressMessage(m.State(), p)) //nolint:errcheck,gosec // see above
	})
	if err != nil {
		return err
	}
	return send(&uncloudv1.Progress{Kind: "done", Done: true})
}

func deployOptions(msg *uncloudv1.DeployRequest) (DeployOptions, error) {
	opts := DeployOptions{
		Project: msg.GetProject(), Recreate: msg.GetRecreate(), Prune: msg.GetPrune(), SkipHealth: msg.GetSkipHealth(), Agreed: msg.GetAgreed(),
	}
	for _, text := range msg.GetSpecJson() {
		var sp spec.ServiceSpec
		dec := json.NewDecoder(bytes.NewReader([]byte(text)))
		// A field that this agent does not know would be dropped in silence.
		dec.DisallowUnknownFields()
		if err := dec.Decode(&sp); err != nil {
			return opts, faults.New(faults.Invalid, "this machine does not understand the service: %w", err).
				WithHint("uc may be newer than the agent; compare: uc version")
		}
		opts.Specs = append(opts.Specs, sp)
	}
	return opts, nil
}

func progressMessage(state *spec.State, p Progress) *uncloudv1.Progress {
	out := &uncloudv1.Progress{Kind: p.Kind, Text: p.Text, Logs: p.Logs}
	if p.Plan != nil {
		out.Plan = planMessage(state, *p.Plan)
	}
	if p.Step != nil {
		out.Step = stepMessage(state, *p.Step)
	}
	return out
}

func planMessage(state *spec.State, p plan.Plan) *uncloudv1.Plan {
	out := &uncloudv1.Plan{Project: p.Project, Warnings: p.Warnings, Digest: p.Digest()}
	for _, sp := range p.Services {
		msg := &uncloudv1.ServicePlan{Service: sp.Name(), Change: string(sp.Change), Differences: sp.Differences}
		if sp.Before != nil {
			msg.FromRevision = sp.Before.Revision
		}
		if sp.After != nil {
			msg.ToRevision = sp.After.Revision
		}
		for _, st := range sp.Steps {
			step := stepMessage(state, st)
			step.Service = sp.Name() // also before the service's row exists
			msg.Steps = append(msg.Steps, step)
		}
		out.Services = append(out.Services, msg)
	}
	return out
}

func stepMessage(state *spec.State, st plan.Step) *uncloudv1.Step {
	name := st.Service
	if svc, ok := state.Services[st.Service]; ok {
		name = svc.Project + "/" + svc.Name
	}
	return &uncloudv1.Step{
		Kind: string(st.Kind), Service: name, Replica: st.Replica, Machine: state.MachineName(st.Machine), Text: st.Text, Reason: st.Reason,
	}
}
