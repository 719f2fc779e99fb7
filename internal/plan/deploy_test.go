package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// evenly is a Scheduler for tests: the living machine with the fewest replicas
// of the service, by id; a volume decides.
type evenly struct{}

func (evenly) Stays(_ *spec.State, ask Ask, machine string) string {
	if only := ask.Spec.Placement.Machines; len(only) > 0 && !slices.Contains(only, machine) {
		return machine + " is not asked for"
	}
	return ""
}

func (e evenly) Place(s *spec.State, alive spec.Alive, ask Ask) (Place, error) {
	if home := e.HomeOf(s, ask); home != "" {
		return Place{home, "volume"}, nil
	}
	n := map[string]int{}
	for _, r := range s.ReplicasOf(ask.Service.ID) {
		n[r.Machine]++
	}
	var fit []string
	for _, id := range sortedKeys(s.Machines) {
		if alive[id] && e.Stays(s, ask, id) == "" {
			fit = append(fit, id)
		}
	}
	if len(fit) == 0 {
		return Place{}, faults.New(faults.NoPlace, "no machine")
	}
	return Place{slices.MinFunc(fit, func(a, b string) int { return cmp.Compare(n[a], n[b]) }), "fewest"}, nil
}

func (e evenly) Everywhere(s *spec.State, alive spec.Alive, ask Ask) (places []Place, err error) {
	for _, id := range sortedKeys(s.Machines) {
		if alive[id] && e.Stays(s, ask, id) == "" {
			places = append(places, Place{id, "global"})
		}
	}
	return places, nil
}

func (evenly) HomeOf(s *spec.State, ask Ask) string {
	for _, m := range ask.Spec.Container.Mounts {
		for _, id := range sortedKeys(s.Volumes) {
			if s.Volumes[id].Name == m.Source && ask.Spec.Mode != spec.Global {
				return s.Volumes[id].Machine
			}
		}
	}
	return ""
}

// bench is a cluster of m1..m3 in which plans are made and taken as done.
type bench struct {
	t *testing.T
	View
	now time.Time
}

func newBench(t *testing.T) *bench {
	s := draft(&spec.State{Machines: map[string]spec.Machine{}, Containers: map[string]spec.Container{}, Rollouts: map[string]spec.Rollout{}})
	alive := spec.Alive{}
	for i := 1; i <= 3; i++ {
		id := fmt.Sprintf("m%d", i)
		s.Machines[id] = spec.Machine{ID: id, Name: id, Schedulable: true}
		alive[id] = true
	}
	return &bench{t, View{State: s, Alive: alive, Scheduler: evenly{}}, epoch}
}

func (b *bench) input(specs ...spec.ServiceSpec) Input {
	return Input{View: b.View, Project: "shop", Specs: specs, Now: b.now}
}

// done takes a deploy as done: rows as planned, and everything healthy.
func (b *bench) done(specs ...spec.ServiceSpec) Plan {
	b.t.Helper()
	in := b.input(specs...)
	p, err := Deploy(in)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, sp := range p.Services {
		b.State.Services[sp.ID()] = *sp.After
		b.State.Revisions[sp.Revision.ID] = sp.Revision
	}
	for _, sp := range p.Services {
		_, after, err := converge(b.View, sp.ID(), Options{MoveDead: true, Now: b.now})
		if err != nil {
			b.t.Fatal(err)
		}
		next := draft(after)
		for _, id := range sortedKeys(next.Replicas) {
			r := next.Replicas[id]
			if strings.HasPrefix(id, "new/") {
				delete(next.Replicas, id)
				r.ID = fmt.Sprintf("rep_%d", len(next.Containers))
				r.Name = sp.After.Name + "-" + r.ID
			}
			if r.Service == sp.ID() {
				r.Revision = sp.Revision.ID
			}
			next.Replicas[r.ID] = r
			next.Containers[r.ID] = spec.Container{Replica: r.ID, Machine: r.Machine, Revision: r.Revision, State: spec.ContainerRunning, Health: spec.HealthHealthy}
		}
		b.State = next
	}
	b.now = b.now.Add(time.Hour)
	return p
}

