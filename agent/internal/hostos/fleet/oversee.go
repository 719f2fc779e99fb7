package fleet

import (
	"context"
	"fmt"
	"time"

	"uncloud/internal/spec"
)

const (
	// beginWithin is how long the machine whose turn has not begun may be down.
	beginWithin = 2 * time.Minute
	// awayWithin is how long one may be down in its turn: it restarts, waits to
	// be confirmed, and may restart once more to return.
	awayWithin = 30 * time.Minute
)

// verdict is the end of an upgrade that is not the business of the machines
// that are to take their turns; none is the zero value.
type verdict struct {
	stage spec.UpgradeStage
	why   string
}

// judgeUpgrade tells whether an upgrade has ended. gone is since when the
// machine whose turn it is has been down; zero: it lives.
func judgeUpgrade(s *spec.State, u spec.Upgrade, gone, now time.Time) verdict {
	next, failed := s.NextInUpgrade(u)
	switch {
	case failed != nil:
		return verdict{spec.UpgradeFailed, s.MachineName(failed.Machine) + ": " + failed.Error}
	case next == "":
		return verdict{stage: spec.UpgradeDone}
	case gone.IsZero():
		return verdict{}
	}
	within := beginWithin
	if _, begun := s.TurnIn(u.ID, next); begun {
		within = awayWithin
	}
	if now.Sub(gone) < within {
		return verdict{}
	}
	return verdict{spec.UpgradeFailed, fmt.Sprintf("%s has been down for %s", s.MachineName(next), within)}
}

// oversee writes that upgrades have ended. The living machine with the lowest
// id does it, for all.
func (f *Fleet) oversee(ctx context.Context) error {
	state, alive := f.Store.State(), f.Members.Alive()
	if !state.Leads(alive, f.Self) {
		clear(f.down)
		return nil
	}
	u, running := state.CurrentUpgrade()
	if !running {
		return nil
	}
	next, _ := state.NextInUpgrade(u)
	v := judgeUpgrade(state, u, f.goneSince(next, alive), f.Now())
	if v.stage == "" {
		return nil
	}
	return f.finish(ctx, u.ID, v)
}

// goneSince is since when a machine is down, by what this one has seen.
func (f *Fleet) goneSince(machine string, alive spec.Alive) time.Time {
	if machine == "" || alive[machine] {
		delete(f.down, machine)
		return time.Time{}
	}
	if f.down[machine].IsZero() {
		f.down[machine] = f.Now()
	}
	return f.down[machine]
}

func (f *Fleet) finish(ctx context.Context, id string, v verdict) error {
	return f.Store.Update(ctx, func(tx Tx) error {
		u, ok := tx.State().Upgrades[id]
		if !ok || u.Stage != spec.UpgradeRunning {
			return nil
		}
		u.Stage, u.Error, u.EndedAt = v.stage, v.why, f.Now()
		tx.Put(u)
		text := "upgrade " + id + " is " + string(v.stage)
		if v.why != "" {
			text += ": " + v.why
		}
		tx.Put(f.Event("upgrade."+string(v.stage), id, text))
		f.Log.Info("upgrade ended", "upgrade", id, "state", v.stage, "reason", v.why)
		return nil
	})
}
