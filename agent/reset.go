package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
)

// leave begins the end of this member: its containers are stopped and removed,
// and run returns. What is on disk is forgotten afterwards (forget), so a power
// cut on the way leaves a member that can be reset again. When it fails, the
// member goes on. With tell, the others are told; otherwise who asked does that.
func (m *member) leave(ctx context.Context, tell bool) error {
	// From here on reconcile must not make them again.
	if !m.leaving.CompareAndSwap(false, true) {
		return faults.New(faults.Conflict, "this machine leaves its cluster already").
			WithHint("wait for it, and look on another machine: uc machine ls")
	}
	if err := m.removeContainers(ctx); err != nil {
		m.leaving.Store(false)
		m.replicas.Poke()
		return err
	}
	if tell {
		name, deaf := m.store.State().MachineName(m.id.MachineID), m.nobodyHears()
		m.untold = untold(name, cmp.Or(deaf, m.sayGoodbye(ctx)))
	}
	m.end()
	return nil
}

// nobodyHears is why a goodbye would reach no other machine, or nil. Where there
// is no other one, nobody is left out.
func (m *member) nobodyHears() error {
	others, alive := 0, m.gossip.Alive()
	for id := range m.store.State().Machines {
		if id == m.id.MachineID {
			continue
		}
		if alive[id] {
			return nil
		}
		others++
	}
	if others == 0 {
		return nil
	}
	return fmt.Errorf("none of the %d others can be reached", others)
}

// untold is what a person is told whose machine may have left without a word.
func untold(name string, why error) error {
	if why == nil {
		return nil
	}
	return faults.New(faults.Unreachable, "the other machines may not know that this one left: %w", why).
		WithHint("remove it on one of them: uc machine rm --force %s", name)
}

// sayGoodbye removes the own rows, so that no machine waits for this one, and
// leaves the gossip.
func (m *member) sayGoodbye(ctx context.Context) error {
	err := m.deleteOwnRows(ctx)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return errors.Join(err, m.gossip.Leave(ctx))
}

func (m *member) deleteOwnRows(ctx context.Context) error {
	_, err := m.store.Update(ctx, func(tx *storeTx) error {
		state := tx.State()
		if len(state.Machines) < 2 {
			return nil // nobody is left to be told
		}
		for _, row := range state.RowsOf(m.id.MachineID) {
			tx.Delete(row.Table(), row.Key())
		}
		return nil
	})
	return err
}

// removeContainers stops and removes every container of this cluster. Named
// volumes stay: data is never removed for the sake of order.
func (m *member) removeContainers(ctx context.Context) error {
	all, err := m.engine.List(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(stopsAtOnce)
	for _, c := range all {
		if c.Cluster == m.id.ClusterID {
			group.Go(func() error { return m.removeContainer(ctx, c) })
		}
	}
	return group.Wait()
}

// stopsAtOnce bounds how many containers are stopped side by side: each may
// take its whole grace.
const stopsAtOnce = 8

func (m *member) removeContainer(ctx context.Context, c runtime.Container) error {
	// An orphaned container answers the stop with an error and stops all the same.
	if err := m.engine.Stop(ctx, c.ID, runtime.OwnGrace); err != nil {
		m.log.Warn("stop container", "container", c.ID, "err", err)
	}
	if err := m.engine.Remove(ctx, c.ID); err != nil {
		return fmt.Errorf("remove container %s: %w", c.Name, err)
	}
	return nil
}

// left tells whether run ended because this machine leaves its cluster.
func (m *member) left() bool { return m.leaving.Load() }

// forget takes what the member left on the machine. The identity goes last:
// until then the machine is a member, and can be reset again.
func (m *member) forget(ctx context.Context) error {
	if err := m.removeContainers(ctx); err != nil {
		return err
	}
	if err := errors.Join(m.firewall.Remove(ctx), m.mesh.Destroy()); err != nil {
		return fmt.Errorf("take the network away: %w", err)
	}
	for _, name := range []string{"store", "caddy", "images", candidateFile, identityFile} {
		if err := os.RemoveAll(filepath.Join(m.cfg.StateDir, name)); err != nil {
			return fmt.Errorf("forget %s: %w", name, err)
		}
	}
	m.log.Info("this machine belongs to no cluster any more")
	return nil
}