func web(image string) spec.ServiceSpec {
	return spec.ServiceSpec{Name: "web", Mode: spec.Replicated, Replicas: 2, Container: spec.ContainerSpec{Image: image}}
}

func named(name string, change ...func(*spec.ServiceSpec)) spec.ServiceSpec {
	sp := web("x:1")
	sp.Name = name
	for _, c := range change {
		c(&sp)
	}
	return sp
}

func at(host string) func(*spec.ServiceSpec) {
	return func(sp *spec.ServiceSpec) {
		sp.Ports = []spec.Port{{Mode: spec.IngressPort, Hostname: host, Container: 80, Protocol: "https"}}
	}
}

func after(names ...string) func(*spec.ServiceSpec) {
	return func(sp *spec.ServiceSpec) { sp.DependsOn = names }
}

func data(sp *spec.ServiceSpec) {
	sp.Replicas = 1
	sp.Container.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "data", Target: "/data"}}
	sp.Volumes = []spec.VolumeSpec{{Name: "data"}}
}

// texts are the steps of a plan, a line each.
func texts(p Plan) string {
	var lines []string
	for _, s := range p.Services {
		for _, step := range s.Steps {
			lines = append(lines, string(step.Kind)+": "+step.Text)
		}
	}
	return strings.Join(lines, "\n")
}

