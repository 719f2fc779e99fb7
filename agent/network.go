package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"uncloud/agent/internal/mesh"
	"uncloud/agent/internal/runtime"
)

// newMesh knows the names of the links, which engine and firewall use too.
func newMesh(o mesh.Options) *mesh.Mesh {
	o.Link, o.Bridge = linkName, runtime.BridgeName
	return mesh.New(o)
}

// networkRetry is how often a network that could not be made is tried again.
const networkRetry = 5 * time.Second

// keepNetwork gives the containers their network: first the engine's idea of
// it, then the bridge, since Podman refuses a subnet that is on a link already.
// It does so again when this machine loses a clash of subnets and renumbers.
func (m *member) keepNetwork(ctx context.Context) error {
	changes := m.store.Subscribe("machines")
	defer changes.Close()
	for {
		err := m.ensureNetwork(ctx)
		m.troubles.setError("network", "engine", err)
		var retry <-chan time.Time
		if err != nil {
			m.log.Warn("network of the containers", "err", err)
			retry = time.After(networkRetry)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changes.C():
		case <-m.renet:
		case <-retry:
		}
	}
}

func (m *member) ensureNetwork(ctx context.Context) error {
	if err := m.renumber(ctx); err != nil {
		return err
	}
	subnet := m.subnet()
	err := m.provideNetwork(ctx, subnet)
	if errors.Is(err, runtime.ErrNetworkBusy) {
		// Containers of the old subnet are on their way out: reconcile replaces
		// every container whose address is not of this machine's subnet.
		m.replicas.Poke()
		return err
	}
	if err != nil {
		return err
	}
	if m.bridged.CompareAndSwap(false, true) {
		m.log.Info("network of the containers is there", "address", mesh.Gateway(subnet))
	}
	m.steerAgain()
	m.replicas.NetworkReady()
	return m.restartIfCutOff(ctx)
}

// provideNetwork makes what is not there yet. Two ask for it: keepNetwork, and
// reconcile, which cannot start a container before; whoever comes second finds
// all done.
func (m *member) provideNetwork(ctx context.Context, subnet netip.Prefix) error {
	m.networking.Lock()
	defer m.networking.Unlock()
	if now := m.subnet(); now != subnet {
		return fmt.Errorf("network %s: this machine has %s now", subnet, now)
	}
	n := runtime.Network{Name: runtime.NetworkName, Bridge: runtime.BridgeName, Subnet: subnet}
	if err := m.engine.EnsureNetwork(ctx, n); err != nil {
		return err
	}
	return m.mesh.EnsureBridge(subnet)
}

// restartIfCutOff stops the containers of a bridge that is gone; reconcile
// starts them again, on the new one.
func (m *member) restartIfCutOff(ctx context.Context) error {
	if !m.restartAll.Swap(false) {
		return nil
	}
	all, err := m.engine.List(ctx)
	if err != nil {
		m.restartAll.Store(true)
		return err
	}
	for _, c := range all {
		if c.Cluster == m.id.ClusterID && c.State.Alive() {
			if err := m.engine.Stop(ctx, c.ID, runtime.OwnGrace); err != nil {
				m.log.Warn("restart container on the new bridge", "container", c.ID, "err", err)
			}
		}
	}
	m.replicas.Poke()
	return nil
}

// renumber takes another subnet where the written rule gives this one to
// another machine.
func (m *member) renumber(ctx context.Context) error {
	if !m.isReady() {
		return nil
	}
	subnet, needed, err := mesh.Renumber(m.store.State(), m.id.MachineID)
	if err != nil || !needed {
		return err
	}
	m.networking.Lock()
	defer m.networking.Unlock()
	m.log.Warn("another machine owns this subnet: renumbering", "address", subnet)
	if err := m.mesh.ReleaseSubnet(); err != nil {
		return err
	}
	_, err = m.store.Update(ctx, func(tx *storeTx) error {
		if self, ok := tx.State().Machines[m.id.MachineID]; ok {
			self.Subnet = subnet
			tx.Put(self)
			m.tell(tx, "machine.renumbered", m.id.MachineID, self.Name+" took "+subnet.String())
		}
		return nil
	})
	return err
}

// bridgeRemade: containers that were on the old bridge are cut off until they
// are restarted, so all of them are.
func (m *member) bridgeRemade() {
	m.log.Warn("the bridge was removed by somebody and made again: restarting containers")
	m.restartAll.Store(true)
	select {
	case m.renet <- struct{}{}:
	default:
	}
}

// hairpin lets containers reach their own published ports. Each container
// brings a new port of the bridge, so it is asked for after each change.
func (m *member) hairpin() {
	if err := m.mesh.HairpinPorts(); err != nil {
		m.log.Debug("hairpin mode", "err", err)
	}
}
