package plan

import (
	"strings"

	"uncloud/internal/spec"
)

// Kind is what a step does.
type Kind string

const (
	// KindRoute tells of a route that appears or goes with the new revision. Nothing has to be done for it.
	KindRoute Kind = "route"
	// KindVolume records a volume on a machine.
	KindVolume Kind = "volume"
	// KindForget deletes the row of a replica on a machine that is gone or down.
	KindForget Kind = "forget"
	// KindAdopt points a replica to another revision; its container stays as it is.
	KindAdopt Kind = "adopt"
	// KindStart waits until a replica that is recorded already runs and is healthy.
	KindStart Kind = "start"
	// KindCreate records a replica and runs it.
	KindCreate Kind = "create"
	// KindRemove takes a replica out of traffic, then stops and removes it.
	KindRemove Kind = "remove"
	// KindReplace gives a replica the new revision on the machine where it is.
	KindReplace Kind = "replace"
	// KindMove replaces a replica by one on another machine.
	KindMove Kind = "move"
	// KindStop stops the replicas of a service and keeps their places.
	KindStop Kind = "stop"
	// KindPrune is KindRemove for a service that the project no longer has.
	KindPrune Kind = "prune"
)

// Step is one thing to do.
type Step struct {
	Kind    Kind
	Key     string // stable: equal for the same thing on every machine
	Service string // id
	// Replica is the id of the replica that the step begins with; empty for a create.
	Replica string
	// Machine is the id of the machine where the result is.
	Machine string
	// From is where a moved replica was.
	From string
	// Revision is what the replica has afterwards.
	Revision string
	// Order says for a replace or move which of the two runs first.
	Order spec.Order
	// Volume is the row of a KindVolume step.
	Volume spec.Volume
	Text   string // a sentence for people
	Reason string
}

func (s Step) keyed() Step {
	s.Key = strings.Join([]string{string(s.Kind), s.Service, s.Replica, s.Machine, s.Volume.ID}, "/")
	return s
}

// Change is what happens to a service.
type Change string

const (
	Create Change = "create"
	Update Change = "update"
	None   Change = "none"
	Remove Change = "remove"
)

// ServicePlan is what happens to one service.
type ServicePlan struct {
	// Before is the service row as it is, nil when there is none.
	Before *spec.Service
	// After is the service row as it shall be, nil for a removal.
	After *spec.Service
	// Revision is the one that After names.
	Revision    spec.Revision
	Change      Change
	Differences []string // a line each: "image web:1 -> web:2"
	Steps       []Step
	// Volumes are the rows that a removal takes along.
	Volumes []spec.Volume
	// Level is 0 for services that depend on none of the plan, and one more
	// than the highest level of those that it depends on for others.
	Level int
}

// ID is the id of the service.
func (p ServicePlan) ID() string { return p.row().ID }

// Name is the service as people write it: project/name.
func (p ServicePlan) Name() string { return p.row().Project + "/" + p.row().Name }

func (p ServicePlan) row() spec.Service {
	if p.After != nil {
		return *p.After
	}
	return *p.Before
}

// Plan is what happens to a project. Services that others depend on come first.
type Plan struct {
	Project  string
	Services []ServicePlan
	Warnings []string
}
