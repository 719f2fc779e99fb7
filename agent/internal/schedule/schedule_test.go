package schedule

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// cluster is a state with machines m1..mN, all alive, and a service web that
// has no replica yet.
func cluster(n int) (*spec.State, spec.Alive, plan.Ask) {
	s := &spec.State{Machines: map[string]spec.Machine{}, Services: map[string]spec.Service{}, Revisions: map[string]spec.Revision{},
		Replicas: map[string]spec.Replica{}, Volumes: map[string]spec.Volume{}, Containers: map[string]spec.Container{}}
	alive := spec.Alive{}
	for i := 1; i <= n; i++ {
		id := fmt.Sprintf("mch_%d", i)
		s.Machines[id] = spec.Machine{ID: id, Name: fmt.Sprintf("m%d", i), Schedulable: true, JoinedAt: epoch}
		alive[id] = true
	}
	svc := spec.Service{ID: spec.ServiceID("shop", "web"), Project: "shop", Name: "web", Mode: spec.Replicated}
	return s, alive, plan.Ask{Service: svc, Spec: spec.ServiceSpec{Name: "web", Mode: spec.Replicated, Container: spec.ContainerSpec{Image: "web:1"}}}
}

// holds puts a replica of a service with this spec on a machine.
func holds(s *spec.State, name, machine string, sp spec.ServiceSpec) {
	id := spec.ServiceID("shop", name)
	rev := sp.RevisionID(id)
	s.Services[id] = spec.Service{ID: id, Project: "shop", Name: name, Revision: rev}
	s.Revisions[rev] = spec.Revision{ID: rev, Service: id, Spec: sp}
	rep := fmt.Sprintf("rep_%d", len(s.Replicas))
	s.Replicas[rep] = spec.Replica{ID: rep, Service: id, Revision: rev, Machine: machine}
}

func volume(s *spec.State, project, name, machine string, age time.Duration) {
	id := spec.VolumeID(project, name, machine)
	s.Volumes[id] = spec.Volume{ID: id, Project: project, Name: name, Machine: machine, CreatedAt: epoch.Add(-age)}
}

func edit(s *spec.State, machine string, change func(*spec.Machine)) {
	m := s.Machines[machine]
	change(&m)
	s.Machines[machine] = m
}

func mount(name string) []spec.Mount {
	return []spec.Mount{{Type: spec.MountVolume, Source: name, Target: "/data"}}
}

var web80 = spec.Port{Mode: spec.HostPort, Published: 8080, Container: 80, Protocol: "tcp"}

