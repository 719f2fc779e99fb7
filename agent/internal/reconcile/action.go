package reconcile

import (
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/spec"
)

// Kind is what an action does.
type Kind string

const (
	Remove Kind = "remove" // stop with grace, then remove
	Stop   Kind = "stop"
	Cure   Kind = "cure" // stop and start a container that nobody watches
	Start  Kind = "start"
	Run    Kind = "run" // create and start
)

// order in which actions are begun: what frees addresses and names first.
var order = map[Kind]int{Remove: 0, Stop: 1, Cure: 2, Start: 3, Run: 4}

// Action is one thing to do for one replica.
type Action struct {
	Kind      Kind
	Replica   string            // id
	Container runtime.Container // what it is done to; zero for Run
	Grace     time.Duration     // of Stop, Cure and Remove; may be runtime.OwnGrace
	Spec      string            // hash of the wanted container; empty where none is wanted
	Run       *Wish             // what to run, for Run
	NotBefore time.Time         // zero: now
	Reason    string            // a sentence for the log
}

// Wish is a replica with everything that its container follows from.
type Wish struct {
	Replica  spec.Replica
	Service  spec.Service
	Revision spec.Revision
	Hash     string // of the revision's container
	Running  bool   // it should run
	Draining bool   // it takes no new traffic, and is on its way out
}

// Key names an action so that its repetition is noticed. Starting and creating
// share one, because they are two ways to one end; a changed wish has another,
// so it is not held back by what its predecessor did.
func (a Action) Key() string {
	kind := a.Kind
	if kind == Run {
		kind = Start
	}
	return string(kind) + " " + a.Replica + " " + a.Spec
}
