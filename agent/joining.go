package agent

import (
	"context"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"uncloud/agent/internal/join"
	"uncloud/agent/internal/mesh"
	"uncloud/agent/internal/server"
	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Join makes this machine a member of the ticket's cluster.
func (a *Agent) Join(ctx context.Context, opts server.JoinOptions, progress func(string)) error {
	a.joining.Lock()
	defer a.joining.Unlock()
	ticket, err := join.Parse(opts.Ticket)
	if err != nil {
		return err
	}
	if m := a.current(); m != nil {
		if m.id.ClusterID != ticket.Cluster {
			return faults.New(faults.TicketForeign, "the ticket is of another cluster (%s), and this machine belongs to %s", ticket.Cluster, m.id.ClusterID).
				WithHint("to leave the old one first: uncloudd reset")
		}
		return alreadyMember(m)
	}
	if err := a.mayBegin(); err != nil {
		return err
	}
	// A machine without a network may have no clock yet either: each refusal by
	// the clock would make the next attempt later.
	if err := a.mayJoin(ticket); err != nil {
		return err
	}
	if err := ticket.CheckTime(time.Now()); err != nil {
		return err
	}
	id, err := a.candidate(ticket.Cluster)
	if err != nil {
		return err
	}
	progress("asking for admission")
	req, err := a.admitRequest(id, opts)
	if err != nil {
		return err
	}
	res, err := a.ask(ctx, ticket, func(ctx context.Context, dial dialer) (*uncloudv1.AdmitResponse, error) {
		return server.Admit(ctx, dial, req)
	})
	if err != nil {
		return err
	}
	if err := id.accept(res); err != nil {
		return err
	}
	id.Endpoints = opts.Endpoints
	progress(fmt.Sprintf("admitted as %s with %s; catching up with the others", res.GetName(), res.GetSubnet()))
	return a.begin(ctx, id)
}

// mayJoin refuses what would fail after the ticket was used.
func (a *Agent) mayJoin(ticket join.Ticket) error {
	if ticket.Network.IsValid() {
		if err := checkFree(ticket.Network); err != nil {
			return err
		}
	}
	if err := a.checkPort(); err != nil {
		return err
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("read the addresses of this machine: %w", err)
	}
	return checkNetwork(addrs)
}

// checkNetwork says so where a machine is in no network at all: then it is no
// use to look for what is wrong with the members.
func checkNetwork(addrs []net.Addr) error {
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			return nil
		}
	}
	return faults.New(faults.Unreachable, noAddress).WithHint(networkHint)
}

// candidateFile holds who this machine is while it asks for admission.
const candidateFile = "joining.json"

// candidate is who this machine asks to be admitted as. It is the same at
// every attempt, also after a power cut: when a member's answer was lost, the
// next attempt must not become a second machine and use the ticket once more.
func (a *Agent) candidate(cluster string) (Identity, error) {
	id, found, err := readIdentity(a.cfg.StateDir, candidateFile)
	if err == nil && found && id.ClusterID == cluster {
		return id, nil
	}
	if id, err = newIdentity(); err != nil {
		return id, err
	}
	id.ClusterID = cluster
	return id, id.write(a.cfg.StateDir, candidateFile)
}

// How long the members have to answer: all together, and at one door of one
// endpoint each. A first packet that is lost is sent again after 5 s.
const (
	admissionPatience = 30 * time.Second
	doorPatience      = 7 * time.Second
	endpointPatience  = 3 * time.Second // as the mesh gives each further endpoint
	knockPause        = time.Second
)

// dialer connects to a member; question is asked over that.
type (
	dialer   = func(context.Context) (net.Conn, error)
	question func(ctx context.Context, dial dialer) (*uncloudv1.AdmitResponse, error)
)

// ask asks the members of the ticket through the one-purpose tunnel, at one door
// after the other until somebody decides. Asking again is safe: members know the
// candidate by its id.
func (a *Agent) ask(ctx context.Context, ticket join.Ticket, what question) (*uncloudv1.AdmitResponse, error) {
	members := ticketPeers(ticket)
	ctx, cancel := context.WithTimeout(ctx, admissionPatience)
	defer cancel()
	doors := mathrand.Perm(min(max(ticket.Doors, 1), mostDoors))
	for i := 0; ; i++ {
		res, err := a.knock(ctx, ticket, doors[i%len(doors)], members, what)
		if server.Decided(err) {
			return res, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(knockPause):
		}
	}
}

// mostDoors bounds how many doors of a ticket are tried: more than any ticket has.
const mostDoors = 64

func ticketPeers(ticket join.Ticket) []mesh.Peer {
	var members []mesh.Peer
	for _, m := range ticket.Members {
		key, err := mesh.ParseKey(m.PublicKey)
		if err != nil {
			continue // one bad entry must not cost the others
		}
		members = append(members, mesh.Peer{Machine: m.Machine, PublicKey: key, Endpoints: m.Endpoints})
	}
	return members
}

// knock asks at one door.
func (a *Agent) knock(ctx context.Context, ticket join.Ticket, door int, members []mesh.Peer, what question) (*uncloudv1.AdmitResponse, error) {
	private, err := doorKey(ticket, door)
	if err != nil {
		return nil, err
	}
	link, err := mesh.DialJoin(ctx, mesh.JoinConfig{PrivateKey: private, Members: members, MTU: a.cfg.MTU, Logger: a.log.With("subsystem", "mesh")})
	if err != nil {
		return nil, err
	}
	defer link.Close() //nolint:errcheck // it has no state outside of this process
	ctx, cancel := context.WithTimeout(ctx, patienceFor(members))
	defer cancel()
	return askFirst(ctx, link, members, what)
}

