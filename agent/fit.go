package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/reconcile"
	"uncloud/agent/internal/rollout"
	"uncloud/agent/internal/server"
	"uncloud/agent/internal/store"
	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// This file fits organs together that say the same thing in types of their own.

type storeTx = store.Tx

// toVersion is a commit as names on the wire give it.
func toVersion(site string, seq uint64) (crdt.Version, error) {
	if site == "" || seq == 0 {
		return crdt.Version{}, nil
	}
	id, err := crdt.ParseSiteID(site)
	if err != nil {
		return crdt.Version{}, faults.New(faults.Invalid, "%w", err).WithHint("compare the versions: uc machine ls")
	}
	return crdt.Version{Site: id, Seq: seq}, nil
}

// update is store.Update for the API.
func (m *member) update(ctx context.Context, fn func(server.Tx) error) (server.Version, error) {
	v, err := m.store.Update(ctx, func(tx *storeTx) error { return fn(tx) })
	return server.Version{Site: v.Site.String(), Seq: v.Seq}, err
}

// rolloutStore is the store as the rollout driver sees it.
type rolloutStore struct{ m *member }

func (s rolloutStore) State() *spec.State { return s.m.store.State() }
func (s rolloutStore) Ready() bool        { return s.m.isReady() }

func (s rolloutStore) Update(ctx context.Context, fn func(rollout.Tx) error) (rollout.Version, error) {
	v, err := s.m.store.Update(ctx, func(tx *storeTx) error { return fn(rolloutTx{tx}) })
	return rollout.Version{Site: v.Site.String(), Seq: v.Seq}, err
}

func (s rolloutStore) Subscribe() (<-chan struct{}, func()) {
	sub := s.m.store.Subscribe()
	return sub.C(), sub.Close
}

// rolloutTx: the store keeps the first error of a Put itself, and fails the
// Update with it.
type rolloutTx struct{ *storeTx }

func (t rolloutTx) Put(rows ...spec.Row) error { t.storeTx.Put(rows...); return nil }
func (t rolloutTx) Delete(table, key string) error {
	t.storeTx.Delete(table, key)
	return nil
}

// rolloutPeers calls machines for the driver: others over the mesh, this one
// without a detour.
type rolloutPeers struct{ m *member }

func (p rolloutPeers) RunReplica(ctx context.Context, machine, replica string, v rollout.Version, skipHealth bool) (rollout.Verdict, error) {
	out, err := p.run(ctx, machine, replica, server.Version(v), skipHealth)
	return rollout.Verdict{Fault: out.Fault, Logs: out.Logs, Version: rollout.Version(out.Version)}, err
}

func (p rolloutPeers) run(ctx context.Context, machine, replica string, v server.Version, skipHealth bool) (server.Outcome, error) {
	if machine == p.m.id.MachineID {
		return p.m.ensure(ctx, replica, skipHealth)
	}
	return p.m.peers.RunReplica(ctx, machine, replica, v, skipHealth)
}

func (p rolloutPeers) RetireReplica(ctx context.Context, machine, replica string, v rollout.Version) error {
	if machine == p.m.id.MachineID {
		return p.m.replicas.RetireReplica(ctx, replica)
	}
	return p.m.peers.RetireReplica(ctx, machine, replica, server.Version(v))
}

func (p rolloutPeers) AwaitLoaded(ctx context.Context, machine string, v rollout.Version) error {
	if machine == p.m.id.MachineID {
		return p.m.awaitLoaded(ctx, server.Version(v))
	}
	return p.m.peers.AwaitLoaded(ctx, machine, server.Version(v))
}

func (p rolloutPeers) RemoveVolume(ctx context.Context, v spec.Volume) error {
	if v.Spec.External {
		return nil // not ours to remove
	}
	name := reconcile.VolumeName(v.Project, v.Spec)
	if v.Machine == p.m.id.MachineID {
		return p.m.engine.RemoveVolume(ctx, name)
	}
	return p.m.peers.RemoveVolume(ctx, v.Machine, name)
}

func (p rolloutPeers) HasImages(ctx context.Context, machine string, images []string) ([]string, error) {
	if machine == p.m.id.MachineID {
		return p.m.containers().HasImages(ctx, images)
	}
	return p.m.peers.HasImages(ctx, machine, images)
}

// awaitLoaded returns when names and ingress work with the version.
func (m *member) awaitLoaded(ctx context.Context, v server.Version) error {
	at, err := toVersion(v.Site, v.Seq)
	if err != nil {
		return err
	}
	if err := m.namesLoaded.await(ctx, at); err != nil {
		return err
	}
	return m.ingressLoaded.await(ctx, at)
}

// waitFor returns when the store has the version. Being asked about a version
// that is not here is a hint that there is something to fetch.
func (m *member) waitFor(ctx context.Context, v server.Version) error {
	at, err := toVersion(v.Site, v.Seq)
	if err != nil || m.store.Covers(at) {
		return err
	}
	m.sync.Poke("")
	err = m.store.WaitFor(ctx, at)
	if missing := m.unmerged.Load(); err != nil && missing != nil {
		return missing.why // the version is not late: it cannot be kept
	}
	return err
}

// mergedStore is the store as the syncer sees it. What it cannot take in is
// this machine's trouble until it can.
type mergedStore struct {
	*store.Store
	m *member
}

func (s mergedStore) Merge(ctx context.Context, b crdt.Batch) (crdt.Known, error) {
	known, err := s.Store.Merge(ctx, b)
	if ctx.Err() == nil {
		s.m.merged(b, known, err)
	}
	return known, err
}

func (s mergedStore) AdoptSnapshot(ctx context.Context, all crdt.Snapshot) (crdt.Known, error) {
	known, err := s.Store.AdoptSnapshot(ctx, all)
	if ctx.Err() == nil {
		s.m.merged(all.Batch, known, err)
	}
	return known, err
}

