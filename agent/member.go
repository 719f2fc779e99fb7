package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"uncloud/agent/internal/firewall"
	"uncloud/agent/internal/gossip"
	"uncloud/agent/internal/health"
	"uncloud/agent/internal/hostos"
	"uncloud/agent/internal/hostos/fleet"
	"uncloud/agent/internal/images"
	"uncloud/agent/internal/ingress"
	"uncloud/agent/internal/mesh"
	"uncloud/agent/internal/names"
	"uncloud/agent/internal/reconcile"
	"uncloud/agent/internal/rollout"
	"uncloud/agent/internal/runtime"
	"uncloud/agent/internal/runtime/podman"
	"uncloud/agent/internal/server"
	"uncloud/agent/internal/stall"
	"uncloud/agent/internal/store"
	statesync "uncloud/agent/internal/sync"
	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/spec"
)

// member is a machine with an identity: all organs, wired.
//
// Organs never call each other. They are told of the state by steer (steer.go),
// and ask for the rest through small interfaces that each declares itself and
// that are fitted together in fit.go, replicas.go, upgrades.go and containers.go.
type member struct {
	cfg    Config
	id     Identity
	log    *slog.Logger
	key    mesh.Key   // private
	manage netip.Addr // management address

	store    *store.Store
	sync     *statesync.Syncer
	gossip   *gossip.Gossip
	mesh     *mesh.Mesh
	firewall *firewall.Firewall
	engine   runtime.Engine
	prober   *health.Prober
	replicas *reconcile.Reconciler
	images   *images.Store
	names    *names.Server
	ingress  *ingress.Server
	driver   *rollout.Driver
	host     *hostos.Client
	fleet    *fleet.Fleet
	peers    *server.Peers

	steering sync.Mutex // held while mesh and firewall are told of a state

	namesLoaded, ingressLoaded loadedState // what they work with
	ingressTurn                stall.Turn
	questions                  questions // that names was asked

	ready    chan struct{} // closed when this machine has caught up
	again    chan struct{} // steer once more
	renet    chan struct{} // look at the network of the containers once more
	ping     chan chan struct{}
	loops    map[string]func() time.Duration // by subsystem: how long the present turn has run
	troubles troubles

	unmerged atomic.Pointer[unmerged] // what other machines changed and could not be kept; nil: nothing

	networking sync.Mutex  // the network of the containers is made or changed
	bridged    atomic.Bool // the network of the containers was there once
	restartAll atomic.Bool // the bridge was remade under the containers
	leaving    atomic.Bool
	untold     error                       // why the others may not know that this machine left; read when it is gone
	restoring  atomic.Pointer[restoration] // what the next member begins with
	end        func()                      // makes run return
	quit       chan struct{}               // closed by end
	ended      chan struct{}               // closed when run has returned
	endedBy    error                       // why, to be read when ended is closed
	gone       chan struct{}               // closed when a member that left is forgotten
}

// newMember wires a member. It opens the store, and touches nothing else.
func newMember(ctx context.Context, cfg Config, id Identity, log *slog.Logger) (*member, error) {
	private, err := mesh.ParseKey(id.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("key of this machine: %w", err)
	}
	public, err := private.Public()
	if err != nil {
		return nil, fmt.Errorf("key of this machine: %w", err)
	}
	m := &member{
		cfg: cfg, id: id, log: log, key: private, manage: mesh.ManagementAddress(public),
		ready: make(chan struct{}), again: make(chan struct{}, 1), renet: make(chan struct{}, 1), ping: make(chan chan struct{}),
		quit: make(chan struct{}), ended: make(chan struct{}), gone: make(chan struct{}),
	}
	m.end = sync.OnceFunc(func() { close(m.quit) })
	m.store, err = store.Open(ctx, store.Options{
		Dir: m.storeDir(), Witness: filepath.Dir(cfg.Socket), Logger: m.sub("store"),
	})
	if err != nil {
		return nil, err
	}
	if err := m.wire(); err != nil {
		m.store.Close() //nolint:errcheck,gosec // the first error is the one to tell
		return nil, err
	}
	return m, nil
}

func (m *member) storeDir() string { return filepath.Join(m.cfg.StateDir, storeDir) }

func (m *member) sub(name string) *slog.Logger { return m.log.With("subsystem", name) }

