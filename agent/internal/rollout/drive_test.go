package rollout

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

func planConverge(d *Driver, service string) ([]plan.Step, error) {
	return plan.Converge(d.view(nil), service, plan.Options{})
}

// inWorld runs a test in virtual time with these machines.
func inWorld(t *testing.T, names []string, test func(t *testing.T, w *simWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := newSimWorld(t, ctx, names...)
		defer w.wg.Wait()
		defer cancel()
		test(t, w)
	})
}

var three = []string{"a", "b", "c"}

// web is a spec of a service with an image and a number of replicas.
func web(image string, replicas int) spec.ServiceSpec {
	return spec.ServiceSpec{Name: "web", Mode: spec.Replicated, Replicas: replicas,
		Container: spec.ContainerSpec{Image: image}, Health: &spec.HealthCheck{HTTP: ":80/"}}
}

// db is a service that writes to a volume.
func db(image string) spec.ServiceSpec {
	sp := web(image, 1)
	sp.Name = "db"
	sp.Container.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "data", Target: "/data"}}
	sp.Volumes = []spec.VolumeSpec{{Name: "data"}}
	return sp
}

func (m *simMachine) deploy(specs ...spec.ServiceSpec) error {
	return m.driver.Deploy(m.w.ctx, DeployRequest{Project: "shop", Specs: specs}, nil)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code faults.Code) {
	t.Helper()
	if faults.CodeOf(err) != code {
		t.Fatalf("want %s, got %s: %v", code, faults.CodeOf(err), err)
	}
}

var webID, dbID = spec.ServiceID("shop", "web"), spec.ServiceID("shop", "db")

// images are the images of a service's replicas, sorted.
func images(s *spec.State, service string) (out []string) {
	for _, r := range s.ReplicasOf(service) {
		out = append(out, s.Revisions[r.Revision].Spec.Container.Image)
	}
	slices.Sort(out)
	return out
}

func wantImages(t *testing.T, s *spec.State, service string, want ...string) {
	t.Helper()
	if got := images(s, service); !slices.Equal(got, want) {
		t.Fatalf("replicas run %v, want %v", got, want)
	}
}

// serving counts the containers of a service that really are healthy anywhere.
func (w *simWorld) serving(prefix string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, m := range w.machines {
		for _, c := range m.containers {
			if strings.HasPrefix(c.spec.Image, prefix) && c.health == spec.HealthHealthy && c.state == spec.ContainerRunning {
				n++
			}
		}
	}
	return n
}

// writers is the highest number of containers that have one volume of one
// machine in their hands.
func (w *simWorld) writers() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	most := 0
	for _, m := range w.machines {
		by := map[string]int{}
		for _, c := range m.containers {
			for _, mount := range c.spec.Mounts {
				by[mount.Source]++
				most = max(most, by[mount.Source])
			}
		}
	}
	return most
}

// neverFewer fails the test when fewer than n of a service serve from now on.
func (w *simWorld) neverFewer(prefix string, n int) {
	w.watch(func() {
		if got := w.serving(prefix); got < n {
			w.t.Errorf("at %s only %d of %s serve", time.Now().Format(time.StampMilli), got, prefix)
		}
	})
}

// loadAll makes every machine send traffic to what runs, and fails the test from
// now on when a container ends to which one still does.
func (w *simWorld) loadAll() {
	for _, name := range []string{"a", "b", "c"} {
		w.m(name).load()
	}
	w.mu.Lock()
	w.gated = true
	w.mu.Unlock()
}

// neverTwoWriters fails the test when two containers hold one volume.
func (w *simWorld) neverTwoWriters() {
	w.watch(func() {
		if w.writers() > 1 {
			w.t.Errorf("at %s two write to one volume", time.Now().Format(time.StampMilli))
		}
	})
}

