package reconcile

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

func TestStatus(t *testing.T) {
	began := time.Unix(500, 0).UTC()
	check := &spec.HealthCheck{TCP: ":80"}
	verdict := Verdict{Container: "c1", StartedAt: began, Health: spec.HealthUnhealthy, Output: "connection refused"}
	row := func(state spec.ContainerState, health spec.Health, text string) spec.Container {
		return spec.Container{
			Replica: "rep_1", Machine: self, EngineID: "c1", Revision: "rev_1", Address: netip.MustParseAddr("10.210.7.2"),
			State: state, Health: health, Error: text, StartedAt: began,
		}
	}
	none := spec.Container{Replica: "rep_1", Machine: self, Health: spec.HealthNone}
	exited := row(spec.ContainerExited, spec.HealthNone, "exited with code 3")
	exited.ExitCode = 3
	for _, c := range []struct {
		name   string
		state  runtime.State
		check  *spec.HealthCheck
		wanted spec.Wanted
		seen   Seen
		want   spec.Container
	}{
		{"nothing yet", "", nil, spec.WantRunning, Seen{}, with(none, spec.ContainerPending, "")},
		{"could not be made", "", nil, spec.WantRunning, Seen{Problem: "no image"}, with(none, spec.ContainerFailed, "no image")},
		{"not wanted", "", nil, spec.WantStopped, Seen{Problem: "no image"}, with(none, spec.ContainerStopped, "")},
		{"running", runtime.Running, nil, spec.WantRunning, Seen{}, row(spec.ContainerRunning, spec.HealthNone, "")},
		{"draining", runtime.Running, nil, spec.WantDraining, Seen{}, row(spec.ContainerRunning, spec.HealthNone, "")},
		{"starting", runtime.Running, check, spec.WantRunning, Seen{}, row(spec.ContainerRunning, spec.HealthStarting, "")},
		{"unhealthy", runtime.Running, check, spec.WantRunning, Seen{Verdict: verdict}, row(spec.ContainerRunning, spec.HealthUnhealthy, "connection refused")},
		{"verdict of another run", runtime.Running, check, spec.WantRunning, Seen{Verdict: Verdict{Container: "c1", Health: spec.HealthHealthy}}, row(spec.ContainerRunning, spec.HealthStarting, "")},
		{"not started", runtime.Created, nil, spec.WantRunning, Seen{Problem: "the bridge does not exist"}, row(spec.ContainerFailed, spec.HealthNone, "the bridge does not exist")},
		{"exited", runtime.Exited, nil, spec.WantRunning, Seen{}, exited},
		{"stopped", runtime.Exited, nil, spec.WantStopped, Seen{}, row(spec.ContainerStopped, spec.HealthNone, "")},
		{"lost", runtime.Lost, nil, spec.WantRunning, Seen{}, row(spec.ContainerLost, spec.HealthNone, "")},
	} {
		s := base()
		rev, rep := s.Revisions["rev_1"], s.Replicas["rep_1"]
		rev.Spec.Health, rep.Wanted = c.check, c.wanted
		s.Revisions["rev_1"], s.Replicas["rep_1"] = rev, rep
		in := Input{Self: self, Cluster: cluster, State: s, Ready: true}
		if c.state != "" {
			ctr := fitting(s, c.state)
			ctr.StartedAt, ctr.ExitCode = began, 3
			in.Observed = []runtime.Container{ctr}
		}
		now := time.Unix(900, 0)
		got := Status(in, map[string]Seen{"rep_1": c.seen}, nil, now)["rep_1"]
		c.want.Since = now
		if got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

func with(c spec.Container, state spec.ContainerState, text string) spec.Container {
	c.State, c.Error = state, text
	return c
}

// An agent that starts again has no verdicts yet.
func TestHealthOfTheSameRunIsKept(t *testing.T) {
	s := base()
	rev := s.Revisions["rev_1"]
	rev.Spec.Health = &spec.HealthCheck{TCP: ":80"}
	s.Revisions["rev_1"] = rev
	c := fitting(s, runtime.Running)
	c.StartedAt = time.Unix(500, 0)
	in := Input{Self: self, Cluster: cluster, State: s, Ready: true, Observed: []runtime.Container{c}}
	before := Status(in, map[string]Seen{"rep_1": {Verdict: Verdict{Container: "c1", StartedAt: c.StartedAt, Health: spec.HealthHealthy}}}, nil, time.Unix(600, 0))
	if again := Status(in, nil, before, time.Unix(700, 0)); len(Changed(again, before)) != 0 {
		t.Errorf("%+v", again)
	}
	in.Observed[0].StartedAt = time.Unix(650, 0)
	if other := Status(in, nil, before, time.Unix(700, 0))["rep_1"]; other.Health != spec.HealthStarting {
		t.Errorf("another run: %+v", other)
	}
}

func TestSinceMovesWithStateAndHealthOnly(t *testing.T) {
	s := base()
	in := Input{Self: self, Cluster: cluster, State: s, Ready: true, Observed: []runtime.Container{fitting(s, runtime.Running)}}
	first := Status(in, nil, nil, time.Unix(100, 0))
	again := Status(in, nil, first, time.Unix(200, 0))
	if len(Changed(again, first)) != 0 {
		t.Errorf("nothing happened, yet: %+v", Changed(again, first))
	}
	in.Observed[0].State, in.Observed[0].ExitCode = runtime.Exited, 1
	exited := Status(in, nil, first, time.Unix(300, 0))
	if got := Changed(exited, first); len(got) != 1 || !got[0].Since.Equal(time.Unix(300, 0)) {
		t.Errorf("exited: %+v", got)
	}
}

func TestGone(t *testing.T) {
	s := base()
	for id, machine := range map[string]string{"rep_1": self, "rep_old": self, "rep_removing": self, "rep_theirs": "mch_other"} {
		s.Containers[id] = spec.Container{Replica: id, Machine: machine}
	}
	in := Input{Self: self, Cluster: cluster, State: s, Ready: true, Observed: []runtime.Container{{ID: "c", Cluster: cluster, Replica: "rep_removing"}}}
	if got := Gone(in); !slices.Equal(got, []string{"rep_old"}) {
		t.Errorf("%q", got)
	}
	in.Ready = false
	if got := Gone(in); len(got) != 0 {
		t.Errorf("while the state may be old: %q", got)
	}
}

func TestHolds(t *testing.T) {
	now := time.Unix(0, 0)
	h := Hold{}
	var delays []time.Duration
	for range 9 {
		h = h.Next("start a", now, 0)
		delays = append(delays, h.Until.Sub(now))
		now = h.Until
	}
	want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}
	for i := range want {
		if delays[i] != want[i]*time.Second {
			t.Errorf("delay %d is %s, want %ds", i, delays[i], want[i])
		}
	}
	if d := h.Next("start b", now, 0).Until.Sub(now); d != time.Second {
		t.Errorf("another action waits %s", d)
	}
	later := h.Until.Add(calm)
	if d := h.Next("start a", later, 0).Until.Sub(later); d != time.Second {
		t.Errorf("after calm: %s", d)
	}
	if d := h.Next("start a", now, 0.999).Until.Sub(now); d < 45*time.Second || d > 46*time.Second {
		t.Errorf("spread: %s", d)
	}
}

func TestAddresses(t *testing.T) {
	a := &addresses{}
	small := netip.MustParsePrefix("10.210.7.0/29") // .2 to .6
	taken := map[netip.Addr]bool{}
	var got []string
	for range 5 {
		ip, err := a.take(small, taken)
		if err != nil {
			t.Fatal(err)
		}
		taken[ip] = true
		got = append(got, ip.String())
	}
	if want := []string{"10.210.7.2", "10.210.7.3", "10.210.7.4", "10.210.7.5", "10.210.7.6"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if _, err := a.take(small, taken); faults.CodeOf(err) != faults.NoPlace {
		t.Errorf("full: %v", err)
	}
	delete(taken, netip.MustParseAddr("10.210.7.5"))
	delete(taken, netip.MustParseAddr("10.210.7.3"))
	if ip, _ := a.take(small, taken); ip.String() != "10.210.7.3" {
		t.Errorf("not the least recently used: %s", ip)
	}
}

func TestAddressesAreAlwaysFree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, taken := &addresses{}, map[netip.Addr]bool{}
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			if len(taken) > 0 && rapid.Bool().Draw(t, "free") {
				for ip := range taken {
					delete(taken, ip)
					break
				}
				continue
			}
			ip, err := a.take(subnet, taken)
			if len(taken) == 253 {
				if err == nil {
					t.Fatal("more addresses than there are")
				}
				continue
			}
			if err != nil || taken[ip] || !subnet.Contains(ip) || ip.As4()[3] < 2 || ip.As4()[3] > 254 {
				t.Fatalf("%s, %v", ip, err)
			}
			taken[ip] = true
		}
	})
}
