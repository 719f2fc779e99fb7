package rollout

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

func TestPausesGrow(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	row, other := spec.Service{ID: "svc_a", Replicas: 1}, spec.Service{ID: "svc_a", Replicas: 2}
	after := func(failures int) (a attempts) {
		for range failures {
			a = a.failed(row, "here", start)
		}
		return a
	}
	for name, c := range map[string]struct {
		attempts attempts
		row      spec.Service
		around   string
		want     time.Duration // after the last failure; negative: at once
	}{
		"never failed":                 {attempts{}, row, "here", -1},
		"first":                        {after(1), row, "here", 5 * time.Second},
		"second":                       {after(2), row, "here", 10 * time.Second},
		"seventh":                      {after(7), row, "here", 320 * time.Second},
		"eighth":                       {after(8), row, "here", 10 * time.Minute},
		"thousandth":                   {after(1000), row, "here", 10 * time.Minute},
		"another row":                  {after(1000), other, "here", -1},
		"other surroundings, first":    {after(1), row, "there", 5 * time.Second},
		"other surroundings, eighth":   {after(8), row, "there", 75 * time.Second},
		"failed first for another row": {after(8).failed(other, "here", start), other, "here", 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			next := c.attempts.next(c.row, c.around)
			if c.want < 0 {
				if !next.IsZero() {
					t.Errorf("next is %s", next)
				}
				return
			}
			if got := next.Sub(start); got != c.want {
				t.Errorf("a pause of %s, want %s", got, c.want)
			}
		})
	}
}

func TestAttemptsAreForgotten(t *testing.T) {
	now := time.Now()
	a := attempts{}.failed(spec.Service{}, "", now)
	for after, want := range map[time.Duration]bool{0: false, longestPause: false, 2*longestPause + 1: true} {
		if got := a.over(now.Add(after)); got != want {
			t.Errorf("over %s later: %t", after, got)
		}
	}
	if !(attempts{}).over(now) {
		t.Error("what never failed is not over")
	}
}

func TestSurroundings(t *testing.T) {
	base := func() (*spec.State, spec.Alive) {
		s := &spec.State{
			Machines: map[string]spec.Machine{"mch_a": {ID: "mch_a", Schedulable: true}, "mch_b": {ID: "mch_b"}},
			Services: map[string]spec.Service{"svc_a": {ID: "svc_a", Wanted: spec.WantRunning}},
			Replicas: map[string]spec.Replica{
				"rep_a": {ID: "rep_a", Service: "svc_a", Machine: "mch_a", Wanted: spec.WantRunning},
				"rep_b": {ID: "rep_b", Service: "svc_b", Machine: "mch_a", Wanted: spec.WantRunning},
			},
			Containers: map[string]spec.Container{},
		}
		return s, spec.Alive{"mch_a": true}
	}
	row := func(c spec.Container) func(*spec.State, spec.Alive) {
		return func(s *spec.State, _ spec.Alive) { s.Containers[c.Replica] = c }
	}
	machine := func(change func(*spec.Machine)) func(*spec.State, spec.Alive) {
		return func(s *spec.State, _ spec.Alive) {
			m := s.Machines["mch_a"]
			change(&m)
			s.Machines["mch_a"] = m
		}
	}
	for name, c := range map[string]struct {
		change func(*spec.State, spec.Alive)
		other  bool
	}{
		"nothing":               {func(*spec.State, spec.Alive) {}, false},
		"a machine lives":       {func(_ *spec.State, alive spec.Alive) { alive["mch_b"] = true }, true},
		"a machine is new":      {func(s *spec.State, _ spec.Alive) { s.Machines["mch_c"] = spec.Machine{ID: "mch_c"} }, true},
		"a machine has a label": {machine(func(m *spec.Machine) { m.Labels = map[string]string{"disk": "ssd"} }), true},
		"another agent":         {machine(func(m *spec.Machine) { m.Version = "2" }), true},
		"an endpoint moved":     {machine(func(m *spec.Machine) { m.Endpoints = m.Endpoints[:0:0] }), false},
		"it could not be made":  {row(spec.Container{Replica: "rep_a", Machine: "mch_a", State: spec.ContainerFailed, Error: "no"}), false},
		"it was made":           {row(spec.Container{Replica: "rep_a", Machine: "mch_a", State: spec.ContainerExited}), true},
		"it takes traffic":      {row(spec.Container{Replica: "rep_a", Machine: "mch_a", State: spec.ContainerRunning}), true},
		"another service's was": {row(spec.Container{Replica: "rep_b", Machine: "mch_a", State: spec.ContainerRunning}), false},
	} {
		t.Run(name, func(t *testing.T) {
			s, alive := base()
			before := surroundings(s, alive, "svc_a")
			c.change(s, alive)
			if got := surroundings(s, alive, "svc_a") != before; got != c.other {
				t.Errorf("other: %t, want %t", got, c.other)
			}
		})
	}
}