func TestFirstDeploySpreadsAndRuns(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		began := time.Now()
		must(t, w.m("a").deploy(web("web:1", 12)))
		took := time.Since(began)
		s := w.settled("a")
		if n := len(s.ReplicasOf(webID)); n != 12 {
			t.Fatalf("%d replicas", n)
		}
		for _, name := range three {
			if n := len(w.m(name).running()); n != 4 {
				t.Errorf("%d on %s", n, name)
			}
		}
		// The machines of the sim start one container after the other, so this is
		// what four take, and nothing on top of it.
		if bound := 4*(simStart+simHealth) + 50*time.Millisecond; took > bound {
			t.Errorf("took %s, more than %s", took, bound)
		}
		if r := only(t, s.Rollouts); r.Stage != spec.RolloutDone || r.Driver != "mch_a" {
			t.Errorf("rollout %+v", r)
		}
	})
}

func only[V any](t *testing.T, m map[string]V) (v V) {
	t.Helper()
	if len(m) != 1 {
		t.Fatalf("%d rows: %v", len(m), m)
	}
	for _, v = range m {
	}
	return v
}

func TestUpdateKeepsServing(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("a").deploy(web("web:1", 3)))
		w.neverFewer("web", 3)
		w.loadAll()
		must(t, w.m("b").deploy(web("web:2", 3)))
		s := w.settled("c")
		wantImages(t, s, webID, "web:2", "web:2", "web:2")
	})
}

func TestFailedUpdateReturns(t *testing.T) {
	for name, image := range map[string]behaviour{"unhealthy": neverHealthy, "exits": exits} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, three, func(t *testing.T, w *simWorld) {
				w.becomes("web:2", image)
				must(t, w.m("a").deploy(web("web:1", 3)))
				w.neverFewer("web:1", 3)
				var failed Progress
				err := w.m("a").driver.Deploy(w.ctx, DeployRequest{Project: "shop", Specs: []spec.ServiceSpec{web("web:2", 5)}}, func(p Progress) {
					if p.Kind == ProgressFailed && len(p.Logs) > 0 {
						failed = p
					}
				})
				wantCode(t, err, faults.Unhealthy)
				if len(failed.Logs) == 0 {
					t.Error("no log lines were shown")
				}
				if !strings.Contains(err.Error(), "as before") || faults.Of(err).Hint == "" {
					t.Errorf("says %q, hint %q", err, faults.Of(err).Hint)
				}
				s := w.settled("a")
				wantImages(t, s, webID, "web:1", "web:1", "web:1")
				if s.Services[webID].Replicas != 3 {
					t.Errorf("replicas %d", s.Services[webID].Replicas)
				}
			})
		})
	}
}

func TestFailedFirstDeployLeavesNothing(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		w.becomes("web:1", exits)
		wantCode(t, w.m("a").deploy(web("web:1", 3)), faults.Unhealthy)
		s := w.settled("a")
		if len(s.Services)+len(s.Replicas)+len(s.Revisions)+len(s.Rollouts)+len(s.Containers) > 0 {
			t.Fatal(w.dump("a"))
		}
		if len(s.Events) == 0 {
			t.Error("no event tells of it")
		}
		w.becomes("web:1", healthy)
		must(t, w.m("a").deploy(web("web:1", 3)))
	})
}

func TestVolumeHasOneWriter(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		w.neverTwoWriters()
		must(t, w.m("a").deploy(db("db:1")))
		must(t, w.m("b").deploy(db("db:2")))
		w.becomes("db:3", exits)
		wantCode(t, w.m("c").deploy(db("db:3")), faults.Unhealthy)
		s := w.settled("a")
		wantImages(t, s, dbID, "db:2")
		only(t, s.Volumes)
	})
}