func TestDeploySteps(t *testing.T) {
	none := func(*bench) {}
	had := func(specs ...spec.ServiceSpec) func(*bench) { return func(b *bench) { b.done(specs...) } }
	tests := []struct {
		name   string
		before func(*bench)
		input  func(*Input)
		specs  []spec.ServiceSpec
		change Change
		want   string
	}{
		{name: "new", before: none, specs: []spec.ServiceSpec{web("x:1")}, change: Create,
			want: "create: run web on m1\ncreate: run web on m2"},
		{name: "new with a volume", before: none, specs: []spec.ServiceSpec{named("db", data)}, change: Create,
			want: "volume: create volume data on m1\ncreate: run db on m1"},
		{name: "unchanged", before: had(web("x:1")), specs: []spec.ServiceSpec{web("x:1")}, change: None},
		{name: "image", before: had(web("x:1")), specs: []spec.ServiceSpec{web("x:2")}, change: Update,
			want: "replace: replace web-rep_0 on m1, start-first\nreplace: replace web-rep_1 on m2, start-first"},
		{name: "image with a volume", before: had(named("web", data)), specs: []spec.ServiceSpec{named("web", data, func(sp *spec.ServiceSpec) { sp.Container.Image = "x:2" })}, change: Update,
			want: "replace: replace web-rep_0 on m1, stop-first because volume data has one writer at a time"},
		{name: "a route only", before: had(web("x:1")), specs: []spec.ServiceSpec{named("web", at("a.test"))}, change: Update,
			want: "route: serve https://a.test by port 80 of web\nadopt: keep web-rep_0 on m1\nadopt: keep web-rep_1 on m2"},
		{name: "a route goes", before: had(named("web", at("a.test"))), specs: []spec.ServiceSpec{web("x:1")}, change: Update,
			want: "route: stop serving https://a.test\nadopt: keep web-rep_0 on m1\nadopt: keep web-rep_1 on m2"},
		{name: "a health check is proven on new containers", before: had(web("x:1")), change: Update,
			specs: []spec.ServiceSpec{named("web", func(sp *spec.ServiceSpec) { sp.Health = &spec.HealthCheck{TCP: ":80"} })},
			want:  "replace: replace web-rep_0 on m1, start-first\nreplace: replace web-rep_1 on m2, start-first"},
		{name: "more replicas", before: had(web("x:1")), specs: []spec.ServiceSpec{named("web", func(sp *spec.ServiceSpec) { sp.Replicas = 3 })}, change: Update,
			want: "create: run web on m3"},
		{name: "fewer replicas", before: had(web("x:1")), specs: []spec.ServiceSpec{named("web", func(sp *spec.ServiceSpec) { sp.Replicas = 1 })}, change: Update,
			want: "remove: remove web-rep_1 from m2"},
		{name: "elsewhere", before: had(web("x:1")), specs: []spec.ServiceSpec{named("web", func(sp *spec.ServiceSpec) { sp.Placement.Machines = []string{"m1", "m3"} })}, change: Update,
			want: "adopt: keep web-rep_0 on m1\nmove: move web-rep_1 from m2 to m3, start-first"},
		{name: "recreate", before: had(web("x:1")), input: func(in *Input) { in.Recreate = true }, specs: []spec.ServiceSpec{web("x:1")}, change: Update,
			want: "replace: replace web-rep_0 on m1, start-first\nreplace: replace web-rep_1 on m2, start-first"},
		{name: "off a dead machine", before: func(b *bench) { b.done(web("x:1")); delete(b.Alive, "m2") }, specs: []spec.ServiceSpec{web("x:1")}, change: Update,
			want: "forget: forget web-rep_1\ncreate: run web on m3"},
		{name: "global", before: none, specs: []spec.ServiceSpec{named("web", func(sp *spec.ServiceSpec) { sp.Mode, sp.Replicas = spec.Global, 0 })}, change: Create,
			want: "create: run web on m1\ncreate: run web on m2\ncreate: run web on m3"},
		{name: "a host port", before: had(named("web", hosted)), specs: []spec.ServiceSpec{named("web", hosted, func(sp *spec.ServiceSpec) { sp.Container.Image = "x:2" })}, change: Update,
			want: "replace: replace web-rep_0 on m1, stop-first because a port of the host is held by one replica at a time"},
		{name: "a host port, start-first", before: had(named("web", hosted)), change: Update,
			specs: []spec.ServiceSpec{named("web", hosted, func(sp *spec.ServiceSpec) { sp.Container.Image, sp.Update.Order = "x:2", spec.StartFirst })},
			want:  "move: move web-rep_0 from m1 to m2, start-first because the order is set"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			tt.before(b)
			in := b.input(tt.specs...)
			if tt.input != nil {
				tt.input(&in)
			}
			p, err := Deploy(in)
			if err != nil {
				t.Fatal(err)
			}
			if got := texts(p); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if got := p.Services[0].Change; got != tt.change {
				t.Errorf("change %s, want %s", got, tt.change)
			}
			keys := map[string]bool{}
			for _, s := range p.Services[0].Steps {
				if s.Key == "" || keys[s.Key] {
					t.Errorf("key %q is empty or there twice", s.Key)
				}
				keys[s.Key] = true
			}
		})
	}
}

func hosted(sp *spec.ServiceSpec) {
	sp.Replicas = 1
	sp.Ports = []spec.Port{{Mode: spec.HostPort, Published: 53, Container: 53, Protocol: "udp"}}
}

