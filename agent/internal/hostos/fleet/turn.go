package fleet

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"uncloud/agent/internal/hostos"
	"uncloud/agent/internal/schedule"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// How long a turn waits before the machine is touched. Then it fails, and
// nothing was changed.
const (
	rolloutsWithin = 15 * time.Minute
	drainWithin    = 10 * time.Minute
	// hostWithin is how long the host process may take to begin.
	hostWithin = 2 * time.Minute
)

// view is what a turn is decided from.
type view struct {
	*spec.State
	alive   spec.Alive
	self    string
	now     time.Time
	nixos   bool
	attempt hostos.Attempt
	// ordered is the last order of the attempt of the upgrade, if there is one.
	ordered hostos.Order
	// lost is what is ordered of an attempt of another upgrade that has not
	// ended, and that nobody follows; its id is empty where there is none.
	lost   hostos.Order
	policy Policy
	// before is the generation to go back to; number 0 is none.
	before hostos.Info
}

// move is what a machine does next in its turn: it writes the row, then gives
// the order, then asks the witnesses.
type move struct {
	turn  *spec.Turn
	order *hostos.Order
	ask   bool
	// read is what a flake is by now, if the machines after this one need to know.
	read *flakeRead
}

// flakeRead is the reference of a flake, and the same with what is in it now.
type flakeRead struct{ reference, locked string }

// decide is what this machine has to do now. It is pure, and what it asks for
// may be done twice.
func decide(v view) move {
	u, mine := v.upgrade()
	if !mine {
		return v.leave()
	}
	turn, begun := v.TurnIn(u.ID, v.self)
	if begun && turn.Stage.Ended() {
		return move{}
	}
	if !begun {
		turn = spec.Turn{Machine: v.self, Upgrade: u.ID, Drain: u.Drain || v.policy.Drain}
	}
	if v.attempt.ID != u.ID {
		return v.start(u, turn)
	}
	m := v.proceed(turn)
	m.read = v.read(u)
	return m
}

// read is what this machine found a flake to be, where it is the first that did.
func (v view) read(u spec.Upgrade) *flakeRead {
	a := v.attempt
	if a.Locked == "" || u.Locked[a.Target.Flake] != "" || slices.Contains(slices.Collect(maps.Values(u.Locked)), a.Target.Flake) {
		return nil
	}
	return &flakeRead{a.Target.Flake, a.Locked}
}

// upgrade is the one that this machine is at work on, or has its turn in now.
func (v view) upgrade() (spec.Upgrade, bool) {
	if t, ok := v.Turns[v.self]; ok && !t.Stage.Ended() {
		if u, ok := v.Upgrades[t.Upgrade]; ok && u.Stage == spec.UpgradeRunning {
			return u, true
		}
		return spec.Upgrade{}, false
	}
	u, ok := v.CurrentUpgrade()
	if !ok {
		return u, false
	}
	next, _ := v.NextInUpgrade(u)
	return u, next == v.self
}

// leave ends a turn whose upgrade was ended by somebody else.
func (v view) leave() move {
	turn, ok := v.Turns[v.self]
	if !ok || turn.Stage.Ended() {
		return move{}
	}
	if v.attempt.ID != turn.Upgrade && v.ordered.ID == "" {
		return v.end(turn, spec.TurnFailed, "the upgrade was ended before it began here")
	}
	if v.attempt.ID == turn.Upgrade && v.attempt.Ended() {
		return v.ended(turn)
	}
	var m move
	if v.ordered.Want != hostos.WantStop {
		o := v.ordered
		o.ID, o.Want, o.Reason = turn.Upgrade, hostos.WantStop, "the upgrade was ended"
		m.order = &o
	}
	return m
}

// start orders the attempt of a turn, unless it cannot be.
func (v view) start(u spec.Upgrade, turn spec.Turn) move {
	switch {
	case v.lost.ID != "":
		o := v.lost
		o.Want, o.Reason = hostos.WantStop, "another upgrade began"
		return move{order: &o}
	case v.ordered.ID == u.ID && turn.Stage != "":
		return v.awaitHost(turn)
	case turn.Stage != "" && turn.Stage != spec.TurnStaging:
		// Rows of a backup, or a host that was made anew.
		return v.end(turn, spec.TurnFailed, "its host knows nothing of what had begun here")
	}
	target, why := v.target(u)
	if why != "" {
		return v.end(turn, spec.TurnFailed, why)
	}
	m := v.to(turn, spec.TurnStaging)
	m.order = &hostos.Order{ID: u.ID, Want: hostos.WantStage, Target: target, Restart: u.Restart, Within: v.policy.Within}
	return m
}

// awaitHost gives the turn up when the host process does not begin, and sees to
// it that it does not begin later.
func (v view) awaitHost(turn spec.Turn) move {
	busy := v.attempt.ID != "" && !v.attempt.Ended() // with a return
	if busy || v.now.Sub(turn.Since) < hostWithin {
		return move{}
	}
	m := v.end(turn, spec.TurnFailed, "uncloud-host.service does not begin: see systemctl status uncloud-host.path uncloud-host.service")
	o := v.ordered
	o.Want, o.Reason = hostos.WantStop, "it was not begun in time"
	m.order = &o
	return m
}

