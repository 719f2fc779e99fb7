package agent

import (
	"bytes"
	"context"
	"time"

	"uncloud/agent/internal/health"
	"uncloud/agent/internal/reconcile"
	"uncloud/agent/internal/runtime"
	"uncloud/agent/internal/server"
	"uncloud/internal/spec"
)

// This file fits the reconciler to the store, the prober and the API.

// replicaStore is the store as the reconciler sees it.
type replicaStore struct{ m *member }

// State of a member that leaves wants nothing to run here, and is no reason to
// remove anything: leave does that.
func (s replicaStore) State() *spec.State {
	state := s.m.store.State()
	if !s.m.leaving.Load() {
		return state
	}
	resting := *state
	resting.Replicas = nil
	return &resting
}

func (s replicaStore) Ready() bool { return s.m.isReady() && !s.m.leaving.Load() }

// replicaTables are those that say what should run here, and the one that says
// what does: a row that another machine wrote over is put right at once. What
// no table says is told by who changes it: that this machine is ready
// (catchUp), that its network is there (keepNetwork), that leaving failed
// (leave), and that an image was sent here.
var replicaTables = []string{"services", "revisions", "replicas", "machines", "cluster", "containers"}

func (s replicaStore) Subscribe() (<-chan struct{}, func()) {
	sub := s.m.store.Subscribe(replicaTables...)
	return sub.C(), sub.Close
}

// recorder writes what runs here. Rows are compared by the store, so saying
// again what is known writes nothing.
type recorder struct{ m *member }

func (r recorder) Record(ctx context.Context, rows []spec.Container, gone []string) error {
	_, err := r.m.store.Update(ctx, func(tx *storeTx) error {
		for _, row := range rows {
			tx.Put(row)
		}
		for _, replica := range gone {
			tx.Delete(spec.Container{}.Table(), replica)
		}
		return nil
	})
	if len(rows) > 0 {
		r.m.hairpin()
	}
	return err
}

// probes is the prober as the reconciler sees it.
type probes struct{ m *member }

func (p probes) Watch(replica string, t reconcile.Target) {
	known := p.m.store.State().Containers[replica]
	target := health.Target{ContainerID: t.Container, Address: t.Address, Check: t.Check, StartedAt: t.StartedAt}
	// The store keeps microseconds.
	if known.EngineID == t.Container && known.StartedAt.Sub(t.StartedAt).Abs() < time.Millisecond {
		target.Known = known.Health
	}
	p.m.prober.Watch(replica, target)
}

func (p probes) Forget(replica string) { p.m.prober.Forget(replica) }

// verdict passes the news of a health check on.
func (m *member) verdict(v health.Verdict) {
	m.replicas.Verdict(reconcile.Verdict{
		Replica: v.Replica, Container: v.ContainerID, StartedAt: v.StartedAt, Health: v.Health, Output: v.Output,
	})
}

// probeOutput bounds what is kept of a probe's output.
const probeOutput = 4096

// probeExec runs a probe in a container.
func (m *member) probeExec(ctx context.Context, container string, argv []string) (int, string, error) {
	out := &cappedBuffer{limit: probeOutput}
	code, err := m.engine.Exec(ctx, container, runtime.ExecRequest{Command: argv, Stdout: out, Stderr: out})
	return code, out.String(), err
}

// cappedBuffer keeps the first bytes and swallows the rest.
type cappedBuffer struct {
	bytes.Buffer
	limit int
}

func (b *cappedBuffer) Write(p []byte) (int, error) {
	if room := b.limit - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// ensure runs a replica of this machine and tells how it turned out.
func (m *member) ensure(ctx context.Context, replica string, skipHealth bool) (server.Outcome, error) {
	res, err := m.replicas.EnsureReplica(ctx, replica, skipHealth)
	if err != nil {
		return server.Outcome{}, err
	}
	// What the result says is recorded, so this machine's newest version has it.
	site := m.store.Site()
	at := server.Version{Site: site.String(), Seq: m.store.Known().Head(site)}
	return server.Outcome{Fault: res.Fault, Logs: res.Logs, Version: at}, nil
}

// localReplicas are the replicas of this machine as the API sees them.
type localReplicas struct{ m *member }

func (r localReplicas) Ensure(ctx context.Context, replica string, skipHealth bool) (server.Outcome, error) {
	return r.m.ensure(ctx, replica, skipHealth)
}

func (r localReplicas) Retire(ctx context.Context, replica string) error {
	return r.m.replicas.RetireReplica(ctx, replica)
}