// patienceFor is how long one door is worth waiting at. Members are tried side
// by side, and the endpoints of one after the other.
func patienceFor(members []mesh.Peer) time.Duration {
	most := 1
	for _, m := range members {
		most = max(most, len(m.Endpoints))
	}
	return doorPatience + time.Duration(most-1)*endpointPatience
}

func (a *Agent) admitRequest(id Identity, opts server.JoinOptions) (*uncloudv1.AdmitRequest, error) {
	public, signing, err := id.publicKeys()
	if err != nil {
		return nil, err
	}
	name, suggested := a.machineNameOf(opts.Name)
	labels := maps.Clone(a.cfg.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, opts.Labels)
	req := &uncloudv1.AdmitRequest{
		Ticket: opts.Ticket, MachineId: id.MachineID, Name: name, NameSuggested: suggested, PublicKey: public.String(), SigningKey: signing,
		Labels: labels, Version: Version(), Os: osName(), Arch: runtime.GOARCH,
	}
	for _, r := range a.cfg.Roles {
		req.Roles = append(req.Roles, string(r))
	}
	endpoints, err := endpointsOf(newMesh(mesh.Options{}), a.cfg, opts.Endpoints)
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		req.Endpoints = append(req.Endpoints, e.String())
	}
	return req, nil
}

// endpointsOf are where this machine can be reached: as a person said, as
// configured, and what is on its links. They must be known from the first
// moment: the next machine may ask for them in the next.
func endpointsOf(links *mesh.Mesh, cfg Config, said []netip.AddrPort) ([]netip.AddrPort, error) {
	found, err := links.LocalEndpoints(cfg.ListenPort, cfg.Interfaces...)
	if err != nil {
		return nil, fmt.Errorf("find the addresses of this machine: %w", err)
	}
	var out []netip.AddrPort
	for _, e := range slices.Concat(said, cfg.Endpoints, found) {
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out[:min(len(out), mostEndpoints)], nil
}

// askFirst asks all members for a connection at once and takes the first
// decision, be it a refusal: the others would decide alike. Only one at a time
// is asked to decide, since two would give the machine two places.
func askFirst(ctx context.Context, link joinLink, members []mesh.Peer, what question) (*uncloudv1.AdmitResponse, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	answers := make(chan answer, len(members))
	for _, m := range members {
		go func() {
			to := netip.AddrPortFrom(mesh.ManagementAddress(m.PublicKey), admissionPort)
			conn, err := link.DialContext(ctx, "tcp", to.String())
			answers <- answer{conn, err}
		}()
	}
	var undecided error
	for range members {
		a := <-answers
		if a.err != nil {
			continue
		}
		// Connections that come after the one that decides end with the link.
		res, err := what(ctx, func(context.Context) (net.Conn, error) { return a.conn, nil })
		if server.Decided(err) {
			return res, err
		}
		undecided = err
	}
	if undecided != nil && faults.CodeOf(undecided) != faults.Unreachable {
		return nil, undecided // somebody answered, and could not decide
	}
	return nil, faults.New(faults.Unreachable, "%s", nobodyAnswers(len(members))).
		WithHint("check that UDP from here reaches %s, and that the ticket is not older than a day after its end: then nobody answers it", addresses(members)).
		Because(undecided)
}

func nobodyAnswers(members int) string {
	if members == 1 {
		return "the machine in the ticket does not answer"
	}
	return fmt.Sprintf("none of the %d machines in the ticket answers", members)
}

type joinLink interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

func addresses(members []mesh.Peer) string {
	var out []string
	for _, m := range members {
		for _, e := range m.Endpoints {
			out = append(out, e.String())
		}
	}
	return strings.Join(out, ", ")
}

// accept takes over what the member decided.
func (id *Identity) accept(res *uncloudv1.AdmitResponse) error {
	network, err1 := netip.ParsePrefix(res.GetNetwork())
	subnet, err2 := netip.ParsePrefix(res.GetSubnet())
	if err1 != nil || err2 != nil {
		return faults.New(faults.Internal, "the member answered with no usable network").WithHint("use the same version of uncloudd on all machines")
	}
	public, signing, err := id.publicKeys()
	if err != nil {
		return err
	}
	id.ClusterID, id.Network = res.GetClusterId(), network
	id.Self = spec.Machine{ID: id.MachineID, Name: res.GetName(), PublicKey: public.String(), SigningKey: signing, Subnet: subnet}
	id.ReadySite, id.ReadyVersion = res.GetSite(), res.GetVersion()
	for _, m := range res.GetMembers() {
		member := spec.Machine{ID: m.GetMachineId(), Name: m.GetName(), PublicKey: m.GetPublicKey()}
		if p, err := netip.ParsePrefix(m.GetSubnet()); err == nil {
			member.Subnet = p
		}
		for _, text := range m.GetEndpoints() {
			if e, err := netip.ParseAddrPort(text); err == nil {
				member.Endpoints = append(member.Endpoints, e)
			}
		}
		id.Members = append(id.Members, member)
	}
	return nil
}
