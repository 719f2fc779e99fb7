package agent

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
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

// newIdentity draws what makes a machine itself: an id and two keys.
func newIdentity() (Identity, error) {
	machine, err := spec.NewID(spec.MachinePrefix, rand.Reader)
	if err != nil {
		return Identity{}, fmt.Errorf("draw machine id: %w", err)
	}
	key, err := mesh.NewPrivateKey(rand.Reader)
	if err != nil {
		return Identity{}, err
	}
	_, signing, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Identity{}, fmt.Errorf("draw signing key: %w", err)
	}
	return Identity{MachineID: machine, PrivateKey: key.String(), SigningKey: signing}, nil
}

// publicKeys are the public halves, base64: of WireGuard and of signing.
func (id Identity) publicKeys() (wireguard mesh.Key, signing string, err error) {
	private, err := mesh.ParseKey(id.PrivateKey)
	if err != nil {
		return mesh.Key{}, "", fmt.Errorf("key of this machine: %w", err)
	}
	wireguard, err = private.Public()
	return wireguard, base64.StdEncoding.EncodeToString(id.Signer().Public().(ed25519.PublicKey)), err
}

// machineNameOf is the wanted name, or a suggestion from the host name.
func (a *Agent) machineNameOf(wanted string) (name string, suggested bool) {
	if name := cmp.Or(wanted, a.cfg.Name); name != "" {
		return name, false
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	return join.SafeName(host), true
}

// Init makes a cluster with this machine as its first.
func (a *Agent) Init(ctx context.Context, opts server.InitOptions) error {
	a.joining.Lock()
	defer a.joining.Unlock()
	if m := a.current(); m != nil {
		return alreadyMember(m)
	}
	network := cmp.Or(opts.Network, DefaultNetwork)
	id, err := newIdentity()
	if err != nil {
		return err
	}
	if id.ClusterID, err = spec.NewID(spec.ClusterPrefix, rand.Reader); err != nil {
		return fmt.Errorf("draw cluster id: %w", err)
	}
	if err := checkFree(network); err != nil {
		return err
	}
	public, signing, err := id.publicKeys()
	if err != nil {
		return err
	}
	subnet, err := mesh.PickSubnet(network, public, nil)
	if err != nil {
		return err
	}
	name, _ := a.machineNameOf(opts.Name)
	if err := spec.CheckMachineName(name); err != nil {
		return faults.New(faults.Invalid, "%w", err).WithHint("choose another: uc machine init --name NAME")
	}
	endpoints, err := endpointsOf(mesh.New(mesh.Options{}), a.cfg, opts.Endpoints)
	if err != nil {
		return err
	}
	id.Network = network.Masked()
	id.Self = spec.Machine{
		ID: id.MachineID, Name: name, PublicKey: public.String(), SigningKey: signing, Subnet: subnet, Endpoints: endpoints,
		Labels: a.cfg.Labels, Roles: a.rolesOrAll(), Schedulable: true, Version: Version(), OS: osName(), Arch: runtime.GOARCH, JoinedAt: time.Now(),
	}
	id.Endpoints = opts.Endpoints
	id.Founded = &Founding{Domain: opts.Domain}
	return a.begin(ctx, id)
}

// checkFree refuses a cluster network that this machine uses for something
// else: the firewall would cut that off.
func checkFree(network netip.Prefix) error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("read the addresses of this machine: %w", err)
	}
	for _, a := range addrs {
		used, err := netip.ParsePrefix(a.String())
		if err == nil && used.Overlaps(network) {
			return faults.New(faults.Conflict, "the network %s overlaps %s, which this machine uses already", network, used.Masked()).
				WithHint("choose another: uc machine init --network 10.211.0.0/16")
		}
	}
	return nil
}

func (a *Agent) rolesOrAll() []spec.Role {
	if len(a.cfg.Roles) > 0 {
		return a.cfg.Roles
	}
	return []spec.Role{spec.RoleIngress, spec.RoleWorker}
}

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
	if err := ticket.CheckTime(time.Now()); err != nil {
		return err
	}
	id, err := newIdentity()
	if err != nil {
		return err
	}
	progress("asking for admission")
	res, err := a.askAdmission(ctx, id, ticket, opts)
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