func TestRouteChangeTouchesNoContainer(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("a").deploy(web("web:1", 3)))
		w.settled("a")
		touched := 0
		w.watch(func() { touched++ })
		before := w.m("a").replica().State().Replicas
		next := web("web:1", 3)
		next.Ports = []spec.Port{{Mode: spec.IngressPort, Hostname: "a.test", Container: 80, Protocol: "https"}}
		must(t, w.m("a").deploy(next))
		s := w.settled("a")
		for id, r := range before {
			now, ok := s.Replicas[id]
			if !ok || now.Revision == r.Revision || now.Machine != r.Machine {
				t.Errorf("%v became %v", r, now)
			}
		}
		// Each container only takes the new revision's name.
		if touched > 3 {
			t.Errorf("containers changed %d times", touched)
		}
	})
}

func TestTwoDeploysOfOneServiceAtOnce(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("a").deploy(web("web:1", 3)))
		errs := make([]error, 3)
		var wg sync.WaitGroup
		for i, name := range three {
			wg.Go(func() { errs[i] = w.m(name).deploy(web("web:"+name, 3)) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
				continue
			}
			wantCode(t, err, faults.Busy)
		}
		if won != 1 {
			t.Fatalf("%d deploys went through: %v", won, errs)
		}
		w.settled("a")
	})
}

func TestInterruptReturnsTheServiceInHand(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("a").deploy(web("web:1", 3)))
		w.neverFewer("web", 3)
		ctx, cancel := context.WithTimeout(w.ctx, simStart+simHealth+simStop)
		defer cancel()
		err := w.m("a").driver.Deploy(ctx, DeployRequest{Project: "shop", Specs: []spec.ServiceSpec{web("web:2", 3)}}, nil)
		wantCode(t, err, faults.Interrupted)
		wantImages(t, w.settled("a"), webID, "web:1", "web:1", "web:1")
	})
}

func TestDependenciesComeFirst(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		app := web("web:1", 2)
		app.DependsOn = []string{"db"}
		w.watch(func() {
			if w.serving("web") > 0 && w.serving("db") == 0 {
				t.Error("web runs without db")
			}
		})
		must(t, w.m("a").deploy(app, db("db:1")))
		w.settled("a")
		// When what it depends on fails, the service is not begun.
		w.mu.Lock()
		w.seen = nil
		w.mu.Unlock()
		w.becomes("db:2", exits)
		app.Container.Image = "web:2"
		wantCode(t, w.m("a").deploy(app, db("db:2")), faults.Unhealthy)
		s := w.settled("a")
		wantImages(t, s, webID, "web:1", "web:1")
		if len(s.Revisions[s.Services[webID].Revision].Spec.Container.Image) == 0 {
			t.Error("revision lost")
		}
	})
}

func TestTargetDiesDuringStep(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("a").deploy(web("web:1", 3)))
		crashed := ""
		err := w.m("a").driver.Deploy(w.ctx, DeployRequest{Project: "shop", Specs: []spec.ServiceSpec{web("web:2", 3)}}, func(p Progress) {
			if p.Kind == ProgressStart && crashed == "" && p.Step.Machine != "mch_a" {
				crashed = p.Step.Machine
				w.machines[crashed].crash()
			}
		})
		wantCode(t, err, faults.MachineDown)
		w.settled("a")
		w.machines[crashed].boot()
		wantImages(t, w.settled("a"), webID, "web:1", "web:1", "web:1")
	})
}

func TestTargetIsTooBusyToAnswerDuringStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &moody{alive: true, wake: make(chan struct{}, 1)}
		d := &Driver{}
		d.Members = b
		for _, c := range []struct {
			stall time.Duration
			cause error
		}{{2 * time.Second, nil}, {10 * time.Second, errDown}} {
			ctx, stop := d.whileAlive(t.Context(), "mch_b")
			b.set(false)
			time.Sleep(c.stall)
			b.set(true)
			time.Sleep(time.Minute)
			if cause := context.Cause(ctx); !errors.Is(cause, c.cause) {
				t.Errorf("after %s: %v", c.stall, cause)
			}
			stop()
		}
	})
}

// moody is a membership of mch_b, which is called dead at times.
type moody struct {
	mu    sync.Mutex
	alive bool
	wake  chan struct{}
}

