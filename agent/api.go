package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"google.golang.org/protobuf/types/known/timestamppb"

	"uncloud/agent/internal/images"
	"uncloud/agent/internal/mesh"
	"uncloud/agent/internal/server"
	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

var cryptoRandom io.Reader = rand.Reader

type httpHandler = http.Handler

// endedEarly is what a person is told whose new member did not come up. It
// stays a member: the service manager starts it anew.
func endedEarly(why error) error {
	if why == nil {
		return faults.New(faults.NotMember, "this machine left its cluster before it was ready").
			WithHint("to join again: uncloudd join TICKET-FILE")
	}
	return faults.New(faults.Internal, "this machine is a member, but did not come up: %w", why).
		WithHint("it is tried again and again; see: journalctl -u uncloud; or give it up: uncloudd reset --yes")
}

// api is what this member does for the API. It is refused until the machine
// has caught up: an answer from half a copy would be wrong.
func (m *member) api() (*server.Member, error) {
	if !m.isReady() {
		return nil, faults.New(faults.NotReady, "this machine still catches up with the others").
			WithHint("see how far it is: uc store status; the tunnels: uc wg show")
	}
	return m.asMember(), nil
}

func (m *member) asMember() *server.Member {
	return &server.Member{
		Self: m.id.MachineID, State: m.store.State, Alive: m.gossip.Alive, RTT: m.gossip.RTT, Notes: m.notes, Update: m.update,
		DialAPI: m.dialAPI, WaitFor: m.waitFor, AwaitLoaded: m.awaitLoaded, IssueTicket: m.issueTicket, Admit: m.admit, Report: m.report,
		ManagementAddress: managementOf, WireGuard: m.wireGuard, Authority: m.authority, Store: storeCare{m},
		Rollouts: rollouts{m.driver}, Upgrades: upgrades{m}, Replicas: localReplicas{m}, Engine: m.containers(), Images: imageIntake{m},
	}
}

func (m *member) containers() containers {
	return containers{engine: m.engine, cluster: m.id.ClusterID}
}

// onlyMember is the Host of the mesh's side: what is asked there is asked of a
// member, and beginning or joining a cluster is not asked of it at all.
type onlyMember struct{ m *member }

func (o onlyMember) Info() *uncloudv1.InfoResponse {
	info := &uncloudv1.InfoResponse{Version: Version(), Phase: phaseJoining}
	o.m.describe(info)
	return info
}

func (o onlyMember) Member() (*server.Member, error) { return o.m.api() }

func (o onlyMember) Arriving() (*server.Member, error) { return o.m.asMember(), nil }

func (o onlyMember) Init(context.Context, server.InitOptions) error { return alreadyMember(o.m) }

func (o onlyMember) Join(context.Context, server.JoinOptions, func(string)) error {
	return alreadyMember(o.m)
}

func (o onlyMember) RestoreStore(context.Context, server.RestoreOptions, io.Reader) (*uncloudv1.RestoreStoreResponse, error) {
	return nil, faults.New(faults.Invalid, "a machine cannot be restored through another one: it leaves the mesh for a moment").
		WithHint("connect to it: uc --connect ssh://USER@MACHINE store restore FILE")
}

// Reset leaves the rows of this machine to the one that asks: were they removed
// here, the others would cut the tunnel before the answer had passed it.
func (o onlyMember) Reset(ctx context.Context) (untold, err error) {
	return nil, o.m.leave(ctx, false)
}

// notes are what this machine suffers from.
func (m *member) notes() []server.Note {
	out := append(m.troubles.all(), firstBootNotes(m.cfg)...)
	state := m.store.State()
	for _, n := range m.driver.Notes() {
		out = append(out, serviceNote(state, n.Service, n.Code, n.Text)...)
	}
	return append(out, m.storeNotes()...)
}

// authority is the certificate of what signs private names on this machine.
func (m *member) authority(ctx context.Context) (string, error) {
	pem, err := m.ingress.Root(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return "", faults.New(faults.NotFound, "the ingress of %s has signed no name yet", m.store.State().MachineName(m.id.MachineID)).
			WithHint("it makes its authority with the first https name, on a machine with the role ingress").Because(err)
	}
	return string(pem), err
}

func (m *member) wireGuard() (*uncloudv1.WireGuardResponse, error) {
	st, err := m.mesh.Status()
	if err != nil {
		return nil, fmt.Errorf("look at link %s: %w", linkName, err)
	}
	out := &uncloudv1.WireGuardResponse{
		Interface: st.Link, PublicKey: st.PublicKey.String(), Port: int32(st.ListenPort), Kind: string(st.Kind),
	}
	state := m.store.State()
	for _, p := range st.Peers {
		if p.Machine != "" { // the others are tickets
			out.Peers = append(out.Peers, m.wireGuardPeer(p, state.MachineName(p.Machine)))
		}
	}
	return out, nil
}

func (m *member) wireGuardPeer(p mesh.PeerStatus, name string) *uncloudv1.WireGuardPeer {
	msg := &uncloudv1.WireGuardPeer{
		Machine: name, PublicKey: p.PublicKey.String(), State: string(p.State), Received: p.Received, Sent: p.Sent,
	}
	if p.Endpoint.IsValid() {
		msg.Endpoint = p.Endpoint.String()
	}
	if !p.Handshake.IsZero() {
		msg.LastHandshake = timestamppb.New(p.Handshake)
	}
	for _, a := range p.AllowedIPs {
		msg.AllowedIps = append(msg.AllowedIps, a.String())
	}
	if rtt, ok := m.gossip.RTT(p.Machine); ok {
		msg.RttMs = float64(rtt.Microseconds()) / 1000
	}
	return msg
}

// imageIntake takes images in as the API sends them.
type imageIntake struct{ m *member }

func (i imageIntake) Present(ctx context.Context, digests []string) ([]string, error) {
	return i.m.images.Present(ctx, digests)
}

func (i imageIntake) Receive(ctx context.Context, start server.ImageStart, next func() (string, []byte, error)) (string, int64, error) {
	id, received, err := i.m.images.Receive(ctx, images.Start{Name: start.Name, Manifest: start.Manifest, Config: start.Config}, next)
	if err == nil {
		i.m.replicas.ImageArrived(start.Name)
	}
	return id, received, err
}
