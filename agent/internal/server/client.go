package server

import (
	"context"
	"net"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/api/uncloud/v1/uncloudv1connect"
	"uncloud/internal/spec"
	"uncloud/internal/wire"
)

// Peers calls other machines' PeerService over the mesh.
type Peers struct {
	client uncloudv1connect.PeerServiceClient
}

// machineKey carries the machine to dial through the HTTP client, whose
// connection pool is keyed by host name: each machine has its own.
func peerHost(machine string) string { return "http://" + machine }

// NewPeers makes a client that reaches machines by dial.
func NewPeers(dial func(ctx context.Context, machine string) (net.Conn, error)) PeerDialer {
	return PeerDialer{dial: dial}
}

// PeerDialer makes a Peers client for one machine.
type PeerDialer struct {
	dial func(ctx context.Context, machine string) (net.Conn, error)
}

// To is the client for one machine.
func (d PeerDialer) To(machine string) Peers {
	hc := wire.NewClient(func(ctx context.Context) (net.Conn, error) { return d.dial(ctx, machine) })
	return Peers{client: uncloudv1connect.NewPeerServiceClient(hc, peerHost(machine))}
}

// RunReplica asks the machine to run a replica that the version speaks of.
func (p Peers) RunReplica(ctx context.Context, replica string, v Version, skipHealth bool) (Outcome, error) {
	res, err := p.client.RunReplica(ctx, connect.NewRequest(&uncloudv1.RunReplicaRequest{
		Replica: replica, Site: v.Site, Version: v.Seq, SkipHealth: skipHealth,
	}))
	if err != nil {
		return Outcome{}, wire.Decode(err)
	}
	out := Outcome{Logs: res.Msg.GetLogs(), Fault: wire.MessageFault(res.Msg.GetFault())}
	out.Container = spec.Container{Replica: replica, State: spec.ContainerState(res.Msg.GetState()), Health: spec.Health(res.Msg.GetHealth())}
	return out, nil
}

// RetireReplica asks the machine to stop and remove a replica's container.
func (p Peers) RetireReplica(ctx context.Context, replica string, v Version) error {
	_, err := p.client.RetireReplica(ctx, connect.NewRequest(&uncloudv1.RetireReplicaRequest{Replica: replica, Site: v.Site, Version: v.Seq}))
	return wire.Decode(err)
}

// AwaitLoaded returns when the machine's names and ingress have the version.
func (p Peers) AwaitLoaded(ctx context.Context, v Version) error {
	_, err := p.client.AwaitLoaded(ctx, connect.NewRequest(&uncloudv1.AwaitLoadedRequest{Site: v.Site, Version: v.Seq}))
	return wire.Decode(err)
}

// HasImages tells which of these images the machine has.
func (p Peers) HasImages(ctx context.Context, images []string) ([]string, error) {
	res, err := p.client.HasImages(ctx, connect.NewRequest(&uncloudv1.HasImagesRequest{Images: images}))
	if err != nil {
		return nil, wire.Decode(err)
	}
	return res.Msg.GetPresent(), nil
}

// Admit asks a member for admission over a connection made with a ticket.
func Admit(ctx context.Context, dial func(ctx context.Context) (net.Conn, error), req *uncloudv1.AdmitRequest) (*uncloudv1.AdmitResponse, error) {
	hc := wire.NewClient(dial)
	defer hc.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	res, err := uncloudv1connect.NewJoinServiceClient(hc, "http://member").Admit(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, wire.Decode(err)
	}
	return res.Msg, wire.MessageFault(res.Msg.GetFault())
}