// How long the members have to answer: all together, and behind one door of
// several. A first packet that is lost is sent again after 5 s.
const (
	admissionPatience = 30 * time.Second
	doorPatience      = 7 * time.Second
)

// askAdmission asks the members of the ticket through the one-purpose tunnel,
// at one door after the other until somebody answers.
func (a *Agent) askAdmission(ctx context.Context, id Identity, ticket join.Ticket, opts server.JoinOptions) (*uncloudv1.AdmitResponse, error) {
	req, err := a.admitRequest(id, opts)
	if err != nil {
		return nil, err
	}
	members := ticketPeers(ticket)
	ctx, cancel := context.WithTimeout(ctx, admissionPatience)
	defer cancel()
	doors := mathrand.Perm(max(ticket.Doors, 1))
	for i := 0; ; i++ {
		res, err := a.knock(ctx, ticket, doors[i%len(doors)], members, req)
		if faults.CodeOf(err) != faults.Unreachable || ctx.Err() != nil || len(doors) == 1 {
			return res, err
		}
	}
}

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
func (a *Agent) knock(ctx context.Context, ticket join.Ticket, door int, members []mesh.Peer, req *uncloudv1.AdmitRequest) (*uncloudv1.AdmitResponse, error) {
	private, err := doorKey(ticket, door)
	if err != nil {
		return nil, err
	}
	link, err := mesh.DialJoin(ctx, mesh.JoinConfig{PrivateKey: private, Members: members, MTU: a.cfg.MTU, Logger: a.log.With("subsystem", "mesh")})
	if err != nil {
		return nil, err
	}
	defer link.Close() //nolint:errcheck // it has no state outside of this process
	if ticket.Doors > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, doorPatience)
		defer cancel()
	}
	return askFirst(ctx, link, members, req)
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
	endpoints, err := endpointsOf(mesh.New(mesh.Options{}), a.cfg, opts.Endpoints)
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
	found, err := links.LocalEndpoints(cfg.ListenPort)
	if err != nil {
		return nil, fmt.Errorf("find the addresses of this machine: %w", err)
	}
	var out []netip.AddrPort
	for _, e := range slices.Concat(said, cfg.Endpoints, found) {
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out, nil
}

// askFirst asks all members at once and takes the first decision, be it a
// refusal: the others would decide alike. Only when none answers is the
// network to blame.
func askFirst(ctx context.Context, link joinLink, members []mesh.Peer, req *uncloudv1.AdmitRequest) (*uncloudv1.AdmitResponse, error) {
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
	var last error
	for range members {
		a := <-answers
		if a.err != nil {
			last = a.err
			continue
		}
		// The first that answers decides. Connections that come after it end with the link.
		return server.Admit(ctx, func(context.Context) (net.Conn, error) { return a.conn, nil }, req)
	}
	return nil, faults.New(faults.Unreachable, "none of the %d machines in the ticket answers", len(members)).
		WithHint("check that UDP from here reaches %s, and that the ticket is not used up: a used ticket is not answered for ever", addresses(members)).Because(last)
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
		return faults.New(faults.Internal, "the member answered with no usable network")
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

// birth is an identity that becomes a member.
type birth struct {
	id   Identity
	made chan *member // holds the member once it is wired
}

// begin makes the identity durable, becomes a member, and returns when the
// member is ready, or when ctx ends; the member then goes on by itself.
func (a *Agent) begin(ctx context.Context, id Identity) error {
	if err := id.save(a.cfg.StateDir); err != nil {
		return err
	}
	b := birth{id: id, made: make(chan *member, 1)}
	a.born <- b
	select {
	case m := <-b.made:
		return m.awaitReady(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// osName is the host's operating system as it calls itself.
func osName() string {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return runtime.GOOS
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return runtime.GOOS
}
