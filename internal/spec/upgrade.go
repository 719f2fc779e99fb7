package spec

import (
	"cmp"
	"time"
)

// UpgradePrefix is that of upgrades' ids.
const UpgradePrefix = "upg_"

// UpgradeStage is where an upgrade is.
type UpgradeStage string

const (
	UpgradeRunning UpgradeStage = "running"
	UpgradeDone    UpgradeStage = "done"    // every machine has what was asked for
	UpgradeFailed  UpgradeStage = "failed"  // a machine returned; those after it were left alone
	UpgradeStopped UpgradeStage = "stopped" // a person ended it
)

// Upgrade takes machines to another generation of their system, one after
// another. Nobody drives it: each machine takes its own turn when those before
// it have theirs behind them (Turn). Any machine may write it.
type Upgrade struct {
	ID       string   `col:"id"`
	Machines []string `col:"machines"` // in the order of their turns
	// What they are taken to: a flake reference, a store path, a generation of
	// each machine's profile, or the one before that which runs (Rollback).
	// Without any it is the flake that each machine is configured to follow.
	Flake      string `col:"flake"`
	System     string `col:"system"`
	Generation int    `col:"generation"`
	Rollback   bool   `col:"rollback"`

	Restart bool `col:"restart"` // boot it, instead of switching to it
	Drain   bool `col:"drain"`   // move replicas away before

	Stage     UpgradeStage `col:"stage"`
	Error     string       `col:"error"`
	StartedBy string       `col:"started_by"` // machine that was asked
	StartedAt time.Time    `col:"started_at"`
	EndedAt   time.Time    `col:"ended_at"`

	// Locked is, by the reference of a flake, what it was when the first of the
	// machines read it: those after it go to that, and to nothing pushed since.
	Locked map[string]string `col:"locked"`
}

// TurnStage is where a machine is in its turn.
type TurnStage string

const (
	TurnStaging   TurnStage = "staging"   // builds or fetches the system
	TurnWaiting   TurnStage = "waiting"   // for rollouts that are under way to end
	TurnDraining  TurnStage = "draining"  // replicas move away
	TurnSwitching TurnStage = "switching" // and may be away for a while
	TurnWatching  TurnStage = "watching"  // runs it, and asks the others
	TurnKeeping   TurnStage = "keeping"   // is confirmed, and makes it the default
	TurnReturning TurnStage = "returning" // goes back to what it ran before
	TurnDone      TurnStage = "done"
	TurnFailed    TurnStage = "failed" // Error says why; it runs what it ran before
)

// Ended tells whether the turn is over.
func (s TurnStage) Ended() bool { return s == TurnDone || s == TurnFailed }

// Turn is what a machine did in the last upgrade that came to it. Key: the
// machine, which alone writes it.
type Turn struct {
	Machine string    `col:"machine"`
	Upgrade string    `col:"upgrade"`
	Stage   TurnStage `col:"stage"`
	Drain   bool      `col:"drain"`       // replicas move away before the switch
	From    string    `col:"from_system"` // name of the system that ran before
	To      string    `col:"to_system"`
	// Witnesses are the other machines that lived before the switch, and
	// Healthy this machine's replicas that took traffic: it has to be so again.
	Witnesses []string  `col:"witnesses"`
	Healthy   []string  `col:"healthy"`
	Error     string    `col:"error"`
	Lines     []string  `col:"lines"` // the last of a program that failed
	Since     time.Time `col:"since"` // of Stage
}

func (Upgrade) Table() string { return "upgrades" }
func (u Upgrade) Key() string { return u.ID }
func (Turn) Table() string    { return "turns" }
func (t Turn) Key() string    { return t.Machine }

// CurrentUpgrade is the one that machines take their turns in: of those that
// run the one that began first, then the lower id. Those that a partition left go
// one after another.
func (s *State) CurrentUpgrade() (Upgrade, bool) {
	var first Upgrade
	for _, u := range s.Upgrades {
		if u.Stage != UpgradeRunning {
			continue
		}
		if first.ID == "" || cmp.Or(u.StartedAt.Compare(first.StartedAt), cmp.Compare(u.ID, first.ID)) < 0 {
			first = u
		}
	}
	return first, first.ID != ""
}

// TurnIn is a machine's turn in an upgrade; none before it began.
func (s *State) TurnIn(upgrade, machine string) (Turn, bool) {
	t, ok := s.Turns[machine]
	return t, ok && t.Upgrade == upgrade
}

// NextInUpgrade is the machine whose turn it is: the first that has not done
// its own. Machines that were removed are passed over. It is empty when all
// have, and failed is the turn at which the upgrade ends.
func (s *State) NextInUpgrade(u Upgrade) (machine string, failed *Turn) {
	for _, id := range u.Machines {
		if _, member := s.Machines[id]; !member {
			continue
		}
		t, begun := s.TurnIn(u.ID, id)
		switch {
		case begun && t.Stage == TurnDone:
		case begun && t.Stage == TurnFailed:
			return "", &t
		default:
			return id, nil
		}
	}
	return "", nil
}

// Drained tells whether a machine gives its replicas away for its turn. It
// follows from the row, so that nothing is left to take back when the turn ends
// in any way.
func (s *State) Drained(machine string) bool {
	t, ok := s.Turns[machine]
	if !ok || !t.Drain || t.Stage.Ended() {
		return false
	}
	return t.Stage != TurnStaging && t.Stage != TurnWaiting
}
