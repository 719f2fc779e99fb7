package server

import (
	"slices"
	"strings"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// The find functions turn what a person typed into the thing that was meant,
// or into a fault that says what there is.

func findMachine(state *spec.State, ref string) (spec.Machine, error) {
	if m, ok := state.MachineByRef(ref); ok {
		return m, nil
	}
	var names []string
	for _, n := range state.MachineNames() {
		names = append(names, n)
	}
	return spec.Machine{}, faults.New(faults.NotFound, "there is no machine %q", ref).
		WithHint("machines are: %s", listed(names))
}

func findService(state *spec.State, ref string) (spec.Service, error) {
	found := state.ServicesByRef(ref)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return spec.Service{}, faults.New(faults.NotFound, "there is no service %q", ref).WithHint("see what there is: uc ls")
	}
	var names []string
	for _, s := range found {
		names = append(names, s.Project+"/"+s.Name)
	}
	return spec.Service{}, faults.New(faults.Invalid, "%q may be %s", ref, listed(names)).WithHint("name it with its project, such as %s", names[0])
}

func findReplica(state *spec.State, ref string) (spec.Replica, error) {
	found := state.ReplicasByRef(ref)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return spec.Replica{}, faults.New(faults.NotFound, "there is no replica %q", ref).WithHint("see what there is: uc ps")
	}
	return spec.Replica{}, faults.New(faults.Invalid, "%q is the name of %d replicas", ref, len(found)).WithHint("use an id: uc ps -o json")
}

// listed is names for a sentence, in order.
func listed(names []string) string {
	slices.Sort(names)
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func machineName(state *spec.State, id string) string { return state.MachineName(id) }
