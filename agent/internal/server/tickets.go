package server

import (
	"cmp"
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// States of a ticket, as they are shown.
const (
	ticketOpen    = "open"
	ticketUsed    = "used" // as often as it may be
	ticketExpired = "expired"
	ticketRevoked = "revoked"
)

func (s clusterService) ListTickets(context.Context, *connect.Request[uncloudv1.ListTicketsRequest]) (*connect.Response[uncloudv1.ListTicketsResponse], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	state, res := m.State(), &uncloudv1.ListTicketsResponse{}
	for _, t := range state.Tickets {
		res.Tickets = append(res.Tickets, ticketMessage(state, t, time.Now()))
	}
	slices.SortFunc(res.Tickets, func(a, b *uncloudv1.Ticket) int {
		return cmp.Or(b.GetCreatedAt().AsTime().Compare(a.GetCreatedAt().AsTime()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return connect.NewResponse(res), nil
}

func ticketMessage(state *spec.State, t spec.Ticket, now time.Time) *uncloudv1.Ticket {
	out := &uncloudv1.Ticket{
		Id: t.ID, Issuer: machineName(state, t.Issuer), Uses: int32(t.Uses), //nolint:gosec // at most maxTicketUses
		ExpiresAt: stamp(t.ExpiresAt), CreatedAt: stamp(t.CreatedAt),
	}
	for _, u := range state.TicketUses {
		if u.Ticket == t.ID {
			out.UsedBy = append(out.UsedBy, machineName(state, u.Machine))
		}
	}
	slices.Sort(out.UsedBy)
	switch {
	case t.Revoked:
		out.State = ticketRevoked
	case now.After(t.ExpiresAt):
		out.State = ticketExpired
	case len(out.UsedBy) >= t.Uses:
		out.State = ticketUsed
	default:
		out.State = ticketOpen
	}
	return out
}

// RevokeTicket lets nobody join with a ticket any more. Its row stays until the
// ticket would have ended: it is what refuses the holder, on every machine that
// has it. Revoking twice changes nothing.
func (s clusterService) RevokeTicket(ctx context.Context, req *connect.Request[uncloudv1.RevokeTicketRequest]) (*connect.Response[uncloudv1.Ticket], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	id := req.Msg.GetTicket()
	_, err = m.Update(ctx, func(tx Tx) error {
		t, ok := tx.State().Tickets[id]
		if !ok {
			return faults.New(faults.NotFound, "there is no ticket %q", id).WithHint("see what there is: uc machine ticket ls")
		}
		t.Revoked = true
		tx.Put(t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	state := m.State()
	return connect.NewResponse(ticketMessage(state, state.Tickets[id], time.Now())), nil
}