// unmerged is what other machines changed and could not be kept here.
type unmerged struct {
	why      error
	versions crdt.Known
}

// merged notes what became of a batch. known is what is here if err is nil.
func (m *member) merged(b crdt.Batch, known crdt.Known, err error) {
	missing := m.unmerged.Load()
	switch {
	case err != nil:
		now := &unmerged{err, versionsOf(b)}
		if missing != nil {
			now.versions = now.versions.Union(missing.versions)
		}
		m.unmerged.Store(now)
	case missing == nil:
		return
	case faults.CodeOf(missing.why) == faults.DiskFull && !known.CoversAll(missing.versions):
		return // something smaller fitted on the full disk
	default:
		m.unmerged.Store(nil)
	}
	if faults.CodeOf(err) == faults.DiskFull {
		err = nil // see storeNotes
	}
	m.troubles.setError("store", "store", err)
}

// versionsOf are those that a batch brings. Parts of a large one have no marks.
func versionsOf(b crdt.Batch) crdt.Known {
	versions := b.Marks
	for _, row := range b.Rows {
		for _, v := range row.Writers {
			versions = versions.Union(crdt.Knows(v))
		}
	}
	return versions
}

// rollouts is the driver as the API sees it.
type rollouts struct{ driver *rollout.Driver }

func deployRequest(o server.DeployOptions) rollout.DeployRequest {
	return rollout.DeployRequest{Project: o.Project, Specs: o.Specs, Recreate: o.Recreate, Prune: o.Prune, SkipHealth: o.SkipHealth, Agreed: o.Agreed}
}

func teller(tell func(server.Progress)) func(rollout.Progress) {
	return func(p rollout.Progress) {
		tell(server.Progress{Kind: string(p.Kind), Plan: p.Plan, Step: p.Step, Text: p.Text, Logs: p.Logs})
	}
}

func (r rollouts) PlanDeploy(ctx context.Context, o server.DeployOptions) (plan.Plan, error) {
	return r.driver.PlanDeploy(ctx, deployRequest(o))
}

func (r rollouts) Deploy(ctx context.Context, o server.DeployOptions, tell func(server.Progress)) error {
	return r.driver.Deploy(ctx, deployRequest(o), teller(tell))
}

func (r rollouts) Scale(ctx context.Context, service string, replicas int, dryRun bool, agreed string, tell func(server.Progress)) error {
	if dryRun {
		return tellPlan(tell)(r.driver.PlanScale(ctx, service, replicas))
	}
	return r.driver.Scale(ctx, service, replicas, agreed, teller(tell))
}

func (r rollouts) Rollback(ctx context.Context, service, revision string, dryRun bool, agreed string, tell func(server.Progress)) error {
	if dryRun {
		return tellPlan(tell)(r.driver.PlanRollback(ctx, service, revision))
	}
	return r.driver.Rollback(ctx, service, revision, agreed, teller(tell))
}

// tellPlan shows the plan of one service, which is all that a dry run does.
func tellPlan(tell func(server.Progress)) func(plan.ServicePlan, error) error {
	return func(p plan.ServicePlan, err error) error {
		if err == nil {
			tell(server.Progress{Kind: string(rollout.ProgressPlan), Plan: &plan.Plan{Services: []plan.ServicePlan{p}}})
		}
		return err
	}
}

func (r rollouts) Start(ctx context.Context, services []string, tell func(server.Progress)) error {
	return r.driver.Start(ctx, services, teller(tell))
}

func (r rollouts) Stop(ctx context.Context, services []string, tell func(server.Progress)) error {
	return r.driver.Stop(ctx, services, teller(tell))
}

func (r rollouts) PlanRemoval(services []string, volumes bool) (plan.Plan, error) {
	return r.driver.PlanRemoval(services, volumes)
}

func (r rollouts) Remove(ctx context.Context, services []string, volumes bool, agreed string, tell func(server.Progress)) error {
	return r.driver.Remove(ctx, services, volumes, agreed, teller(tell))
}

func (r rollouts) RemoveVolumes(ctx context.Context, volumes []string, tell func(server.Progress)) error {
	return r.driver.RemoveVolumes(ctx, volumes, teller(tell))
}

// dialMachine connects to a port of another machine's management address.
func (m *member) dialMachine(ctx context.Context, machine string, port int) (net.Conn, error) {
	other, ok := m.store.State().Machines[machine]
	if !ok {
		return nil, faults.New(faults.NotFound, "machine %s is no member", machine).WithHint("see the members: uc machine ls")
	}
	addr := managementOf(other.PublicKey)
	if !addr.IsValid() {
		return nil, faults.New(faults.Internal, "machine %s has a key that cannot be read", machine).
			WithHint("remove it, and let it join again: uc machine rm --force %s", m.store.State().MachineName(machine))
	}
	d := net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), strconv.Itoa(port)))
	if err != nil {
		return nil, faults.New(faults.Unreachable, "machine %s does not answer over the mesh", m.store.State().MachineName(machine)).
			WithHint("see whether its tunnel is up: uc wg show").Because(err)
	}
	return conn, nil
}

func (m *member) dialAPI(ctx context.Context, machine string) (net.Conn, error) {
	return m.dialMachine(ctx, machine, apiPort)
}

// listen opens a port of the own management address, which exists once the
// mesh has started.
func (m *member) listen(ctx context.Context, port int) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(m.manage, uint16(port)).String()) //nolint:gosec // our constants
	if err != nil {
		return nil, fmt.Errorf("listen for other machines: %w", err)
	}
	return l, nil
}

// ended is nil for an error that only says that ctx did.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