func TestPlace(t *testing.T) {
	type world = func(*spec.State, spec.Alive, *plan.Ask)
	tests := []struct {
		name  string
		setup world
		want  string // machine, or
		code  faults.Code
		says  []string
	}{
		{name: "fewest of the service", want: "mch_2", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			holds(s, "web", "mch_1", a.Spec)
			holds(s, "web", "mch_3", a.Spec)
			holds(s, "db", "mch_2", spec.ServiceSpec{Name: "db"})
		}},
		{name: "then fewest of all", want: "mch_3", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			holds(s, "db", "mch_1", spec.ServiceSpec{Name: "db"})
			holds(s, "db", "mch_2", spec.ServiceSpec{Name: "db"})
		}},
		{name: "by name or id of the machine", want: "mch_2", setup: func(_ *spec.State, _ spec.Alive, a *plan.Ask) {
			a.Spec.Placement.Machines = []string{"m2"}
		}},
		{name: "a second machine of one name", want: "mch_2", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			edit(s, "mch_2", func(m *spec.Machine) { m.Name = "m1" })
			a.Spec.Placement.Machines = []string{"m1-2"}
		}},
		{name: "label equal", want: "mch_3", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			edit(s, "mch_3", func(m *spec.Machine) { m.Labels = map[string]string{"disk": "ssd"} })
			a.Spec.Placement.Constraints = []string{"label.disk==ssd"}
		}},
		{name: "label not equal", want: "mch_3", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			for _, m := range []string{"mch_1", "mch_2"} {
				edit(s, m, func(m *spec.Machine) { m.Labels = map[string]string{"zone": "a"} })
			}
			a.Spec.Placement.Constraints = []string{"label.zone != a"}
		}},
		{name: "workers and machines without roles", want: "mch_1", setup: func(s *spec.State, _ spec.Alive, _ *plan.Ask) {
			edit(s, "mch_2", func(m *spec.Machine) { m.Roles = []spec.Role{spec.RoleIngress} })
			edit(s, "mch_3", func(m *spec.Machine) { m.Roles = []spec.Role{spec.RoleIngress} })
		}},
		{name: "the volume decides", want: "mch_2", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			a.Spec.Container.Mounts = mount("data")
			volume(s, "shop", "data", "mch_2", 0)
			holds(s, "db", "mch_2", spec.ServiceSpec{Name: "db"})
		}},
		{name: "of two volumes the older one", want: "mch_3", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			a.Spec.Container.Mounts = mount("data")
			volume(s, "shop", "data", "mch_2", time.Hour)
			volume(s, "shop", "data", "mch_3", 2*time.Hour)
		}},
		{name: "the volume of another project does not", want: "mch_1", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			a.Spec.Container.Mounts = mount("data")
			volume(s, "blog", "data", "mch_2", 0)
			holds(s, "db", "mch_2", spec.ServiceSpec{Name: "db"})
			holds(s, "db", "mch_3", spec.ServiceSpec{Name: "db"})
		}},
		{name: "a shared volume is everywhere", want: "mch_1", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			a.Spec.Container.Mounts = mount("data")
			a.Spec.Volumes = []spec.VolumeSpec{{Name: "data", Shared: true}}
			volume(s, "shop", "data", "mch_2", 0)
			holds(s, "web", "mch_2", a.Spec)
			holds(s, "web", "mch_3", a.Spec)
		}},
		{name: "a free port", want: "mch_3", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			a.Spec.Ports = []spec.Port{web80}
			holds(s, "db", "mch_1", spec.ServiceSpec{Name: "db", Ports: []spec.Port{web80}})
			holds(s, "web", "mch_2", a.Spec)
		}},
		{name: "the ingress has 443", want: "mch_3", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			a.Spec.Ports = []spec.Port{{Mode: spec.HostPort, Published: 443, Container: 443, Protocol: "tcp"}}
			for _, m := range []string{"mch_1", "mch_2"} {
				edit(s, m, func(m *spec.Machine) { m.Roles = []spec.Role{spec.RoleIngress, spec.RoleWorker} })
			}
		}},
		{name: "an external volume by its name in the engine", want: "mch_2", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			a.Spec.Container.Mounts = mount("blog_data")
			a.Spec.Volumes = []spec.VolumeSpec{{Name: "blog_data", External: true}}
			volume(s, "blog", "data", "mch_2", 0)
		}},
		{name: "an external volume is not any project's", want: "mch_3", setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
			a.Spec.Container.Mounts = mount("data")
			a.Spec.Volumes = []spec.VolumeSpec{{Name: "data", External: true}}
			volume(s, "blog", "data", "mch_2", 0)
			volume(s, "shop", "data", "mch_1", 0)
			holds(s, "web", "mch_1", a.Spec)
			holds(s, "web", "mch_2", a.Spec)
		}},
		{name: "where the image is", want: "mch_2", setup: func(_ *spec.State, _ spec.Alive, a *plan.Ask) {
			a.Images = plan.Images{"mch_1": {"web:1": false}, "mch_2": {"web:1": true}, "mch_3": {"web:1": false}}
		}},
		{name: "nobody", code: faults.NoPlace, says: []string{"m1 is down", "m2 has no label disk=ssd", "m3 takes no new replicas"},
			setup: func(s *spec.State, alive spec.Alive, a *plan.Ask) {
				a.Spec.Placement.Constraints = []string{"label.disk==ssd"}
				edit(s, "mch_1", func(m *spec.Machine) { m.Labels = map[string]string{"disk": "ssd"} })
				edit(s, "mch_3", func(m *spec.Machine) { m.Labels = map[string]string{"disk": "ssd"}; m.Schedulable = false })
				delete(alive, "mch_1")
			}},
		{name: "the volume is on a dead machine", code: faults.MachineDown, says: []string{"volume data of web is on m1, which is down"},
			setup: func(s *spec.State, alive spec.Alive, a *plan.Ask) {
				a.Spec.Container.Mounts = mount("data")
				volume(s, "shop", "data", "mch_1", 0)
				delete(alive, "mch_1")
			}},
		{name: "two volumes on two machines", code: faults.NoPlace, says: []string{"volume b is not on m1 but on m2"},
			setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
				a.Spec.Container.Mounts = append(mount("a"), mount("b")...)
				volume(s, "shop", "a", "mch_1", 0)
				volume(s, "shop", "b", "mch_2", 0)
			}},
		{name: "the machine asked for is down", code: faults.MachineDown, says: []string{"m2 is down"},
			setup: func(_ *spec.State, alive spec.Alive, a *plan.Ask) {
				a.Spec.Placement.Machines = []string{"m2"}
				delete(alive, "mch_2")
			}},
		{name: "more replicas than machines have the port", code: faults.NoPlace, says: []string{"m1 runs a replica of it already"},
			setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
				a.Spec.Ports = []spec.Port{web80}
				for _, m := range []string{"mch_1", "mch_2", "mch_3"} {
					holds(s, a.Service.Name, m, spec.ServiceSpec{Name: a.Service.Name, Ports: []spec.Port{web80}})
				}
			}},
		{name: "the port is taken everywhere", code: faults.Conflict, says: []string{"port 8080/tcp of m1 is taken by shop/db"},
			setup: func(s *spec.State, _ spec.Alive, a *plan.Ask) {
				a.Spec.Ports = []spec.Port{web80}
				for _, m := range []string{"mch_1", "mch_2", "mch_3"} {
					holds(s, "db", m, spec.ServiceSpec{Name: "db", Ports: []spec.Port{web80}})
				}
			}},
		{name: "nobody has the image", code: faults.NoImage, says: []string{"m1 does not have the image web:1"},
			setup: func(_ *spec.State, _ spec.Alive, a *plan.Ask) {
				a.Images = plan.Images{"mch_1": {"web:1": false}, "mch_2": {"web:1": false}, "mch_3": {"web:1": false}}
			}},
		{name: "a constraint nobody understands", code: faults.Invalid, says: []string{"node.role==manager"},
			setup: func(_ *spec.State, _ spec.Alive, a *plan.Ask) {
				a.Spec.Placement.Constraints = []string{"node.role==manager"}
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, alive, ask := cluster(3)
			tt.setup(s, alive, &ask)
			p, err := Scheduler{}.Place(s, alive, ask)
			if faults.CodeOf(err) != tt.code || p.Machine != tt.want {
				t.Fatalf("place %+v, error %v", p, err)
			}
			for _, text := range tt.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q does not say %q", err, text)
				}
			}
			if err == nil && p.Reason == "" {
				t.Error("no reason")
			}
			if err != nil && faults.Of(err).Hint == "" {
				t.Error("no hint")
			}
		})
	}
}

