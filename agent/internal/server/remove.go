package server

import (
	"context"
	"net"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/api/uncloud/v1/uncloudv1connect"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
	"uncloud/internal/wire"
)

// resetTime bounds how long a machine may take to stop its containers and
// forget the cluster, beside the grace that its containers have to end.
const resetTime = 2 * time.Minute

// RemoveMachine takes a machine out of the cluster. A living one is told to
// forget the cluster first; one that is down is only forgotten by the others,
// and only when asked to with force, because what runs on it goes on.
func (s clusterService) RemoveMachine(ctx context.Context, req *connect.Request[uncloudv1.RemoveMachineRequest], stream *connect.ServerStream[uncloudv1.Progress]) error {
	m, err := s.host.Member()
	if err != nil {
		return err
	}
	target, err := findMachine(m.State(), req.Msg.GetMachine())
	if err != nil {
		return err
	}
	alive := m.Alive()[target.ID]
	if err := mayRemove(m, target, alive, req.Msg.GetForce()); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // what is begun now is finished, watched or not
	note := func(text string) {
		stream.Send(&uncloudv1.Progress{Kind: "note", Text: text}) //nolint:errcheck,gosec // the removal goes on when nobody watches
	}
	if alive {
		note("stopping what runs on " + target.Name)
		if err := s.resetPeer(ctx, m, target.ID); err != nil && !req.Msg.GetForce() {
			return faults.New(faults.Of(err).Code, "machine %s did not leave: %w", target.Name, err).
				WithHint("remove it all the same: uc machine rm --force %s", target.Name)
		}
	}
	if err := forgetMachine(ctx, m, target.ID); err != nil {
		return err
	}
	note("machine " + target.Name + " is no member any more")
	return stream.Send(&uncloudv1.Progress{Kind: "done", Done: true})
}

func mayRemove(m *Member, target spec.Machine, alive, force bool) error {
	state := m.State()
	if target.ID == m.Self {
		return faults.New(faults.Invalid, "%s is the machine that you are connected to", target.Name).
			WithHint("ask another machine to remove it, or let it leave by itself: uncloudd reset")
	}
	if force {
		return nil
	}
	if !alive {
		return faults.New(faults.MachineDown, "machine %s is down, so what runs on it cannot be stopped", target.Name).
			WithHint("make the others forget it: uc machine rm --force %s", target.Name)
	}
	var volumes []string
	for _, v := range state.Volumes {
		if v.Machine == target.ID {
			volumes = append(volumes, v.Project+"/"+v.Name)
		}
	}
	if len(volumes) > 0 {
		return faults.New(faults.Invalid, "machine %s holds the volumes %s", target.Name, listed(volumes)).
			WithHint("their data stays on its disk; remove it all the same: uc machine rm --force %s", target.Name)
	}
	return nil
}

func (s clusterService) resetPeer(ctx context.Context, m *Member, machine string) error {
	ctx, cancel := context.WithTimeout(ctx, resetTime+longestGrace(m.State(), machine))
	defer cancel()
	hc := wire.NewClient(func(ctx context.Context) (net.Conn, error) { return m.DialAPI(ctx, machine) })
	defer hc.CloseIdleConnections()
	_, err := uncloudv1connect.NewMachineServiceClient(hc, peerHost(machine)).Reset(ctx, connect.NewRequest(&uncloudv1.ResetRequest{}))
	return wire.Decode(err)
}

// longestGrace is what the slowest replica of a machine may take to stop.
func longestGrace(state *spec.State, machine string) time.Duration {
	longest := time.Duration(spec.DefaultStopGrace)
	for _, r := range state.Replicas {
		if r.Machine == machine {
			longest = max(longest, state.Revisions[r.Revision].Spec.Container.StopGrace.Or(spec.DefaultStopGrace))
		}
	}
	return longest
}

// forgetMachine removes the machine's row and everything that was on it. The
// services that lost replicas are made whole by the living, as after a failure.
func forgetMachine(ctx context.Context, m *Member, id string) error {
	_, err := m.Update(ctx, func(tx Tx) error {
		for _, row := range tx.State().RowsOf(id) {
			tx.Delete(row.Table(), row.Key())
		}
		return nil
	})
	return err
}
