package server

import (
	"context"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/wire"
)

// joinService answers holders of tickets, and nobody else can reach it.
type joinService struct{ *Server }

// Admit answers a refusal in the message and not as an error: the holder then
// knows that a member decided, and asks no other.
func (s joinService) Admit(ctx context.Context, req *connect.Request[uncloudv1.AdmitRequest]) (*connect.Response[uncloudv1.AdmitResponse], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	res, err := m.Admit(ctx, req.Msg.GetTicket(), req.Msg)
	if err != nil {
		s.log.Info("refused a machine", "machine", req.Msg.GetMachineId(), "name", req.Msg.GetName(), "err", err)
		return connect.NewResponse(&uncloudv1.AdmitResponse{Fault: wire.FaultMessage(faults.Of(err))}), nil
	}
	return connect.NewResponse(res), nil
}