func TestEverywhere(t *testing.T) {
	s, alive, ask := cluster(4)
	ask.Spec.Container.Mounts = mount("data")
	volume(s, "shop", "data", "mch_1", 0)
	ask.Spec.Ports = []spec.Port{web80}
	holds(s, "web", "mch_1", ask.Spec) // its own port does not stand in its way
	delete(alive, "mch_2")
	edit(s, "mch_3", func(m *spec.Machine) { m.Schedulable = false })
	places, err := Scheduler{}.Everywhere(s, alive, ask)
	if err != nil || len(places) != 2 || places[0].Machine != "mch_1" || places[1].Machine != "mch_4" {
		t.Fatal(places, err)
	}
}

func TestStays(t *testing.T) {
	s, _, ask := cluster(2)
	ask.Spec.Placement.Constraints = []string{"label.disk==ssd"}
	edit(s, "mch_1", func(m *spec.Machine) { m.Labels, m.Schedulable = map[string]string{"disk": "ssd"}, false })
	if why := (Scheduler{}).Stays(s, ask, "mch_1"); why != "" {
		t.Errorf("a machine that takes no new ones keeps its own, but: %s", why)
	}
	if why := (Scheduler{}).Stays(s, ask, "mch_2"); why != "m2 has no label disk=ssd" {
		t.Error(why)
	}
}
