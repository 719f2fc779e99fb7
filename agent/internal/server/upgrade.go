package server

import (
	"context"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/spec"
	"uncloud/internal/wire"
)

// Upgrades changes the generations of machines' systems.
type Upgrades interface {
	// Generations of this machine, the oldest first; a not-nixos fault elsewhere.
	Generations() ([]Generation, error)
	// Begin writes an upgrade and returns its id. The machines do the rest.
	Begin(ctx context.Context, r UpgradeRequest) (id string, err error)
	// Stop ends the upgrade that is under way and returns its id.
	Stop(ctx context.Context) (id string, err error)
	// Find is the upgrade with this id: for none the one under way, or the last.
	Find(id string) (spec.Upgrade, error)
	// Follow calls tell at the beginning and after each change, until the
	// upgrade has ended or tell returns an error.
	Follow(ctx context.Context, id string, tell func(*spec.State, spec.Upgrade) error) error
	// Confirm is this machine's newest commit if a machine in its turn is well,
	// as seen from here, or what is not.
	Confirm(machine, upgrade string) (Version, error)
}

// Generation is one of this machine's system. Number 0 is none of the profile.
type Generation struct {
	Number                   int
	System                   string
	NixOS                    string
	Made                     time.Time
	Current, Booted, Default bool
}

// UpgradeRequest is what a person asked for; see upgrade.proto.
type UpgradeRequest struct {
	Machines       []string
	All            bool
	Flake, System  string
	Generation     int
	Rollback       bool
	Restart, Drain bool
}

type upgradeService struct{ *Server }

func (s upgradeService) ListGenerations(context.Context, *connect.Request[uncloudv1.ListGenerationsRequest]) (*connect.Response[uncloudv1.ListGenerationsResponse], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	all, err := m.Upgrades.Generations()
	if err != nil {
		return nil, err
	}
	res := &uncloudv1.ListGenerationsResponse{Machine: machineName(m.State(), m.Self)}
	for _, g := range all {
		res.Generations = append(res.Generations, &uncloudv1.Generation{
			Number: int32(g.Number), System: g.System, NixosVersion: g.NixOS, MadeAt: stamp(g.Made), //nolint:gosec // small
			Current: g.Current, Booted: g.Booted, Default: g.Default,
		})
	}
	return connect.NewResponse(res), nil
}

func (s upgradeService) Upgrade(ctx context.Context, req *connect.Request[uncloudv1.UpgradeRequest], stream *connect.ServerStream[uncloudv1.UpgradeStatus]) error {
	m, err := s.host.Member()
	if err != nil {
		return err
	}
	r := req.Msg
	id, err := m.Upgrades.Begin(ctx, UpgradeRequest{
		Machines: r.GetMachines(), All: r.GetAll(), Flake: r.GetFlake(), System: r.GetSystem(), Generation: int(r.GetGeneration()),
		Rollback: r.GetRollback(), Restart: r.GetRestart(), Drain: r.GetDrain(),
	})
	if err != nil {
		return err
	}
	return follow(ctx, m, id, stream)
}

func (s upgradeService) WatchUpgrade(ctx context.Context, req *connect.Request[uncloudv1.WatchUpgradeRequest], stream *connect.ServerStream[uncloudv1.UpgradeStatus]) error {
	m, err := s.host.Member()
	if err != nil {
		return err
	}
	return follow(ctx, m, req.Msg.GetId(), stream)
}

func follow(ctx context.Context, m *Member, id string, stream *connect.ServerStream[uncloudv1.UpgradeStatus]) error {
	return m.Upgrades.Follow(ctx, id, func(_ *spec.State, u spec.Upgrade) error { return stream.Send(newView(m).upgrade(u)) })
}

func (s upgradeService) StopUpgrade(ctx context.Context, _ *connect.Request[uncloudv1.StopUpgradeRequest]) (*connect.Response[uncloudv1.UpgradeStatus], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	id, err := m.Upgrades.Stop(ctx)
	if err != nil {
		return nil, err
	}
	u, err := m.Upgrades.Find(id)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(newView(m).upgrade(u)), nil
}

func (v view) upgrade(u spec.Upgrade) *uncloudv1.UpgradeStatus {
	out := &uncloudv1.UpgradeStatus{
		Id: u.ID, Stage: string(u.Stage), Error: u.Error, StartedBy: v.MachineName(u.StartedBy), StartedAt: stamp(u.StartedAt), EndedAt: stamp(u.EndedAt),
		Flake: u.Flake, System: u.System, Generation: int32(u.Generation), Rollback: u.Rollback, Restart: u.Restart, Drain: u.Drain, //nolint:gosec // small
	}
	for _, id := range u.Machines {
		turn := &uncloudv1.UpgradeTurn{Machine: v.MachineName(id), MachineId: id, State: "down"}
		if v.alive[id] {
			turn.State = "up"
		}
		if t, begun := v.TurnIn(u.ID, id); begun {
			turn.Stage, turn.FromSystem, turn.ToSystem, turn.Since = string(t.Stage), t.From, t.To, stamp(t.Since)
			turn.Error, turn.Lines = t.Error, t.Lines
		}
		out.Turns = append(out.Turns, turn)
	}
	return out
}

// turnNote is what a machine suffers from its last upgrade.
func (v view) turnNote(machine string) []*uncloudv1.HealthNote {
	t, ok := v.Turns[machine]
	switch {
	case !ok || t.Stage == spec.TurnDone:
		return nil
	case t.Stage == spec.TurnFailed:
		return []*uncloudv1.HealthNote{{Code: "upgrade", Text: "its upgrade failed: " + t.Error}}
	}
	return []*uncloudv1.HealthNote{{Code: "upgrade", Text: "it is being upgraded: " + string(t.Stage)}}
}

// upgradePeerService is what machines ask of each other in a turn.
type upgradePeerService struct{ *Server }

func (s upgradePeerService) ConfirmTurn(ctx context.Context, req *connect.Request[uncloudv1.ConfirmTurnRequest]) (*connect.Response[uncloudv1.ConfirmTurnResponse], error) {
	m, err := peerService(s).memberWith(ctx, req.Msg.GetSite(), req.Msg.GetVersion())
	if err != nil {
		return nil, err
	}
	v, err := m.Upgrades.Confirm(req.Msg.GetMachine(), req.Msg.GetUpgrade())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&uncloudv1.ConfirmTurnResponse{Site: v.Site, Version: v.Seq}), nil
}

// ConfirmTurn asks a machine whether this one is well in its turn.
func (p *Peers) ConfirmTurn(ctx context.Context, machine string, self, upgrade string, v Version) (Version, error) {
	res, err := p.upgradesOf(machine).ConfirmTurn(ctx, connect.NewRequest(&uncloudv1.ConfirmTurnRequest{
		Machine: self, Upgrade: upgrade, Site: v.Site, Version: v.Seq,
	}))
	if err != nil {
		return Version{}, wire.Decode(err)
	}
	return Version{Site: res.Msg.GetSite(), Seq: res.Msg.GetVersion()}, nil
}