func TestDeployRefuses(t *testing.T) {
	other := func(b *bench) {
		id := spec.ServiceID("blog", "site")
		sp := named("site", at("a.test"))
		rev := sp.RevisionID(id)
		b.State.Services[id] = spec.Service{ID: id, Project: "blog", Name: "site", Revision: rev, Replicas: 1, CreatedAt: epoch.Add(time.Minute)}
		b.State.Revisions[rev] = spec.Revision{ID: rev, Service: id, Spec: sp}
	}
	none := func(*bench) {}
	tests := []struct {
		name   string
		before func(*bench)
		specs  []spec.ServiceSpec
		code   faults.Code
		says   string
	}{
		{"a host name of another project", other, []spec.ServiceSpec{named("web", at("a.test"))}, faults.Conflict, "https://a.test, which blog/site has already"},
		{"also for the older service", func(b *bench) {
			b.done(web("x:1"))
			other(b)
		}, []spec.ServiceSpec{named("web", at("a.test"))}, faults.Conflict, "service web asks for https://a.test, which blog/site has already"},
		{"one host name twice in the request", none, []spec.ServiceSpec{named("web", at("a.test")), named("app", at("a.test"))}, faults.Conflict, "a.test"},
		{"a service twice", none, []spec.ServiceSpec{web("x:1"), web("x:2")}, faults.Invalid, "twice"},
		{"a circle", none, []spec.ServiceSpec{named("a", after("b")), named("b", after("a"))}, faults.Invalid, "a -> b -> a"},
		{"an unknown dependency", none, []spec.ServiceSpec{named("a", after("b"))}, faults.Invalid, "b, which does not exist"},
		{"a bad name", none, []spec.ServiceSpec{named("Web_1")}, faults.Invalid, "Web_1"},
		{"an unknown machine", none, []spec.ServiceSpec{named("web", func(sp *spec.ServiceSpec) { sp.Placement.Machines = []string{"m9"} })}, faults.NotFound, "machine m9"},
		{"start-first with a volume", none, []spec.ServiceSpec{named("db", data, func(sp *spec.ServiceSpec) { sp.Update.Order = spec.StartFirst })}, faults.Invalid, "two would write to volume data"},
		{"several writers of a volume", none, []spec.ServiceSpec{named("db", data, func(sp *spec.ServiceSpec) { sp.Replicas = 2 })}, faults.Invalid, "cannot have 2 replicas: all would write to volume data"},
		{"a volume on a dead machine", func(b *bench) { b.done(named("db", data)); delete(b.Alive, "m1") },
			[]spec.ServiceSpec{named("db", data, func(sp *spec.ServiceSpec) { sp.Container.Image = "x:2" })}, faults.MachineDown, "on m1, which is down"},
		{"a new service with that volume", func(b *bench) { b.done(named("db", data)); delete(b.Alive, "m1") },
			[]spec.ServiceSpec{named("tool", data)}, faults.MachineDown, "on m1, which is down"},
		{"an image that the machine lacks", func(b *bench) {
			b.done(web("x:1"))
			b.Images = Images{"m1": {"x:2": true}, "m2": {"x:2": false}}
		}, []spec.ServiceSpec{web("x:2")}, faults.NoImage, "m2 does not have the image x:2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			tt.before(b)
			_, err := Deploy(b.input(tt.specs...))
			if faults.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("%s: %v", faults.CodeOf(err), err)
			}
			if hint := faults.Of(err).Hint; hint == "" || tt.code == faults.NoImage && !strings.Contains(hint, "podman build -t x:2 DIR && uc image push x:2") {
				t.Errorf("hint %q", hint)
			}
		})
	}
}

func TestClashThatIsThereHindersNoDeploy(t *testing.T) {
	b := newBench(t)
	b.done(named("web", at("a.test")))
	id := spec.ServiceID("blog", "site")
	sp := named("site", at("a.test"))
	b.State.Services[id] = spec.Service{ID: id, Project: "blog", Name: "site", Revision: sp.RevisionID(id), CreatedAt: epoch.Add(-time.Hour)}
	b.State.Revisions[sp.RevisionID(id)] = spec.Revision{ID: sp.RevisionID(id), Service: id, Spec: sp}
	if _, err := Deploy(b.input(named("web", at("a.test"), func(sp *spec.ServiceSpec) { sp.Container.Image = "x:2" }))); err != nil {
		t.Fatal(err)
	}
}

func TestDeployKeepsScaleWhenTheFileSaysNothing(t *testing.T) {
	b := newBench(t)
	b.done(web("x:1"))
	silent := named("web", func(sp *spec.ServiceSpec) { sp.Replicas = 0 })
	p, err := Deploy(b.input(silent))
	if err != nil || p.Services[0].After.Replicas != 2 || p.Services[0].Change != None {
		t.Fatal(p, err)
	}
}

