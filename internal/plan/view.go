package plan

import (
	"fmt"
	"maps"

	"uncloud/internal/spec"
)

// View is what a plan is made from: the state and who lives, as one machine
// sees them.
type View struct {
	State     *spec.State
	Alive     spec.Alive
	Scheduler Scheduler
	// Images says which images machines have, for those images that cannot be
	// pulled. A machine or image that is not in it is not known about.
	Images Images
}

// Images is machine id -> image -> whether the machine has it.
type Images map[string]map[string]bool

// Lacks tells whether a machine is known not to have an image.
func (i Images) Lacks(machine, image string) bool {
	has, known := i[machine][image]
	return known && !has
}

// PushHint is what to do about an image that a machine neither has nor can pull.
func PushHint(image string) string {
	return fmt.Sprintf("push it: uc image push %[1]s; to build it first: podman build -t %[1]s DIR && uc image push %[1]s", image)
}

// Ask is a replica that looks for a machine.
type Ask struct {
	Service spec.Service
	Spec    spec.ServiceSpec
	Images  Images
}

// Place is a machine for a replica, and why that one.
type Place struct {
	Machine string
	Reason  string
}

// Scheduler says where replicas may run. Its answers depend on nothing but its
// arguments.
type Scheduler interface {
	// Stays is why a replica may not stay on the machine where it is; empty
	// when it may. Whether the machine lives does not matter to it.
	Stays(s *spec.State, ask Ask, machine string) string
	// Place is the best machine for one more replica. Its error is a fault.
	Place(s *spec.State, alive spec.Alive, ask Ask) (Place, error)
	// Everywhere is every machine that a global service should be on. Its
	// error is a fault.
	Everywhere(s *spec.State, alive spec.Alive, ask Ask) ([]Place, error)
	// HomeOf is the machine that holds a volume which pins the service, or empty.
	HomeOf(s *spec.State, ask Ask) string
}

// draft is a state that may be changed: a copy of the maps that plans touch.
func draft(s *spec.State) *spec.State {
	d := *s
	d.Services = cloned(s.Services)
	d.Revisions = cloned(s.Revisions)
	d.Replicas = cloned(s.Replicas)
	d.Volumes = cloned(s.Volumes)
	return &d
}

func cloned[M ~map[K]V, K comparable, V any](m M) M {
	if m == nil {
		return M{}
	}
	return maps.Clone(m)
}

// machineNames shows machines by name.
type machineNames map[string]string

func (n machineNames) of(id string) string {
	if name, ok := n[id]; ok {
		return name
	}
	return id
}

// RevisionName is a revision as people see it: the first characters of its id.
func RevisionName(id string) string {
	const shown = len(spec.RevisionPrefix) + 6
	if len(id) > shown {
		return id[:shown]
	}
	return id
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
