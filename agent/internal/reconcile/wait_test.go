package reconcile

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// ensuring begins to wait for rep_1 and returns where the answer will come.
func (m *machine) ensuring(skipHealth bool) <-chan Result {
	out := make(chan Result, 1)
	go func() {
		r, err := m.r.EnsureReplica(m.Context(), "rep_1", skipHealth)
		if err != nil {
			m.Error(err)
		}
		out <- r
	}()
	synctest.Wait()
	return out
}

// pending fails the test when the answer is there already.
func (m *machine) pending(c <-chan Result) {
	m.Helper()
	synctest.Wait()
	select {
	case r := <-c:
		m.Fatalf("answered too early: %+v", r)
	default:
	}
}

func (m *machine) wantFault(r Result, code faults.Code, text string) {
	m.Helper()
	if faults.CodeOf(r.Fault) != code || !strings.Contains(r.Fault.Error(), text) {
		m.Errorf("fault %v (%s), want %s with %q", r.Fault, faults.CodeOf(r.Fault), code, text)
	}
}

func TestEnsureWithoutCheckWaitsForTheMonitorTime(t *testing.T) {
	two := spec.Duration(2 * time.Second)
	none := spec.Duration(0)
	for want, monitor := range map[time.Duration]*spec.Duration{5 * time.Second: nil, 2 * time.Second: &two, 0: &none} {
		onMachine(t, func(m *machine) {
			m.store.update(func(s *spec.State) {
				rev := s.Revisions["rev_1"]
				rev.Spec.Update.Monitor = monitor
				s.Revisions["rev_1"] = rev
				delete(s.Services, "svc_web")
			})
		}, func(m *machine) {
			m.store.update(func(s *spec.State) { s.Services["svc_web"] = base().Services["svc_web"] })
			began := time.Now()
			r := <-m.ensuring(false)
			if took := time.Since(began); r.Fault != nil || took != want || r.Container.State != spec.ContainerRunning {
				t.Errorf("monitor %s: %v after %s", want, r.Fault, took)
			}
			sleep(time.Hour)
			began = time.Now()
			if r := <-m.ensuring(false); r.Fault != nil || time.Since(began) != 0 {
				t.Errorf("what has run for an hour: %v after %s", r.Fault, time.Since(began))
			}
		})
	}
}

func TestEnsureSkippingHealth(t *testing.T) {
	onMachine(t, func(m *machine) { m.check() }, func(m *machine) {
		began := time.Now()
		if r := <-m.ensuring(true); r.Fault != nil || time.Since(began) != 0 {
			t.Errorf("%+v after %s", r, time.Since(began))
		}
	})
}

func TestEnsureWithCheck(t *testing.T) {
	onMachine(t, func(m *machine) { m.check() }, func(m *machine) {
		answer := m.ensuring(false)
		sleep(10 * time.Minute)
		m.pending(answer)
		m.verdict(spec.HealthStarting, "")
		m.pending(answer)
		m.verdict(spec.HealthHealthy, "")
		if r := <-answer; r.Fault != nil || r.Container.Health != spec.HealthHealthy {
			t.Errorf("%+v", r)
		}
		if row := m.row("rep_1"); row.Health != spec.HealthHealthy {
			t.Errorf("recorded %+v", row)
		}
	})
}

func TestEnsureUnhealthy(t *testing.T) {
	onMachine(t, func(m *machine) { m.check() }, func(m *machine) {
		m.engine.Say("rep_1", "listening on the wrong port")
		answer := m.ensuring(false)
		m.verdict(spec.HealthUnhealthy, "GET http://10.210.7.2:8080/: connection refused")
		r := <-answer
		m.wantFault(r, faults.Unhealthy, "replica web-1 did not become healthy: GET http://10.210.7.2:8080/: connection refused")
		if !slices.Equal(r.Logs, []string{"listening on the wrong port"}) || r.Container.Health != spec.HealthUnhealthy {
			t.Errorf("%+v", r)
		}
		if faults.Of(r.Fault).Hint != "uc logs shop/web" {
			t.Errorf("hint %q", faults.Of(r.Fault).Hint)
		}
	})
}

func TestEnsureReportsTheFirstExit(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		answer := m.ensuring(false)
		sleep(3 * time.Second)
		m.pending(answer)
		for range 25 {
			m.engine.Say("rep_1", "still trying")
		}
		m.engine.Say("rep_1", "no database")
		m.engine.Exit("rep_1", 3)
		r := <-answer
		m.wantFault(r, faults.Unhealthy, "replica web-1 exited with code 3 after 3s")
		if len(r.Logs) != failureLines || r.Logs[failureLines-1] != "no database" {
			t.Errorf("%d lines, %q", len(r.Logs), r.Logs)
		}
		if r.Container.ExitCode != 3 || r.Container.State != spec.ContainerExited {
			t.Errorf("%+v", r.Container)
		}
	})
}

// A replica that crashed before is started anew, whatever its backoff, and
// only what happens from then on counts.
func TestEnsureBeginsAnew(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		for range 4 {
			m.engine.Exit("rep_1", 3)
			for m.row("rep_1").State != spec.ContainerRunning {
				time.Sleep(100 * time.Millisecond)
			}
		}
		m.engine.Exit("rep_1", 3)
		m.wantState("rep_1", spec.ContainerExited)
		began := time.Now()
		if r := <-m.ensuring(false); r.Fault != nil || time.Since(began) != spec.DefaultMonitor {
			t.Errorf("%v after %s", r.Fault, time.Since(began))
		}
	})
}