// wire makes the organs and introduces them to each other.
func (m *member) wire() (err error) {
	m.mesh = newMesh(mesh.Options{Logger: m.sub("mesh"), BridgeRemade: m.bridgeRemade})
	m.firewall = firewall.New(firewall.Options{Log: m.sub("firewall")})
	m.questions = newQuestions()
	m.names = names.New(names.Options{Log: m.sub("names"), OnQuery: m.questions.count})
	m.engine = podman.New(podman.Config{Socket: m.cfg.PodmanSocket, Log: m.sub("runtime")})
	m.peers = server.NewPeers(m.dialAPI)
	if m.gossip, err = gossip.New(gossip.Options{
		Machine: m.id.MachineID, Cluster: m.id.ClusterID, Bind: netip.AddrPortFrom(m.manage, gossipPort), Logger: m.sub("gossip"),
	}); err != nil {
		return err
	}
	if m.sync, err = statesync.New(statesync.Options{
		Cluster: m.id.ClusterID, Machine: m.id.MachineID, Store: mergedStore{m.store, m}, Distance: m.gossip.RTT, Logger: m.sub("sync"),
	}); err != nil {
		return err
	}
	m.store.OnCommit(func(c store.Commit) {
		if c.Local {
			m.sync.Committed(c.Batch)
		}
	})
	if m.ingress, err = ingress.New(ingress.Options{Dir: filepath.Join(m.cfg.StateDir, "caddy"), Log: m.sub("ingress")}); err != nil {
		return err
	}
	if m.images, err = images.New(images.Options{Dir: filepath.Join(m.cfg.StateDir, "images"), Engine: m.engine, Log: m.sub("images")}); err != nil {
		return err
	}
	m.prober = health.New(health.Options{Log: m.sub("health"), Exec: m.probeExec, OnChange: m.verdict})
	m.replicas = reconcile.New(reconcile.Config{
		Machine: m.id.MachineID, Cluster: m.id.ClusterID, Engine: m.engine, Store: replicaStore{m}, Recorder: recorder{m},
		Health: probes{m}, Network: m.provideNetwork, Log: m.sub("reconcile"),
	})
	m.driver, err = rollout.New(rollout.Config{
		Self: m.id.MachineID, Store: rolloutStore{m}, Members: m.gossip, Peers: rolloutPeers{m}, Random: cryptoRandom, Now: time.Now, Log: m.sub("rollout"),
	})
	if err != nil {
		return err
	}
	m.loops = map[string]func() time.Duration{
		"sync": m.sync.Stalled, "reconcile": m.replicas.Stalled, "gossip": m.gossip.Stalled, "rollout": m.driver.Stalled, "ingress": m.ingressTurn.Took,
	}
	return m.wireUpgrades()
}

// run is the member's life.
func (m *member) run(ctx context.Context) (err error) {
	defer func() {
		m.endedBy = err
		close(m.ended)
	}()
	life, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-m.quit:
			cancel()
		case <-life.Done():
		}
	}()
	defer m.store.Close()  //nolint:errcheck // acknowledged writes are durable already
	defer m.mesh.Close()   //nolint:errcheck // a kernel link stays, one in this process ends with it
	defer m.ingress.Stop() //nolint:errcheck // the process ends
	defer m.gossip.Close() //nolint:errcheck // the others find out by themselves
	return together(life, m.start)
}

// runner starts what goes on until its context ends, under a name for its error.
type runner = func(what string, fn func(context.Context) error)