// refusingPeers run no new replica while refuse is set.
type refusingPeers struct {
	Peers
	refuse *atomic.Bool
	asked  *atomic.Int64
	code   faults.Code
}

func (p refusingPeers) RunReplica(ctx context.Context, machine, replica string, v Version, skipHealth bool) (Verdict, error) {
	if p.refuse.Load() {
		p.asked.Add(1)
		return Verdict{Fault: faults.New(p.code, "the container cannot be made")}, nil
	}
	return p.Peers.RunReplica(ctx, machine, replica, v, skipHealth)
}

func (s *simStore) commits() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq
}

// refuses makes a service want a revision whose containers cannot be made, as
// a merge of two partitions may, and returns what ends that.
func (w *simWorld) refuses(t *testing.T, code faults.Code) (refuse *atomic.Bool, asked *atomic.Int64) {
	refuse, asked = new(atomic.Bool), new(atomic.Int64)
	synctest.Wait()
	for _, name := range three {
		d := w.m(name).driver
		d.Peers = refusingPeers{d.Peers, refuse, asked, code}
	}
	w.becomes("web:2", hangs)
	must(t, w.m("a").deploy(web("web:1", 1)))
	w.settled("a")
	refuse.Store(true)
	_, err := w.m("a").replica().Update(w.ctx, func(tx Tx) error {
		svc, sp := tx.State().Services[webID], web("web:2", 1)
		svc.Revision = sp.RevisionID(webID)
		return tx.Put(svc, spec.Revision{ID: svc.Revision, Service: webID, Spec: sp, CreatedAt: time.Now()})
	})
	must(t, err)
	return refuse, asked
}

// TestRefusedReplicasRest looks that the repair of a service whose containers
// cannot be made backs off, whatever the engine calls its refusal, says why, and
// succeeds soon after the engine has them.
func TestRefusedReplicasRest(t *testing.T) {
	for _, code := range []faults.Code{faults.Conflict, faults.Engine, faults.Unhealthy, faults.NoImage} {
		t.Run(string(code), func(t *testing.T) {
			inWorld(t, three, func(t *testing.T, w *simWorld) {
				refuse, asked := w.refuses(t, code)
				before := w.m("a").replica().commits()
				time.Sleep(time.Hour)
				// Twelve pauses fit into an hour, and a failing repair is two commits or three.
				if commits, tries := w.m("a").replica().commits()-before, asked.Load(); tries < 5 || tries > 15 || commits > 50 {
					t.Errorf("%d tries, %d commits in an hour", tries, commits)
				}
				notes := w.m("a").driver.Notes()
				if len(notes) != 1 || notes[0].Service != webID || notes[0].Code != string(code) {
					t.Errorf("notes %v", notes)
				}
				refuse.Store(false)
				w.heals("web:2")
				wantImages(t, w.settled("a"), webID, "web:2")
				if notes := w.m("a").driver.Notes(); len(notes) != 0 {
					t.Errorf("notes %v", notes)
				}
			})
		})
	}
}

// TestARolloutWithoutAWayBackEnds: the revision that it came from is gone, and
// each takeover fails in the same way.
func TestARolloutWithoutAWayBackEnds(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		w.refuses(t, faults.Engine)
		_, err := w.m("a").replica().Update(w.ctx, func(tx Tx) error {
			return tx.Put(spec.Rollout{ID: "rol_lost", Service: webID, From: "rev_gone", To: tx.State().Services[webID].Revision,
				Stage: spec.RolloutRunning, Driver: "mch_gone", StartedAt: time.Now()})
		})
		must(t, err)
		time.Sleep(time.Minute)
		s, resumed := w.m("a").replica().State(), 0
		for _, e := range s.Events {
			if e.Kind == "rollout.resumed" {
				resumed++
			}
		}
		if r := s.Rollouts["rol_lost"]; r.Stage != spec.RolloutFailed || resumed != 1 {
			t.Errorf("taken up %d times: %+v", resumed, r)
		}
	})
}

// heals lets containers that hung become healthy.
func (w *simWorld) heals(image string) {
	synctest.Wait() // nobody looks
	w.mu.Lock()
	delete(w.images, image)
	machines := w.machines
	w.mu.Unlock()
	for _, m := range machines {
		m.poke <- struct{}{}
	}
}

// TestAFlappingMachineKeepsNobodyWriting: a machine that comes and goes is a
// change that may help, each time.
func TestAFlappingMachineKeepsNobodyWriting(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		_, asked := w.refuses(t, faults.Engine)
		before := asked.Load()
		for range 360 {
			w.m("c").crash()
			time.Sleep(5 * time.Second)
			w.m("c").boot()
			time.Sleep(5 * time.Second)
		}
		if tries := asked.Load() - before; tries > 60 {
			t.Errorf("%d tries in an hour", tries)
		}
	})
}
