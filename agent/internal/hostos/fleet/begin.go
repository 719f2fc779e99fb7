package fleet

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Request is what a person asked for.
type Request struct {
	Machines []string // names or ids
	All      bool     // every machine that runs NixOS
	// At most one of these; see spec.Upgrade.
	Flake      string
	System     string
	Generation int
	Rollback   bool

	Restart, Drain bool
}

// keptUpgrades is how many ended upgrades stay recorded.
const keptUpgrades = 5

// Begin writes an upgrade and returns its id; from then on the machines go
// through it by themselves. The same request while its upgrade is under way is
// that upgrade.
//
// Its errors are faults: NotNixOS, MachineDown or NotFound for a machine that
// was named, Busy while another upgrade is under way.
func (f *Fleet) Begin(ctx context.Context, r Request) (id string, err error) {
	err = f.Store.Update(ctx, func(tx Tx) error {
		id = ""
		u, err := f.upgradeOf(tx.State(), r)
		if err != nil {
			return err
		}
		if now, running := tx.State().CurrentUpgrade(); running {
			id = now.ID
			return sameOr(busy(tx.State(), now), now, u)
		}
		if u.ID, err = f.NewID(); err != nil {
			return err
		}
		id = u.ID
		tx.Put(u)
		trim(tx)
		tx.Put(f.Event("upgrade.began", id, "upgrade "+id+" of "+names(tx.State(), u.Machines)+" began"))
		return nil
	})
	return id, err
}

// upgradeOf is the row that a request asks for, without its id.
func (f *Fleet) upgradeOf(s *spec.State, r Request) (spec.Upgrade, error) {
	given := 0
	for _, is := range []bool{r.Flake != "", r.System != "", r.Generation != 0, r.Rollback} {
		if is {
			given++
		}
	}
	if given > 1 {
		return spec.Upgrade{}, faults.New(faults.Invalid, "a machine goes to one generation: a flake's, a store path, a number, or the one before").
			WithHint("such as: uc machine upgrade --all --flake github:you/machines")
	}
	if err := checkTarget(r); err != nil {
		return spec.Upgrade{}, err
	}
	machines, err := f.order(s, r)
	if err != nil {
		return spec.Upgrade{}, err
	}
	return spec.Upgrade{
		Machines: machines, Flake: r.Flake, System: r.System, Generation: r.Generation, Rollback: r.Rollback, Restart: r.Restart,
		Drain: r.Drain, Stage: spec.UpgradeRunning, StartedBy: f.Self, StartedAt: f.Now(),
	}, nil
}

// order is the machines of a request in the order of their turns: as they were
// named, or by name with the asked machine as the last, so that a person's
// connection is cut when all else is done.
func (f *Fleet) order(s *spec.State, r Request) ([]string, error) {
	var all []spec.Machine
	if r.All {
		all = f.everyNixOS(s)
	}
	for _, ref := range r.Machines {
		m, ok := s.MachineByRef(ref)
		if !ok {
			return nil, faults.New(faults.NotFound, "there is no machine %s", ref).WithHint("see the names: uc machine ls")
		}
		if !slices.ContainsFunc(all, func(o spec.Machine) bool { return o.ID == m.ID }) {
			all = append(all, m)
		}
	}
	if len(all) == 0 && r.All {
		return nil, faults.New(faults.NotNixOS, "no machine of this cluster runs NixOS, so none has generations").
			WithHint("upgrade their systems with their own tools, one machine at a time")
	}
	if len(all) == 0 {
		return nil, faults.New(faults.Invalid, "no machine was named").WithHint("name some, or take all: uc machine upgrade --all")
	}
	alive := f.Members.Alive()
	var ids []string
	for _, m := range all {
		if m.NixOS == "" && m.Generation == "" {
			return nil, NotNixOS(m.Name)
		}
		if !alive[m.ID] {
			return nil, faults.New(faults.MachineDown, "machine %s is down", m.Name).
				WithHint("start it, or name the others: uc machine upgrade MACHINE...")
		}
		ids = append(ids, m.ID)
	}
	return ids, nil
}