func TestEnsureFailsToStart(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		m.wantState("rep_1", spec.ContainerRunning)
		m.engine.OnCall(func(method, _ string) error {
			if method == "Start" {
				return faults.New(faults.Engine, "podman: start container: no such device")
			}
			return nil
		})
		m.engine.RemoveByHand("rep_1")
		r := <-m.ensuring(false)
		m.wantFault(r, faults.Engine, "replica web-1: podman: start container: no such device")
		if row := m.row("rep_1"); row.State != spec.ContainerFailed {
			t.Errorf("%+v", row)
		}
	})
}

func TestEnsureWithoutImage(t *testing.T) {
	onMachine(t, func(m *machine) { m.engine.LoseImage("web:1") }, func(m *machine) {
		r := <-m.ensuring(false)
		m.wantFault(r, faults.NoImage, "image web:1 is not on this machine")
		if faults.Of(r.Fault).Hint != "uc image push web:1" {
			t.Errorf("hint %q", faults.Of(r.Fault).Hint)
		}
		m.engine.AddImage("web:1")
		if r := <-m.ensuring(false); r.Fault != nil {
			t.Errorf("after the push: %v", r.Fault)
		}
	})
}

func TestEnsureOfWhatShouldNotRun(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		m.replica("rep_1", func(r *spec.Replica) { r.Wanted = spec.WantStopped })
		m.wantFault(<-m.ensuring(false), faults.Conflict, "replica web-1 is wanted stopped")
		m.replica("rep_1", func(r *spec.Replica) { r.Machine = "mch_other" })
		m.wantFault(<-m.ensuring(false), faults.NotReady, "is not one of this machine")
	})
}

func TestEnsureSaysNothingThatIsNotRecorded(t *testing.T) {
	onMachine(t, func(m *machine) { m.store.fail = errors.New("disk is full") }, func(m *machine) {
		_, err := m.r.EnsureReplica(m.Context(), "rep_1", true)
		if err == nil || !strings.Contains(err.Error(), "disk is full") {
			t.Errorf("%v", err)
		}
	})
}

func TestRetire(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		if err := m.r.RetireReplica(m.Context(), "rep_1"); faults.CodeOf(err) != faults.Conflict {
			t.Errorf("of what should run: %v", err)
		}
		if m.wantState("rep_1", spec.ContainerRunning); slices.Contains(m.engine.Calls(), "Remove shop-web-1") {
			t.Error("refused, and yet done")
		}
		m.store.update(func(s *spec.State) { delete(s.Replicas, "rep_1") })
		must(t, m.r.RetireReplica(m.Context(), "rep_1"))
		if _, ok := m.engine.Request("rep_1"); ok {
			t.Error("the container is still there")
		}
		must(t, m.r.RetireReplica(m.Context(), "rep_1")) // no error where there is none
	})
}

func TestRetireOfAStoppedReplica(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		m.replica("rep_1", func(r *spec.Replica) { r.Wanted = spec.WantStopped })
		m.wantState("rep_1", spec.ContainerStopped)
		must(t, m.r.RetireReplica(m.Context(), "rep_1"))
		if _, ok := m.engine.Request("rep_1"); ok {
			t.Error("the container is still there")
		}
		m.wantState("rep_1", spec.ContainerStopped)
	})
}

func TestRetireThatFails(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		m.engine.OnCall(func(method, _ string) error {
			if method == "Remove" {
				return errors.New("device or resource busy")
			}
			return nil
		})
		m.store.update(func(s *spec.State) { delete(s.Replicas, "rep_1") })
		if err := m.r.RetireReplica(m.Context(), "rep_1"); err == nil || !strings.Contains(err.Error(), "busy") {
			t.Errorf("%v", err)
		}
		m.engine.OnCall(nil)
		must(t, m.r.RetireReplica(m.Context(), "rep_1"))
	})
}

func TestHealthFollowsTheContainer(t *testing.T) {
	onMachine(t, func(m *machine) { m.check() }, func(m *machine) {
		m.verdict(spec.HealthHealthy, "")
		first, _ := m.probes.target("rep_1")
		m.engine.Exit("rep_1", 1)
		synctest.Wait()
		if _, ok := m.probes.target("rep_1"); ok {
			t.Error("a container that ended is probed")
		}
		sleep(2 * time.Second)
		second, ok := m.probes.target("rep_1")
		if !ok || second.StartedAt.Equal(first.StartedAt) || second.Address != first.Address {
			t.Errorf("%+v", second)
		}
		if row := m.row("rep_1"); row.Health != spec.HealthStarting {
			t.Errorf("the verdict of an earlier run holds: %+v", row)
		}
		m.store.update(func(s *spec.State) {
			rev := s.Revisions["rev_1"]
			rev.Spec.Health = &spec.HealthCheck{HTTP: ":80/up"}
			s.Revisions["rev_1"] = rev
		})
		synctest.Wait()
		if third, _ := m.probes.target("rep_1"); third.Check.HTTP != ":80/up" {
			t.Errorf("%+v", third)
		}
		m.replica("rep_1", func(r *spec.Replica) { r.Wanted = spec.WantStopped })
		synctest.Wait()
		if _, ok := m.probes.target("rep_1"); ok {
			t.Error("a stopped container is probed")
		}
	})
}