func TestDeployLevelsAndPrune(t *testing.T) {
	b := newBench(t)
	b.done(named("old"), named("db"))
	in := b.input(named("web", after("api")), named("api", after("db", "cache")), named("db"), named("cache"))
	in.Prune = true
	p, err := Deploy(in)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range p.Services {
		got = append(got, fmt.Sprintf("%d %s %s", s.Level, s.Name(), s.Change))
	}
	want := []string{"0 shop/old remove", "0 shop/cache create", "0 shop/db none", "1 shop/api create", "2 shop/web create"}
	if !slices.Equal(got, want) {
		t.Fatal(got)
	}
	if p.Services[0].Steps[0].Kind != KindPrune {
		t.Error(p.Services[0].Steps[0])
	}
}

func TestDeployWarns(t *testing.T) {
	b := newBench(t)
	global := named("web", func(sp *spec.ServiceSpec) { sp.Mode, sp.Replicas = spec.Global, 0 })
	b.done(global)
	delete(b.Alive, "m2")
	global.Container.Image = "x:2"
	p, err := Deploy(b.input(global))
	if err != nil || len(p.Warnings) != 1 {
		t.Fatal(p.Warnings, err)
	}
	if !strings.Contains(p.Warnings[0], "m2 is down: its 1 replica of shop/web follows") {
		t.Error(p.Warnings)
	}
	b.Alive["m2"] = true
	b.State.Turns = map[string]spec.Turn{
		"m1": {Machine: "m1", Stage: spec.TurnDone}, "m2": {Machine: "m2", Stage: spec.TurnSwitching, To: "abc-nixos"},
	}
	p, err = Deploy(b.input(global))
	if err != nil || len(p.Warnings) != 1 || p.Warnings[0] != "m2 is being upgraded to abc-nixos (switching), and has replicas of shop/web" {
		t.Error(p.Warnings, err)
	}
}

// Also where a service comes to a machine in its turn, and where it leaves one.
func TestDeployWarnsOfUpgradesWhereReplicasComeAndGo(t *testing.T) {
	b := newBench(t)
	b.State.Turns = map[string]spec.Turn{"m1": {Machine: "m1", Stage: spec.TurnStaging}, "m3": {Machine: "m3", Stage: spec.TurnFailed}}
	everywhere := named("web", func(sp *spec.ServiceSpec) { sp.Mode, sp.Replicas = spec.Global, 0 })
	onlyTwo := named("web", func(sp *spec.ServiceSpec) {
		sp.Mode, sp.Replicas, sp.Placement.Machines = spec.Global, 0, []string{"m2"}
	})
	warns := func(in Input, verb string) {
		t.Helper()
		want := []string{"m1 is being upgraded (staging), and " + verb + " replicas of shop/web"}
		if verb == "" {
			want = nil
		}
		if p, err := Deploy(in); err != nil || !slices.Equal(p.Warnings, want) {
			t.Errorf("%s: %q %v", verb, p.Warnings, err)
		}
	}
	warns(b.input(everywhere), "gets")
	warns(b.input(onlyTwo), "")
	b.done(everywhere)
	warns(b.input(onlyTwo), "loses")
	pruned := b.input()
	pruned.Prune = true
	warns(pruned, "loses")
}

// TestDeployWarnsOfASecondWriter, as a service that was renamed leaves one.
func TestDeployWarnsOfASecondWriter(t *testing.T) {
	b := newBench(t)
	b.done(named("db", data))
	in := b.input(named("postgres", data))
	p, err := Deploy(in)
	if err != nil || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "shop/db, which the file does not have, writes to volume data as well as shop/postgres") {
		t.Error(p.Warnings, err)
	}
	in.Prune = true
	if p, err = Deploy(in); err != nil || len(p.Warnings) != 0 {
		t.Error("pruned:", p.Warnings, err)
	}
	p, err = Deploy(b.input(named("postgres", data, func(sp *spec.ServiceSpec) { sp.Container.Mounts[0].ReadOnly = true })))
	if err != nil || len(p.Warnings) != 0 {
		t.Error("it only reads:", p.Warnings, err)
	}
	p, err = Deploy(b.input(named("db", data), named("postgres", data)))
	if err != nil || len(p.Warnings) != 0 {
		t.Error("the file has both:", p.Warnings, err)
	}
}