// together runs what start began. It returns when all of that has ended, also
// when start fails halfway or something fails meanwhile: then the rest is told
// to end. So who returns from it may close what the others stood on.
func together(ctx context.Context, start func(context.Context, runner) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	err := ended(ctx, start(ctx, func(what string, fn func(context.Context) error) {
		group.Go(func() error {
			if err := ended(ctx, fn(ctx)); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}))
	if err != nil {
		cancel()
	}
	return errors.Join(err, group.Wait())
}

// start begins what a member does. The order of the first lines matters:
// everything else speaks over the mesh, and behind the firewall.
func (m *member) start(ctx context.Context, run runner) error {
	if err := m.found(ctx); err != nil {
		return err
	}
	if err := m.images.Tidy(); err != nil {
		m.log.Warn("tidy what pushes left", "err", err)
	}
	if err := m.mesh.Start(m.meshIdentity()); err != nil {
		return err
	}
	run("firewall", m.firewall.Run)
	if err := m.gossip.Start(ctx); err != nil {
		return err
	}
	if err := m.serve(ctx, run); err != nil {
		return err
	}
	run("mesh", m.mesh.Run)
	run("gossip", m.gossip.Run)
	run("steer", m.steer)
	run("ingress", m.steerIngress)
	run("network", m.keepNetwork)
	run("diagnose", m.diagnose)
	run("names", m.names.Run)
	run("health", m.prober.Run)
	run("catch up", m.catchUp)
	run("reconcile", m.reconcile)
	run("rollout", m.onceMet(m.driver.Supervise))
	run("upgrade", m.onceMet(m.fleet.Run))
	run("upkeep", m.upkeep)
	return nil
}

// serve opens the ports of the management address.
func (m *member) serve(ctx context.Context, run runner) error {
	api := server.New(onlyMember{m}, m.sub("api"))
	syncListener, err := m.listen(ctx, syncPort)
	if err != nil {
		return err
	}
	run("sync", func(ctx context.Context) error { return m.sync.Run(ctx, syncListener) })
	for port, handler := range map[int]httpHandler{apiPort: api.Mesh(), admissionPort: api.Admission(), metricsPort: m.metricsHandler()} {
		l, err := m.listen(ctx, port)
		if err != nil {
			return err
		}
		run("api", func(ctx context.Context) error { return api.Serve(ctx, l, handler) })
	}
	return nil
}

// found writes the first rows of a cluster. Later starts find them there.
func (m *member) found(ctx context.Context) error {
	if m.id.Founded == nil || m.store.State().Cluster.ClusterID != "" {
		return nil
	}
	_, err := m.store.Update(ctx, func(tx *storeTx) error {
		tx.Put(
			spec.Cluster{
				ID: spec.ClusterKey, ClusterID: m.id.ClusterID, Network: m.id.Network, Domain: m.id.Founded.Domain, CreatedAt: m.id.Self.JoinedAt,
			},
			m.id.Self,
		)
		m.tell(tx, "cluster.founded", m.id.ClusterID, m.id.Self.Name+" founded the cluster")
		return nil
	})
	return err
}

func (m *member) meshIdentity() mesh.Identity {
	return mesh.Identity{
		PrivateKey: m.key, ListenPort: m.cfg.ListenPort, MTU: m.cfg.MTU, Subnet: m.subnet(), Network: m.id.Network,
	}
}

// subnet is this machine's own /24.
func (m *member) subnet() netip.Prefix {
	return m.membersOf(m.store.State()).Machines[m.id.MachineID].Subnet
}

func (m *member) isReady() bool {
	select {
	case <-m.ready:
		return true
	default:
		return false
	}
}

// awaitReady returns when the machine takes every command.
func (m *member) awaitReady(ctx context.Context) error {
	select {
	case <-m.ready:
		return nil
	case <-m.ended:
		return endedEarly(m.endedBy)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *member) steerAgain() {
	select {
	case m.again <- struct{}{}:
	default:
	}
}

// answers tells whether steer answers within a time.
func (m *member) answers(ctx context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	reply := make(chan struct{})
	select {
	case m.ping <- reply:
		return true
	case <-m.ended:
		return true // its end is the errgroup's to judge
	case <-ctx.Done():
		return false
	}
}

// describe fills in who this member is.
func (m *member) describe(info *uncloudv1.InfoResponse) {
	state := m.membersOf(m.store.State())
	info.MachineId, info.ClusterId, info.ManagementAddress = m.id.MachineID, m.id.ClusterID, m.manage.String()
	info.Name = state.MachineName(m.id.MachineID)
	if s := m.subnet(); s.IsValid() {
		info.Address = mesh.Gateway(s).String()
	}
	if m.isReady() {
		info.Phase = phaseReady
	}
	for _, n := range m.notes() {
		info.Health = append(info.Health, n.Message())
	}
}

// tell writes what happened here, and drops this machine's oldest events.
func (m *member) tell(tx *storeTx, kind, subject, text string) {
	m.dropEvents(tx)
	tx.Put(m.event(kind, subject, text))
}

// dropEvents makes room for one more event of this machine.
func (m *member) dropEvents(tx *storeTx) {
	for _, e := range tx.State().SurplusEvents(m.id.MachineID, 1) {
		tx.Delete(e.Table(), e.ID)
	}
}

// event is a row that tells a person what happened here.
func (m *member) event(kind, subject, text string) spec.Event {
	id, err := spec.NewID(spec.EventPrefix, cryptoRandom)
	if err != nil {
		id = spec.DerivedID(spec.EventPrefix, kind, subject, time.Now().String())
	}
	return spec.Event{ID: id, Machine: m.id.MachineID, At: time.Now(), Kind: kind, Subject: subject, Text: text}
}