func (m *moody) set(alive bool) {
	m.mu.Lock()
	m.alive = alive
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *moody) Alive() spec.Alive {
	m.mu.Lock()
	defer m.mu.Unlock()
	return spec.Alive{"mch_b": m.alive}
}

func (m *moody) Subscribe() (<-chan struct{}, func()) { return m.wake, func() {} }

func TestAgentRestartsDuringStep(t *testing.T) {
	inWorld(t, []string{"a"}, func(t *testing.T, w *simWorld) {
		// A machine that lives but does not answer for a moment fails nothing.
		b := w.add("b", w.m("a").store, 0)
		calls := 0
		err := retry(w.ctx, func() error {
			if calls++; calls < 5 {
				return faults.New(faults.Unreachable, "%s does not answer", b.id)
			}
			return nil
		})
		if err != nil || calls != 5 {
			t.Fatalf("%d calls, %v", calls, err)
		}
	})
}

// behindPeers never hears from one machine that its traffic follows.
type behindPeers struct {
	Peers
	machine string
}

func (p behindPeers) AwaitLoaded(ctx context.Context, machine string, v Version) error {
	if machine != p.machine {
		return p.Peers.AwaitLoaded(ctx, machine, v)
	}
	<-ctx.Done()
	return ctx.Err()
}

// TestAMachineThatIsBehindIsWaitedForOnce: a full disk on one machine does not
// cost every step of a rollout its patience, and is said once.
func TestAMachineThatIsBehindIsWaitedForOnce(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		d := w.m("a").driver
		must(t, w.m("a").deploy(web("web:1", 6)))
		began := time.Now()
		must(t, w.m("a").deploy(web("web:2", 6)))
		usual := time.Since(began)
		d.Peers = behindPeers{d.Peers, "mch_c"}
		said, began := 0, time.Now()
		must(t, d.Deploy(w.ctx, DeployRequest{Project: "shop", Specs: []spec.ServiceSpec{web("web:1", 6)}}, func(p Progress) {
			if strings.Contains(p.Text, "did not say that its traffic follows") {
				said++
			}
		}))
		// Six steps of two waits, and the one at the end.
		if longer := time.Since(began) - usual; longer > loadedWithin+13*behindWithin || longer < loadedWithin || said != 1 {
			t.Errorf("%v longer than %v, said %d times", longer, usual, said)
		}
	})
}

// deafPeers have one machine whose engine does not answer.
type deafPeers struct {
	Peers
	machine string
}

func (p deafPeers) RunReplica(ctx context.Context, machine, replica string, v Version, skipHealth bool) (Verdict, error) {
	if machine == p.machine {
		return Verdict{}, faults.New(faults.Engine, "Podman does not answer").WithHint("start it")
	}
	return p.Peers.RunReplica(ctx, machine, replica, v, skipHealth)
}

// TestADeafEngineIsNotWaitedFor: it cannot say that a container is gone. The
// hint says on which machine it is to be followed.
func TestADeafEngineIsNotWaitedFor(t *testing.T) {
	inWorld(t, []string{"a", "b"}, func(t *testing.T, w *simWorld) {
		d := w.m("a").driver
		d.Peers = deafPeers{d.Peers, "mch_b"}
		err := w.m("a").deploy(web("web:1", 2))
		wantCode(t, err, faults.Engine)
		if hint := faults.Of(err).Hint; hint != "on "+d.Store.State().MachineName("mch_b")+": start it" {
			t.Errorf("hint %q", hint)
		}
		on := []spec.Replica{{ID: "rep_a", Machine: "mch_a"}, {ID: "rep_b", Machine: "mch_b"}}
		dr := d.newDrive(spec.Rollout{}, "shop/web")
		for _, r := range on {
			dr.runs(w.ctx, r) //nolint:errcheck // it fails for both, each in its own way
		}
		if left := dr.endable(on); len(left) != 1 || left[0].ID != "rep_a" {
			t.Errorf("%v", left)
		}
	})
}

