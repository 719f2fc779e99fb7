package agent

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
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
	if err := a.mayBegin(); err != nil {
		return err
	}
	network := cmp.Or(opts.Network, DefaultNetwork)
	if err := checkFree(network); err != nil {
		return err
	}
	if err := a.checkPort(); err != nil {
		return err
	}
	id, err := newIdentity()
	if err != nil {
		return err
	}
	if id.ClusterID, err = spec.NewID(spec.ClusterPrefix, rand.Reader); err != nil {
		return fmt.Errorf("draw cluster id: %w", err)
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
	endpoints, err := endpointsOf(newMesh(mesh.Options{}), a.cfg, opts.Endpoints)
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

// mayBegin refuses a second identity, also while there is no member yet that
// lives by the first: its store is being opened, or was forgotten in part.
func (a *Agent) mayBegin() error {
	if m := a.current(); m != nil {
		return alreadyMember(m)
	}
	id, known, err := loadIdentity(a.cfg.StateDir)
	if err != nil || !known {
		return err
	}
	return faults.New(faults.IsMember, "this machine belongs to cluster %s already, and is not up yet", id.ClusterID).
		WithHint("see what it does: journalctl -u uncloud; to leave the cluster, when it is up: uncloudd reset")
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
				WithHint("free it on this machine, or make the cluster with another one: uc machine init --network 10.211.0.0/16")
		}
	}
	return nil
}

// checkPort refuses to begin where another program has the one UDP port.
func (a *Agent) checkPort() error {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(a.cfg.ListenPort)})
	if err != nil {
		return faults.New(faults.Conflict, "UDP port %d, which the mesh needs, cannot be opened: %w", a.cfg.ListenPort, err).
			WithHint("see who has it: ss -lunp sport = :%d; or choose another: %s", a.cfg.ListenPort, setting("listenPort", "network.port"))
	}
	return conn.Close()
}

func (a *Agent) rolesOrAll() []spec.Role {
	if len(a.cfg.Roles) > 0 {
		return a.cfg.Roles
	}
	return slices.Clone(allRoles)
}

var allRoles = []spec.Role{spec.RoleIngress, spec.RoleWorker}

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
