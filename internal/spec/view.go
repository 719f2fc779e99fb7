package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Eligible tells whether a replica takes traffic by the view of the machine
// whose Alive this is: it and its service should run, it does run what its
// revision asks for, it is healthy or declares no check, and its machine is a
// member that lives.
func Eligible(s *State, alive Alive, r Replica) bool {
	svc, ok := s.Services[r.Service]
	if !ok || svc.Wanted != WantRunning || r.Wanted != WantRunning {
		return false
	}
	if _, member := s.Machines[r.Machine]; !member || !alive[r.Machine] {
		return false
	}
	c, ok := s.Containers[r.ID]
	return ok && c.Machine == r.Machine && c.Healthy() && SameContainer(s, c.Revision, r.Revision)
}

// Healthy tells whether the container runs and no check says otherwise.
func (c Container) Healthy() bool {
	return c.State == ContainerRunning && (c.Health == HealthNone || c.Health == HealthHealthy || c.Health == "")
}

// SameContainer tells whether two revisions ask for the same container, so
// that the one of a fits b as it is. A change of a route makes such a pair.
func SameContainer(s *State, a, b string) bool {
	if a == b {
		return true
	}
	ra, okA := s.Revisions[a]
	rb, okB := s.Revisions[b]
	return okA && okB && ra.Spec.Container.Hash() == rb.Spec.Container.Hash()
}

// Leads tells whether a machine is the living member with the lowest id: the one
// that does what one machine has to do for all.
func (s *State) Leads(alive Alive, machine string) bool {
	for id, lives := range alive {
		if _, member := s.Machines[id]; member && lives && id < machine {
			return false
		}
	}
	_, member := s.Machines[machine]
	return member
}

// RowsOf are all rows that go with a machine when it leaves the cluster, sorted
// by table and key.
func (s *State) RowsOf(machine string) []Row {
	var rows []Row
	if m, ok := s.Machines[machine]; ok {
		rows = append(rows, m)
	}
	if t, ok := s.Turns[machine]; ok {
		rows = append(rows, t)
	}
	for _, r := range s.Replicas {
		if r.Machine == machine {
			rows = append(rows, r)
		}
	}
	for _, c := range s.Containers {
		if c.Machine == machine {
			rows = append(rows, c)
		}
	}
	for _, v := range s.Volumes {
		if v.Machine == machine {
			rows = append(rows, v)
		}
	}
	for _, e := range s.Events {
		if e.Machine == machine {
			rows = append(rows, e)
		}
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Table(), b.Table()), cmp.Compare(a.Key(), b.Key()))
	})
	return rows
}

// MachineNames are the names of all machines by id, as everyone shows and
// takes them. Of two machines that got one name in two partitions the one that
// joined earlier (then the lower id) keeps it; the others are called NAME-2,
// NAME-3 and so on, passing over names that machines really have.
func (s *State) MachineNames() map[string]string {
	byAge := s.machinesByAge()
	names, taken := make(map[string]string, len(byAge)), make(map[string]bool, len(byAge))
	for _, m := range byAge {
		if !taken[m.Name] {
			names[m.ID], taken[m.Name] = m.Name, true
		}
	}
	for _, m := range byAge {
		if names[m.ID] != "" {
			continue
		}
		for n := 2; names[m.ID] == ""; n++ {
			if candidate := fmt.Sprintf("%s-%d", m.Name, n); !taken[candidate] {
				names[m.ID], taken[candidate] = candidate, true
			}
		}
	}
	return names
}

func (s *State) machinesByAge() []Machine {
	all := make([]Machine, 0, len(s.Machines))
	for _, m := range s.Machines {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Machine) int {
		return cmp.Or(a.JoinedAt.Compare(b.JoinedAt), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// MachineName is the name that a machine is shown by, or its id when it is no member.
func (s *State) MachineName(id string) string {
	if name, ok := s.MachineNames()[id]; ok {
		return name
	}
	return id
}

// MachineByRef is the machine with this id or shown name. Its Name is the shown one.
func (s *State) MachineByRef(ref string) (Machine, bool) {
	names := s.MachineNames()
	for id, m := range s.Machines {
		if id == ref || names[id] == ref {
			m.Name = names[id]
			return m, true
		}
	}
	return Machine{}, false
}

// ServicesByRef are the services that ref may mean: "project/name", a name or
// an id. One is the answer, none is unknown, several have to be asked back.
func (s *State) ServicesByRef(ref string) []Service {
	project, name, qualified := strings.Cut(ref, "/")
	var found []Service
	for _, svc := range s.Services {
		full := qualified && svc.Project == project && svc.Name == name
		if svc.ID == ref || svc.Name == ref || full {
			found = append(found, svc)
		}
	}
	slices.SortFunc(found, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
	})
	return found
}

// ReplicasByRef are the replicas that ref may mean: an id, or a name, which two
// partitions may rarely have given twice.
func (s *State) ReplicasByRef(ref string) []Replica {
	var found []Replica
	for _, r := range s.Replicas {
		if r.ID == ref || r.Name == ref {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b Replica) int { return cmp.Compare(a.ID, b.ID) })
	return found
}

// ReplicasOf are the replicas of a service in the order of their ids.
func (s *State) ReplicasOf(service string) []Replica {
	var found []Replica
	for _, r := range s.Replicas {
		if r.Service == service {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b Replica) int { return cmp.Compare(a.ID, b.ID) })
	return found
}