// target is what an upgrade means on this machine, or why it means nothing.
func (v view) target(u spec.Upgrade) (t hostos.Target, why string) {
	switch {
	case !v.nixos:
		return t, "it does not run NixOS, so it has no generations"
	case u.Restart && v.policy.NoRestart:
		return t, "its owner does not allow restarts (services.uncloud.upgrade.allowRestart)"
	case u.Rollback && v.before.Number == 0:
		return t, "there is no generation before the one that runs"
	case u.Rollback:
		return hostos.Target{Generation: v.before.Number}, ""
	case u.Generation != 0:
		return hostos.Target{Generation: u.Generation}, ""
	case u.System != "":
		return hostos.Target{System: u.System}, ""
	}
	t = hostos.Target{Flake: u.Flake, Name: v.policy.Name}
	if t.Flake == "" {
		t.Flake = v.policy.Flake
	}
	if t.Flake == "" {
		return t, "it follows no flake (services.uncloud.upgrade.flake), and none was named"
	}
	t.Flake = cmp.Or(u.Locked[t.Flake], t.Flake)
	return t, ""
}

// proceed follows the attempt.
func (v view) proceed(turn spec.Turn) move {
	a := v.attempt
	turn.To = hostos.Name(a.New)
	if a.Ended() {
		return v.ended(turn)
	}
	switch a.Step {
	case hostos.Staged:
		return v.prepare(turn)
	case hostos.Trying, hostos.Arming, hostos.Restarting:
		return v.to(turn, spec.TurnSwitching)
	case hostos.Watching:
		m := v.to(turn, spec.TurnWatching)
		m.ask = v.ordered.Want == hostos.WantGo
		return m
	case hostos.Keeping:
		return v.to(turn, spec.TurnKeeping)
	case hostos.Returning, hostos.GoingBack:
		return v.to(turn, spec.TurnReturning)
	}
	return v.to(turn, spec.TurnStaging)
}

// prepare waits until the machine may be touched, and then lets the host go on.
func (v view) prepare(turn spec.Turn) move {
	if v.ordered.Want != hostos.WantStage {
		return move{}
	}
	waited := v.now.Sub(turn.Since)
	drains := turn.Stage == spec.TurnDraining
	if busy := v.rollout(); busy != "" && !drains {
		if turn.Stage == spec.TurnWaiting && waited > rolloutsWithin {
			return v.giveUp(fmt.Sprintf("a rollout of %s is still under way after %s", busy, rolloutsWithin))
		}
		return v.to(turn, spec.TurnWaiting)
	}
	if !drains && turn.Stage != spec.TurnSwitching && turn.Drain {
		return v.to(turn, spec.TurnDraining)
	}
	if left := v.movable(); drains && (len(left) > 0 || v.rollout() != "") {
		if waited > drainWithin && len(left) > 0 {
			return v.giveUp(fmt.Sprintf("replicas are left on it after %s: %s", drainWithin, left[0]))
		}
		return move{}
	}
	turn.From, turn.Healthy, turn.Witnesses = v.State.Machines[v.self].System, v.healthy(), v.others()
	m := v.to(turn, spec.TurnSwitching)
	o := v.ordered
	o.Want = hostos.WantGo
	m.order = &o
	return m
}

func (v view) giveUp(why string) move {
	o := v.ordered
	o.Want, o.Reason = hostos.WantStop, why
	return move{order: &o}
}

