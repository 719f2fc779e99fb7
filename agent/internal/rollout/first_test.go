package rollout

import (
	"fmt"
	"testing"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// TestFirstDeployThatFailedOnOneSide takes nothing from the other side, where the
// service runs: neither while they are apart nor when they meet.
func TestFirstDeployThatFailedOnOneSide(t *testing.T) {
	for _, sc := range []struct{ here, there string }{{"web:1", "web:1"}, {"web:bad", "web:1"}} {
		for _, failsFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s and %s/fails first=%v", sc.here, sc.there, failsFirst), func(t *testing.T) {
				inWorld(t, three, func(t *testing.T, w *simWorld) {
					w.cut("c")
					time.Sleep(5 * time.Second)
					fails := func() {
						w.becomes(sc.here, exits)
						wantCode(t, w.m("a").deploy(web(sc.here, 1)), faults.Unhealthy)
						w.becomes(sc.here, healthy)
						if n := len(w.m("a").running()) + len(w.m("b").running()); n != 0 {
							t.Errorf("%d containers are left", n)
						}
					}
					if failsFirst {
						fails()
						time.Sleep(time.Second)
					}
					must(t, w.m("c").deploy(web(sc.there, 1)))
					w.neverFewer("web:1", 1)
					if !failsFirst {
						time.Sleep(time.Second)
						// Of the containers only those of c are looked at by what follows.
						fails()
					}
					time.Sleep(2 * orphanAge)
					w.becomes("web:bad", exits)
					s := healed(t, w)
					wantImages(t, s, webID, "web:1")
					if got := s.Revisions[s.Services[webID].Revision].Spec.Container.Image; got != "web:1" {
						t.Errorf("the service is at %s", got)
					}
					time.Sleep(3 * orphanAge)
					wantImages(t, w.settled("a"), webID, "web:1")
				})
			})
		}
	}
}

// TestFailedFirstDeployWhileAMachineIsDown leaves a row that stands for nothing:
// it is no hindrance, is not repaired, and goes when every machine is there.
func TestFailedFirstDeployWhileAMachineIsDown(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		w.m("c").crash()
		w.becomes("web:1", exits)
		wantCode(t, w.m("a").deploy(web("web:1", 2)), faults.Unhealthy)
		time.Sleep(5 * time.Minute)
		s := w.settled("a")
		if !s.NeverRan()[webID] || len(s.Replicas)+len(s.Containers) > 0 {
			t.Fatal(w.dump("a"))
		}
		wantCode(t, w.m("a").driver.Scale(w.ctx, webID, 3, "", nil), faults.NotFound)
		wantCode(t, w.m("b").deploy(web("web:1", 2)), faults.Unhealthy)
		if s := w.settled("b"); !s.NeverRan()[webID] {
			t.Fatal(w.dump("b"))
		}
		w.m("c").boot()
		s = w.settled("a")
		if len(s.Services)+len(s.Rollouts)+len(s.Revisions) > 0 {
			t.Fatal(w.dump("a"))
		}
	})
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		w.m("c").crash()
		w.becomes("web:1", exits)
		wantCode(t, w.m("a").deploy(web("web:1", 2)), faults.Unhealthy)
		w.becomes("web:1", healthy)
		must(t, w.m("a").deploy(web("web:1", 2)))
		w.m("c").boot()
		time.Sleep(5 * time.Minute)
		wantImages(t, w.settled("a"), webID, "web:1", "web:1")
	})
}

// TestAVolumeThatNothingWasMadeWith goes with the first deploy that failed, and
// one that a container had stays.
func TestAVolumeThatNothingWasMadeWith(t *testing.T) {
	for _, sc := range []struct {
		how  behaviour
		kept int
	}{{unmade, 0}, {exits, 1}} {
		inWorld(t, three, func(t *testing.T, w *simWorld) {
			w.becomes("db:1", sc.how)
			if err := w.m("a").deploy(db("db:1")); err == nil {
				t.Fatal("it came up")
			}
			if s := w.settled("a"); len(s.Volumes) != sc.kept || len(s.Services) > 0 {
				t.Errorf("%d volumes are left, want %d\n%s", len(s.Volumes), sc.kept, w.dump("a"))
			}
		})
	}
}

