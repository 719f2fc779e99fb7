package server

import (
	"context"
	"net"
	"sync"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/api/uncloud/v1/uncloudv1connect"
	"uncloud/internal/wire"
)

// Peers calls other machines' PeerService over the mesh. It keeps a connection
// to each machine that it has called.
type Peers struct {
	dial func(ctx context.Context, machine string) (net.Conn, error)

	mu      sync.Mutex
	clients map[string]peer
}

// peer is one machine that was called.
type peer struct {
	uncloudv1connect.PeerServiceClient
	upgrades uncloudv1connect.UpgradePeerServiceClient
}

// peerHost names a machine in a URL. The transport dials by machine and never
// resolves it.
func peerHost(machine string) string { return "http://" + machine }

// NewPeers makes a client that reaches machines by dial.
func NewPeers(dial func(ctx context.Context, machine string) (net.Conn, error)) *Peers {
	return &Peers{dial: dial, clients: map[string]peer{}}
}

func (p *Peers) upgradesOf(machine string) uncloudv1connect.UpgradePeerServiceClient {
	return p.to(machine).upgrades
}

func (p *Peers) to(machine string) peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.clients[machine]
	if !ok {
		hc := wire.NewClient(func(ctx context.Context) (net.Conn, error) { return p.dial(ctx, machine) })
		c = peer{uncloudv1connect.NewPeerServiceClient(hc, peerHost(machine)), uncloudv1connect.NewUpgradePeerServiceClient(hc, peerHost(machine))}
		p.clients[machine] = c
	}
	return c
}

// RunReplica asks the machine to run a replica that the version speaks of.
func (p *Peers) RunReplica(ctx context.Context, machine, replica string, v Version, skipHealth bool) (Outcome, error) {
	res, err := p.to(machine).RunReplica(ctx, connect.NewRequest(&uncloudv1.RunReplicaRequest{
		Replica: replica, Site: v.Site, Version: v.Seq, SkipHealth: skipHealth,
	}))
	if err != nil {
		return Outcome{}, wire.Decode(err)
	}
	at := Version{Site: res.Msg.GetSite(), Seq: res.Msg.GetVersion()}
	return Outcome{Logs: res.Msg.GetLogs(), Fault: wire.MessageFault(res.Msg.GetFault()), Version: at}, nil
}

// RetireReplica asks the machine to stop and remove a replica's container.
func (p *Peers) RetireReplica(ctx context.Context, machine, replica string, v Version) error {
	_, err := p.to(machine).RetireReplica(ctx, connect.NewRequest(&uncloudv1.RetireReplicaRequest{Replica: replica, Site: v.Site, Version: v.Seq}))
	return wire.Decode(err)
}

// RemoveVolume removes a volume, by the engine's name for it, and its content.
func (p *Peers) RemoveVolume(ctx context.Context, machine, name string) error {
	_, err := p.to(machine).RemoveVolume(ctx, connect.NewRequest(&uncloudv1.RemoveVolumeRequest{Name: name}))
	return wire.Decode(err)
}

// AwaitLoaded returns when the machine's names and ingress have the version.
func (p *Peers) AwaitLoaded(ctx context.Context, machine string, v Version) error {
	_, err := p.to(machine).AwaitLoaded(ctx, connect.NewRequest(&uncloudv1.AwaitLoadedRequest{Site: v.Site, Version: v.Seq}))
	return wire.Decode(err)
}

// HasImages tells which of these images the machine has.
func (p *Peers) HasImages(ctx context.Context, machine string, images []string) ([]string, error) {
	res, err := p.to(machine).HasImages(ctx, connect.NewRequest(&uncloudv1.HasImagesRequest{Images: images}))
	if err != nil {
		return nil, wire.Decode(err)
	}
	return res.Msg.GetPresent(), nil
}

// Report leaves a note with a member over a connection made with a ticket.
func Report(ctx context.Context, dial func(ctx context.Context) (net.Conn, error), req *uncloudv1.ReportRequest) error {
	hc := wire.NewClient(dial)
	defer hc.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	res, err := uncloudv1connect.NewJoinServiceClient(hc, "http://member").Report(ctx, connect.NewRequest(req))
	if err != nil {
		return wire.Decode(err)
	}
	return wire.MessageFault(res.Msg.GetFault())
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