// rollout is a service with replicas here, or driven from here, that is being
// rolled out; empty when there is none.
func (v view) rollout() string {
	var names []string
	for _, r := range v.Rollouts {
		if r.Stage != spec.RolloutRunning && r.Stage != spec.RolloutReturning {
			continue
		}
		here := r.Driver == v.self || slices.ContainsFunc(v.ReplicasOf(r.Service), func(rep spec.Replica) bool { return rep.Machine == v.self })
		if here {
			svc := v.Services[r.Service]
			names = append(names, svc.Project+"/"+svc.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return slices.Min(names)
}

// movable are the names of replicas that have to leave before the switch.
func (v view) movable() []string {
	var names []string
	for _, r := range v.Replicas {
		svc, ok := v.Services[r.Service]
		if !ok || r.Machine != v.self || svc.Wanted != spec.WantRunning {
			continue
		}
		ask := plan.Ask{Service: svc, Spec: v.Revisions[r.Revision].Spec}
		if (schedule.Scheduler{}).Stays(v.State, ask, v.self) != "" {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return names
}

// healthy are this machine's replicas that take traffic.
func (v view) healthy() []string {
	var ids []string
	for id, r := range v.Replicas {
		if r.Machine == v.self && spec.Eligible(v.State, v.alive, r) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// others are the machines that live, but this one.
func (v view) others() []string {
	var ids []string
	for id := range v.Machines {
		if id != v.self && v.alive[id] {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// ended is the end of a turn as the journal tells it.
func (v view) ended(turn spec.Turn) move {
	turn.To = hostos.Name(v.attempt.New)
	if v.attempt.Step == hostos.Done {
		return v.end(turn, spec.TurnDone, "")
	}
	turn.Lines = v.attempt.Lines
	why := v.attempt.Error
	if turn.Error != "" {
		why += ": " + turn.Error // what was missing for a confirmation
	}
	if v.attempt.Stuck {
		why += "; it could not be brought back: see journalctl -u uncloud-host on it"
	}
	return v.end(turn, spec.TurnFailed, why)
}

func (v view) end(turn spec.Turn, stage spec.TurnStage, why string) move {
	turn.Error = why
	return v.to(turn, stage)
}

// to is the move to a stage. A turn that is there already keeps its time.
func (v view) to(turn spec.Turn, stage spec.TurnStage) move {
	if turn.Stage != stage {
		turn.Stage, turn.Since = stage, v.now
	}
	return move{turn: &turn}
}

// takeTurn does what decide says.
func (f *Fleet) takeTurn(ctx context.Context) error {
	v, err := f.view()
	if err != nil {
		return err
	}
	m := decide(v)
	if m.read != nil {
		if err := f.lock(ctx, v.attempt.ID, *m.read); err != nil {
			return err
		}
	}
	if m.turn != nil {
		if err := f.record(ctx, *m.turn); err != nil {
			return err
		}
	}
	if m.order != nil {
		f.Log.Info("order to the host", "upgrade", m.order.ID, "action", m.order.Want, "reason", m.order.Reason)
		if err := f.Host.Order(*m.order); err != nil {
			return err
		}
	}
	if m.ask {
		f.confirm(ctx, *m.turn, v.ordered)
	}
	return nil
}

func (f *Fleet) view() (v view, err error) {
	v = view{State: f.Store.State(), alive: f.Members.Alive(), self: f.Self, now: f.Now(), nixos: f.Host.Is(), policy: f.Policy}
	u, mine := v.upgrade()
	turn, begun := v.Turns[f.Self]
	if !mine && (!begun || turn.Stage.Ended()) || !v.nixos {
		return v, nil
	}
	if v.attempt, err = f.Host.Attempt(); err != nil {
		return v, err
	}
	id := u.ID
	if !mine {
		id = turn.Upgrade
	}
	if v.ordered, _, err = f.Host.Ordered(id); err != nil {
		return v, err
	}
	if v.lost, err = f.lost(v.attempt, id); err != nil {
		return v, err
	}
	if u.Rollback {
		all, err := f.Host.Generations()
		if err != nil {
			return v, err
		}
		v.before, _ = hostos.Before(all)
	}
	return v, nil
}

// lost is what is ordered of an attempt that is not that of the upgrade with
// this id, unless it is told to end already.
func (f *Fleet) lost(a hostos.Attempt, id string) (hostos.Order, error) {
	if a.Ended() || a.ID == id {
		return hostos.Order{}, nil
	}
	o, known, err := f.Host.Ordered(a.ID)
	if !known || o.Want == hostos.WantStop {
		return hostos.Order{}, err
	}
	return o, err
}

// lock writes what a flake was for the machines after this one. It is written
// before the turn is done, so they have it when theirs begins.
func (f *Fleet) lock(ctx context.Context, upgrade string, r flakeRead) error {
	return f.Store.Update(ctx, func(tx Tx) error {
		u, ok := tx.State().Upgrades[upgrade]
		if !ok || u.Locked[r.reference] != "" {
			return nil
		}
		locked := maps.Clone(u.Locked)
		if locked == nil {
			locked = map[string]string{}
		}
		locked[r.reference] = r.locked
		u.Locked = locked
		tx.Put(u)
		f.Log.Info("flake read for all machines of the upgrade", "upgrade", upgrade, "flake", r.reference, "locked", r.locked)
		return nil
	})
}

// record writes the own turn, if it says anything new.
func (f *Fleet) record(ctx context.Context, turn spec.Turn) error {
	if equal(f.Store.State().Turns[f.Self], turn) {
		return nil
	}
	return f.Store.Update(ctx, func(tx Tx) error {
		old := tx.State().Turns[f.Self]
		tx.Put(turn)
		if old.Stage != turn.Stage && turn.Stage.Ended() {
			f.Log.Info("turn of an upgrade ended", "upgrade", turn.Upgrade, "state", turn.Stage, "reason", turn.Error)
			text := tx.State().MachineName(f.Self) + " runs " + turn.To
			if turn.Stage == spec.TurnFailed {
				text = "upgrade of " + tx.State().MachineName(f.Self) + ": " + turn.Error
			}
			tx.Put(f.Event("machine.upgrade-"+string(turn.Stage), f.Self, text))
		}
		return nil
	})
}

func equal(a, b spec.Turn) bool {
	return a.Machine == b.Machine && a.Upgrade == b.Upgrade && a.Stage == b.Stage && a.From == b.From && a.To == b.To &&
		a.Error == b.Error && slices.Equal(a.Lines, b.Lines) && slices.Equal(a.Healthy, b.Healthy) && slices.Equal(a.Witnesses, b.Witnesses)
}