func (f *Fleet) everyNixOS(s *spec.State) []spec.Machine {
	var all []spec.Machine
	shown := s.MachineNames()
	for id, m := range s.Machines {
		if m.NixOS != "" || m.Generation != "" {
			m.Name = shown[id]
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b spec.Machine) int {
		switch f.Self {
		case a.ID:
			return 1
		case b.ID:
			return -1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return all
}

// NotNixOS is the refusal on a machine that has no generations.
func NotNixOS(machine string) error {
	return faults.New(faults.NotNixOS, "machine %s does not run NixOS, so it has no generations", machine).
		WithHint("upgrade its system with its own tools; its services need nothing but the agent")
}

// sameOr is nil for an upgrade that is the one under way, or err.
func sameOr(err error, now, u spec.Upgrade) error {
	same := slices.Equal(sorted(now.Machines), sorted(u.Machines)) && now.Flake == u.Flake && now.System == u.System &&
		now.Generation == u.Generation && now.Rollback == u.Rollback && now.Restart == u.Restart && now.Drain == u.Drain
	if same {
		return nil
	}
	return err
}

func sorted(ids []string) []string { return slices.Sorted(slices.Values(ids)) }

func busy(s *spec.State, now spec.Upgrade) error {
	return faults.New(faults.Busy, "an upgrade of %s is under way since %s UTC", names(s, now.Machines), now.StartedAt.UTC().Format("15:04:05")).
		WithHint("watch it: uc machine upgrade --watch; or end it: uc machine upgrade --stop")
}

func names(s *spec.State, ids []string) string {
	shown := make([]string, len(ids))
	for i, id := range ids {
		shown[i] = s.MachineName(id)
	}
	return strings.Join(shown, ", ")
}

// trim forgets the oldest ended upgrades.
func trim(tx Tx) {
	var ended []spec.Upgrade
	for _, u := range tx.State().Upgrades {
		if u.Stage != spec.UpgradeRunning {
			ended = append(ended, u)
		}
	}
	slices.SortFunc(ended, func(a, b spec.Upgrade) int { return cmp.Or(b.EndedAt.Compare(a.EndedAt), cmp.Compare(a.ID, b.ID)) })
	for _, u := range ended[min(len(ended), keptUpgrades):] {
		tx.Delete(u.Table(), u.ID)
	}
}

// Stop ends the upgrade that is under way and returns its id. The machine whose
// turn it is returns, unless it is confirmed already.
func (f *Fleet) Stop(ctx context.Context) (id string, err error) {
	u, running := f.Store.State().CurrentUpgrade()
	if !running {
		return "", faults.New(faults.NotFound, "no upgrade is under way").WithHint("see what the machines run: uc machine ls")
	}
	return u.ID, f.finish(ctx, u.ID, verdict{spec.UpgradeStopped, "it was ended from " + f.Store.State().MachineName(f.Self)})
}

// Abandon ends what a restored state holds as under way, where nobody else
// lives who would know how it ended. What it led to is no reason any more to
// change a system: the backup may be months old.
func (f *Fleet) Abandon(ctx context.Context) error {
	for id, u := range f.Store.State().Upgrades {
		if u.Stage != spec.UpgradeRunning {
			continue
		}
		why := "the state is that of a backup which was made in the middle of it"
		if err := f.finish(ctx, id, verdict{spec.UpgradeFailed, why}); err != nil {
			return err
		}
	}
	return nil
}

// Find is the upgrade with an id: for none the one under way, or else the last.
func Find(s *spec.State, id string) (spec.Upgrade, error) {
	if id == "" {
		if u, ok := s.CurrentUpgrade(); ok {
			return u, nil
		}
		for _, u := range s.Upgrades {
			if last := s.Upgrades[id]; id == "" || cmp.Or(u.StartedAt.Compare(last.StartedAt), cmp.Compare(u.ID, last.ID)) > 0 {
				id = u.ID
			}
		}
	}
	u, ok := s.Upgrades[id]
	if !ok {
		return u, faults.New(faults.NotFound, "there is no such upgrade").WithHint("begin one: uc machine upgrade --all --flake REF")
	}
	return u, nil
}

// Follow calls tell at the beginning and after each change, until the upgrade
// has ended or tell returns an error.
func (f *Fleet) Follow(ctx context.Context, id string, tell func(*spec.State, spec.Upgrade) error) error {
	rows, cancel := f.Store.Subscribe()
	defer cancel()
	members, stop := f.Members.Subscribe()
	defer stop()
	for {
		state := f.Store.State()
		u, err := Find(state, id)
		if err != nil {
			return err
		}
		id = u.ID
		if err := tell(state, u); err != nil {
			return err
		}
		if u.Stage != spec.UpgradeRunning && settled(state, u, f.Members.Alive()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rows:
		case <-members:
		}
	}
}

// settled tells whether nobody is at work on an ended upgrade any more.
func settled(s *spec.State, u spec.Upgrade, alive spec.Alive) bool {
	for _, id := range u.Machines {
		if t, begun := s.TurnIn(u.ID, id); begun && !t.Stage.Ended() && alive[id] {
			return false
		}
	}
	return true
}