func TestScaleStopStartRollbackRemove(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		d := w.m("a").driver
		must(t, w.m("a").deploy(web("web:1", 2), db("db:1")))
		must(t, w.m("a").deploy(web("web:2", 2), db("db:1")))
		must(t, d.Scale(w.ctx, webID, 5, "", nil))
		wantImages(t, w.settled("a"), webID, "web:2", "web:2", "web:2", "web:2", "web:2")
		must(t, d.Scale(w.ctx, webID, 1, "", nil))
		must(t, d.Rollback(w.ctx, webID, "", "", nil))
		wantImages(t, w.settled("a"), webID, "web:1")
		must(t, d.Stop(w.ctx, []string{webID}, nil))
		if n := w.serving("web"); n != 0 {
			t.Fatalf("%d run after stop", n)
		}
		must(t, d.Start(w.ctx, []string{webID}, nil))
		if n := w.serving("web"); n != 1 {
			t.Fatalf("%d run after start", n)
		}
		w.settled("a")
		must(t, d.Remove(w.ctx, []string{webID, dbID}, true, "", nil))
		s := w.settled("a")
		if len(s.Services)+len(s.Replicas)+len(s.Containers)+len(s.Revisions)+len(s.Rollouts)+len(s.Volumes) > 0 {
			t.Fatal(w.dump("a"))
		}
		var emptied []string
		for _, m := range w.machines {
			emptied = append(emptied, m.emptied...)
		}
		if !slices.Equal(emptied, []string{"shop/data"}) {
			t.Errorf("content removed of %v, want that of the one volume", emptied)
		}
	})
}

func TestFailedScaleHasAsManyAsBefore(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("a").deploy(web("web:1", 2)))
		w.becomes("web:1", exits)
		wantCode(t, w.m("a").driver.Scale(w.ctx, webID, 4, "", nil), faults.Unhealthy)
		s := w.settled("a")
		wantImages(t, s, webID, "web:1", "web:1")
		if s.Services[webID].Replicas != 2 {
			t.Fatal(s.Services[webID])
		}
	})
}

func TestRecreateReplacesEverything(t *testing.T) {
	for _, sp := range []spec.ServiceSpec{web("x:1", 3), db("x:1")} {
		t.Run(sp.Name, func(t *testing.T) {
			inWorld(t, three, func(t *testing.T, w *simWorld) {
				w.neverTwoWriters()
				must(t, w.m("a").deploy(sp))
				ended := map[*simContainer]bool{}
				for _, m := range w.machines {
					for _, c := range m.running() {
						ended[c] = true
					}
				}
				must(t, w.m("a").driver.Deploy(w.ctx, DeployRequest{Project: "shop", Specs: []spec.ServiceSpec{sp}, Recreate: true}, nil))
				w.settled("a")
				for _, m := range w.machines {
					for id, c := range m.running() {
						if ended[c] {
							t.Errorf("%s is the container it was", id)
						}
					}
				}
			})
		})
	}
}

func TestImageNobodyHas(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		wantCode(t, w.m("a").deploy(web("localhost/web:1", 2)), faults.NoImage)
		w.m("b").has["localhost/web:1"] = true
		must(t, w.m("a").deploy(web("localhost/web:1", 2)))
		if n := len(w.m("b").running()); n != 2 {
			t.Errorf("%d run where the image is", n)
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	inWorld(t, []string{"a"}, func(t *testing.T, w *simWorld) {
		for i := range 15 {
			must(t, w.m("a").deploy(web("web:"+string(rune('a'+i)), 1)))
		}
		s := w.settled("a")
		if len(s.Rollouts) > keptRollouts || len(s.Revisions) > keptRollouts+1 {
			t.Errorf("%d rollouts, %d revisions", len(s.Rollouts), len(s.Revisions))
		}
	})
}
