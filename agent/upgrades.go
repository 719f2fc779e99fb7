package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"uncloud/agent/internal/hostos"
	"uncloud/agent/internal/hostos/fleet"
	"uncloud/agent/internal/server"
	"uncloud/internal/spec"
)

// UpgradeConfig is what the machine's owner decided about its generations.
type UpgradeConfig struct {
	// Flake is what an upgrade leads to that names nothing, and Configuration
	// the machine's own in a flake; empty is the host name.
	Flake         string `json:"flake"`
	Configuration string `json:"configuration"`
	// ConfirmWithin is how long a new generation waits for the other machines.
	ConfirmWithin spec.Duration `json:"confirmWithin"`
	// RefuseRestart refuses upgrades that restart the machine.
	RefuseRestart bool `json:"refuseRestart"`
	// Drain moves replicas away before every upgrade.
	Drain bool `json:"drain"`
}

// RunHost is the life of the host process: it carries out what the agent has
// ordered of this machine's system, and returns when nothing is.
func RunHost(ctx context.Context, output io.Writer, log *slog.Logger) error {
	machine := hostos.NixOS{Root: "/", Dir: hostos.DefaultDir, Output: output}
	return hostos.New(hostos.Options{Dir: hostos.DefaultDir, Machine: machine, Log: log.With("subsystem", "host")}).Run(ctx)
}

// wireUpgrades makes the organ that takes this machine's turns.
func (m *member) wireUpgrades() (err error) {
	m.host = hostos.NewClient("/", hostos.DefaultDir)
	m.fleet, err = fleet.New(fleet.Config{
		Self: m.id.MachineID, Store: fleetStore{m}, Members: m.gossip, Host: m.host, Witness: m.askWitness, Ensure: m.ensureHealthy,
		Policy: m.upgradePolicy(),
		NewID:  func() (string, error) { return spec.NewID(spec.UpgradePrefix, cryptoRandom) },
		Event:  m.event, Now: time.Now, Log: m.sub("upgrade"),
	})
	return err
}

func (m *member) upgradePolicy() fleet.Policy {
	c := m.cfg.Upgrade
	p := fleet.Policy{Flake: c.Flake, Name: c.Configuration, Within: time.Duration(c.ConfirmWithin), NoRestart: c.RefuseRestart, Drain: c.Drain}
	if p.Name == "" {
		p.Name, _ = os.Hostname() //nolint:errcheck // without a name the build says what is missing
	}
	return p
}

func (m *member) askWitness(ctx context.Context, machine, upgrade string, v fleet.Version) (fleet.Version, error) {
	theirs, err := m.peers.ConfirmTurn(ctx, machine, m.id.MachineID, upgrade, server.Version(v))
	return fleet.Version(theirs), err
}

func (m *member) ensureHealthy(ctx context.Context, replica string) error {
	res, err := m.replicas.EnsureReplica(ctx, replica, false)
	if err != nil {
		return err
	}
	return res.Fault
}

// fleetStore is the store as upgrades see it.
type fleetStore struct{ m *member }

func (s fleetStore) State() *spec.State { return s.m.store.State() }
func (s fleetStore) Ready() bool        { return s.m.isReady() }

func (s fleetStore) Update(ctx context.Context, fn func(fleet.Tx) error) error {
	_, err := s.m.store.Update(ctx, func(tx *storeTx) error {
		s.m.dropEvents(tx) // an upgrade writes one with most of its changes
		return fn(tx)
	})
	return err
}

func (s fleetStore) Subscribe() (<-chan struct{}, func()) {
	sub := s.m.store.Subscribe()
	return sub.C(), sub.Close
}

func (s fleetStore) Head() fleet.Version {
	site := s.m.store.Site()
	return fleet.Version{Site: site.String(), Seq: s.m.store.Known().Head(site)}
}

func (s fleetStore) WaitFor(ctx context.Context, v fleet.Version) error {
	return s.m.waitFor(ctx, server.Version(v))
}

// upgrades is what the API asks about generations.
type upgrades struct{ m *member }

func (u upgrades) Generations() ([]server.Generation, error) {
	if !u.m.host.Is() {
		return nil, fleet.NotNixOS(u.m.store.State().MachineName(u.m.id.MachineID))
	}
	all, err := u.m.host.Generations()
	if err != nil {
		return nil, fmt.Errorf("read the generations of this machine: %w", err)
	}
	out := make([]server.Generation, 0, len(all))
	for _, g := range all {
		out = append(out, server.Generation{
			Number: g.Number, System: g.System, NixOS: g.NixOS, Made: g.Made, Current: g.Current, Booted: g.Booted, Default: g.Default,
		})
	}
	return out, nil
}

func (u upgrades) Begin(ctx context.Context, r server.UpgradeRequest) (string, error) {
	return u.m.fleet.Begin(ctx, fleet.Request(r))
}

func (u upgrades) Stop(ctx context.Context) (string, error) { return u.m.fleet.Stop(ctx) }

func (u upgrades) Find(id string) (spec.Upgrade, error) { return fleet.Find(u.m.store.State(), id) }

func (u upgrades) Follow(ctx context.Context, id string, tell func(*spec.State, spec.Upgrade) error) error {
	return u.m.fleet.Follow(ctx, id, tell)
}

func (u upgrades) Confirm(machine, upgrade string) (server.Version, error) {
	v, err := u.m.fleet.Confirm(machine, upgrade)
	return server.Version(v), err
}

// describeSystem fills in which generation runs, where there are any.
func (m *member) describeSystem(self *spec.Machine) error {
	if !m.host.Is() {
		self.Generation, self.System, self.NixOS = "", "", ""
		return nil
	}
	all, err := m.host.Generations()
	if err != nil {
		return fmt.Errorf("read the generations of this machine: %w", err)
	}
	self.Generation = hostos.Summary(all)
	for _, g := range all {
		if g.Current {
			self.System, self.NixOS = hostos.Name(g.System), g.NixOS
		}
	}
	return nil
}