// TestAVolumeOfAnotherServiceStays although this one's containers were not made.
func TestAVolumeOfAnotherServiceStays(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		w.becomes("db:1", unmade)
		reader := db("reader:1")
		reader.Name, reader.Container.Mounts[0].ReadOnly, reader.DependsOn = "reader", true, nil
		w.m("a").deploy(db("db:1"), reader) //nolint:errcheck // db fails
		s := w.settled("a")
		if _, runs := s.Services[spec.ServiceID("shop", "reader")]; !runs || len(s.Volumes) != 1 {
			t.Error(w.dump("a"))
		}
	})
}

// TestARenamedServiceWaitsForTheOldOne: nothing of the new one is wanted before
// the container of the old one, which has the volume, is gone.
func TestARenamedServiceWaitsForTheOldOne(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("a").deploy(db("db:1")))
		ran := 1
		w.watch(func() {
			before := ran
			ran = w.serving("db:1")
			if n := len(w.m("a").replica().State().ReplicasOf(spec.ServiceID("shop", "postgres"))); n > 0 && before+ran > 0 {
				t.Error("the new one is wanted while the old one runs")
			}
		})
		renamed := db("postgres:1")
		renamed.Name = "postgres"
		must(t, w.m("a").driver.Deploy(w.ctx, DeployRequest{Project: "shop", Specs: []spec.ServiceSpec{renamed}, Prune: true}, nil))
		w.settled("a")
		if w.serving("postgres:1") != 1 || ran != 0 {
			t.Error(w.dump("a"))
		}
	})
}

// TestARenamedServiceDoesNotBegin while the old one has the volume: it is as if
// it had not been asked for.
func TestARenamedServiceDoesNotBegin(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		must(t, w.m("a").deploy(db("db:1")))
		w.neverTwoWriters()
		w.becomes("db:1", stays)
		renamed := db("postgres:1")
		renamed.Name = "postgres"
		request := DeployRequest{Project: "shop", Specs: []spec.ServiceSpec{renamed}, Prune: true}
		wantCode(t, w.m("a").driver.Deploy(w.ctx, request, nil), faults.Conflict)
		if s := w.m("a").replica().State(); len(s.Services) != 0 || len(s.Rollouts) != 0 || len(s.Volumes) != 1 {
			t.Error(w.dump("a"))
		}
		w.becomes("db:1", healthy)
		w.settled("a")
		must(t, w.m("a").driver.Deploy(w.ctx, request, nil))
		if w.settled("a"); w.serving("postgres:1") != 1 {
			t.Error(w.dump("a"))
		}
	})
}

// TestScalesDoNotEvictHistory, nor do deploys that fail.
func TestScalesDoNotEvictHistory(t *testing.T) {
	inWorld(t, []string{"a"}, func(t *testing.T, w *simWorld) {
		w.becomes("web:bad", exits)
		must(t, w.m("a").deploy(web("web:1", 1)))
		must(t, w.m("a").deploy(web("web:2", 1)))
		for n := range 8 {
			must(t, w.m("a").driver.Scale(w.ctx, webID, 2+n%2, "", nil))
			wantCode(t, w.m("a").deploy(web("web:bad", 1+n%2)), faults.Unhealthy)
		}
		if s := w.settled("a"); len(s.Rollouts) > keptRollouts+keptOthers {
			t.Errorf("%d rollouts", len(s.Rollouts))
		}
		must(t, w.m("a").driver.Rollback(w.ctx, webID, "", "", nil))
		for _, image := range images(w.settled("a"), webID) {
			if image != "web:1" {
				t.Errorf("%s runs", image)
			}
		}
	})
}

// TestAnImageThatCannotBePulled decides on every way to a place, not only on
// that of a deploy.
func TestAnImageThatCannotBePulled(t *testing.T) {
	const image = "localhost/web:1"
	inWorld(t, []string{"a", "b", "c", "d"}, func(t *testing.T, w *simWorld) {
		w.m("b").has[image], w.m("c").has[image] = true, true
		sp := web(image, 2)
		sp.Placement.Failover = true
		must(t, w.m("a").deploy(sp))
		p, err := w.m("a").driver.PlanScale(w.ctx, webID, 6)
		must(t, err)
		must(t, w.m("a").driver.Scale(w.ctx, webID, 6, planOf(p).Digest(), nil))
		w.m("c").crash()
		w.settled("a")
		if n := len(w.m("b").running()); n != 6 {
			t.Errorf("%d run where the image is", n)
		}
		if n := len(w.m("a").running()) + len(w.m("d").running()); n != 0 {
			t.Errorf("%d run where the image is not", n)
		}
	})
}
