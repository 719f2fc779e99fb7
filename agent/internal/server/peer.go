package server

import (
	"context"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/wire"
)

// catchUp bounds how long a machine waits for the rows that a call is about.
// They are pushed at the moment they are written, so they are here already
// unless the link between the two stores is broken.
const catchUp = 15 * time.Second

// peerService is what machines ask of each other.
type peerService struct{ *Server }

func (s peerService) RunReplica(ctx context.Context, req *connect.Request[uncloudv1.RunReplicaRequest]) (*connect.Response[uncloudv1.RunReplicaResponse], error) {
	m, err := s.memberWith(ctx, req.Msg.GetSite(), req.Msg.GetVersion())
	if err != nil {
		return nil, err
	}
	out, err := m.Replicas.Ensure(ctx, req.Msg.GetReplica(), req.Msg.GetSkipHealth())
	if err != nil {
		return nil, err
	}
	res := &uncloudv1.RunReplicaResponse{
		Logs: out.Logs, Site: out.Version.Site, Version: out.Version.Seq,
	}
	if out.Fault != nil {
		res.Fault = wire.FaultMessage(faults.Of(out.Fault))
	}
	return connect.NewResponse(res), nil
}

func (s peerService) RetireReplica(ctx context.Context, req *connect.Request[uncloudv1.RetireReplicaRequest]) (*connect.Response[uncloudv1.RetireReplicaResponse], error) {
	m, err := s.memberWith(ctx, req.Msg.GetSite(), req.Msg.GetVersion())
	if err != nil {
		return nil, err
	}
	if err := m.Replicas.Retire(ctx, req.Msg.GetReplica()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&uncloudv1.RetireReplicaResponse{}), nil
}

func (s peerService) RemoveVolume(ctx context.Context, req *connect.Request[uncloudv1.RemoveVolumeRequest]) (*connect.Response[uncloudv1.RemoveVolumeResponse], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	if err := m.Engine.RemoveVolume(ctx, req.Msg.GetName()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&uncloudv1.RemoveVolumeResponse{}), nil
}

func (s peerService) AwaitLoaded(ctx context.Context, req *connect.Request[uncloudv1.AwaitLoadedRequest]) (*connect.Response[uncloudv1.AwaitLoadedResponse], error) {
	m, err := s.memberWith(ctx, req.Msg.GetSite(), req.Msg.GetVersion())
	if err != nil {
		return nil, err
	}
	if err := m.AwaitLoaded(ctx, Version{Site: req.Msg.GetSite(), Seq: req.Msg.GetVersion()}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&uncloudv1.AwaitLoadedResponse{}), nil
}

func (s peerService) HasImages(ctx context.Context, req *connect.Request[uncloudv1.HasImagesRequest]) (*connect.Response[uncloudv1.HasImagesResponse], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	present, err := m.Engine.HasImages(ctx, req.Msg.GetImages())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&uncloudv1.HasImagesResponse{Present: present}), nil
}

// memberWith is the member once its store has the version.
func (s peerService) memberWith(ctx context.Context, site string, seq uint64) (*Member, error) {
	m, err := s.host.Member()
	if err != nil || site == "" {
		return m, err
	}
	wait, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	if err := m.WaitFor(wait, Version{Site: site, Seq: seq}); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if faults.CodeOf(err) == faults.DiskFull {
			name := machineName(m.State(), m.Self)
			return nil, faults.New(faults.DiskFull, "machine %s cannot take the change in: %w", name, err).WithHint("free some space on %s, then try again", name)
		}
		return nil, faults.New(faults.NotReady, "machine %s has not received the change within %s", machineName(m.State(), m.Self), catchUp).
			WithHint("see what keeps its store behind: uc store status -m %s", machineName(m.State(), m.Self)).Because(err)
	}
	return m, nil
}
