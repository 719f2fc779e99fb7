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

// Decided tells whether a member has decided about the holder of a ticket, for
// or against. The others would decide alike. What only hinders this member, a
// full disk or a connection that broke, is no decision.
func Decided(err error) bool {
	switch faults.CodeOf(err) {
	case "", faults.Invalid, faults.Conflict, faults.TicketExpired, faults.TicketUsed, faults.TicketAltered, faults.TicketForeign:
		return true
	}
	return false
}

// Admit answers a decision in the message and anything else as an error: the
// holder then knows whether to ask another member.
func (s joinService) Admit(ctx context.Context, req *connect.Request[uncloudv1.AdmitRequest]) (*connect.Response[uncloudv1.AdmitResponse], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	res, err := m.Admit(ctx, req.Msg.GetTicket(), req.Msg)
	if err != nil {
		s.log.Info("refused a machine", "machine", req.Msg.GetMachineId(), "name", req.Msg.GetName(), "err", err)
		if !Decided(err) {
			return nil, err
		}
		return connect.NewResponse(&uncloudv1.AdmitResponse{Fault: wire.FaultMessage(faults.Of(err))}), nil
	}
	return connect.NewResponse(res), nil
}

// Report keeps what a machine says that cannot ask to be admitted.
func (s joinService) Report(ctx context.Context, req *connect.Request[uncloudv1.ReportRequest]) (*connect.Response[uncloudv1.ReportResponse], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	if err := m.Report(ctx, req.Msg); err != nil {
		if !Decided(err) {
			return nil, err
		}
		return connect.NewResponse(&uncloudv1.ReportResponse{Fault: wire.FaultMessage(faults.Of(err))}), nil
	}
	return connect.NewResponse(&uncloudv1.ReportResponse{}), nil
}
