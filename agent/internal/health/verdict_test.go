package health

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"uncloud/internal/spec"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func seconds(n float64) spec.Duration { return spec.Duration(n * float64(time.Second)) }

func after(n float64) time.Time { return epoch.Add(time.Duration(seconds(n))) }

// simulate probes a container whose health is told by its age in seconds, and
// returns when each verdict began and how many probes there were until end.
func simulate(check spec.HealthCheck, h History, end float64, healthy func(age float64) bool) (since map[spec.Health]float64, probes int) {
	since = map[spec.Health]float64{}
	now, last := epoch, spec.Health("")
	for now.Before(after(end)) {
		verdict, next := Judge(check, h, now)
		if verdict != last {
			since[verdict], last = now.Sub(epoch).Seconds(), verdict
		}
		now = next
		h = h.Add(check, healthy(now.Sub(epoch).Seconds()), now)
		probes++
	}
	return since, probes
}

func TestVerdicts(t *testing.T) {
	tests := []struct {
		name    string
		check   spec.HealthCheck
		healthy func(age float64) bool
		since   map[spec.Health]float64
	}{
		{"well at once", spec.HealthCheck{}, func(float64) bool { return true },
			map[spec.Health]float64{spec.HealthStarting: 0, spec.HealthHealthy: 0}},
		{"well after three seconds", spec.HealthCheck{}, func(age float64) bool { return age >= 2.9 },
			map[spec.Health]float64{spec.HealthStarting: 0, spec.HealthHealthy: 3}},
		{"never well: three intervals", spec.HealthCheck{}, func(float64) bool { return false },
			map[spec.Health]float64{spec.HealthStarting: 0, spec.HealthUnhealthy: 90}},
		{"never well, with a start period", spec.HealthCheck{Interval: seconds(5), StartPeriod: seconds(20), Retries: 2}, func(float64) bool { return false },
			map[spec.Health]float64{spec.HealthStarting: 0, spec.HealthUnhealthy: 30}},
		{"falls ill", spec.HealthCheck{Interval: seconds(10), Retries: 2}, func(age float64) bool { return age < 35 },
			map[spec.Health]float64{spec.HealthStarting: 0, spec.HealthHealthy: 0, spec.HealthUnhealthy: 50}},
		{"falls ill within its start period", spec.HealthCheck{Interval: seconds(10), StartPeriod: seconds(100), Retries: 2}, func(age float64) bool { return age < 35 },
			map[spec.Health]float64{spec.HealthStarting: 0, spec.HealthHealthy: 0, spec.HealthUnhealthy: 50}},
		{"one failure is none", spec.HealthCheck{Interval: seconds(10), Retries: 2}, func(age float64) bool { return age < 35 || age > 45 },
			map[spec.Health]float64{spec.HealthStarting: 0, spec.HealthHealthy: 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := simulate(tt.check, History{Started: epoch}, 200, tt.healthy)
			if len(got) != len(tt.since) {
				t.Errorf("verdicts %v, want %v", got, tt.since)
			}
			for verdict, want := range tt.since {
				if at, ok := got[verdict]; !ok || at < want || at > want*1.1 {
					t.Errorf("%s since %v s, want %v", verdict, at, want)
				}
			}
		})
	}
}

func TestQuickProbingIsBounded(t *testing.T) {
	_, probes := simulate(spec.HealthCheck{}, History{Started: epoch}, 90, func(float64) bool { return false })
	if probes > 50 {
		t.Errorf("%d probes in 90 s", probes)
	}
	_, probes = simulate(spec.HealthCheck{StartPeriod: seconds(90), StartEvery: seconds(1)}, History{Started: epoch}, 90, func(float64) bool { return false })
	if probes != 91 {
		t.Errorf("%d probes in a start period of 90 s with one each second", probes)
	}
	_, probes = simulate(spec.HealthCheck{Interval: seconds(0.1)}, History{Started: epoch}, 1, func(float64) bool { return true })
	if probes < 10 {
		t.Errorf("%d probes in a second with an interval of 0.1 s", probes)
	}
}

func TestResume(t *testing.T) {
	never := func(float64) bool { return false }
	check := spec.HealthCheck{Interval: seconds(10)}
	got, _ := simulate(check, Resume(check, spec.HealthHealthy, epoch), 100, never)
	if at, started := got[spec.HealthStarting]; started || got[spec.HealthHealthy] != 0 || got[spec.HealthUnhealthy] != 20 {
		t.Errorf("resumed healthy: %v %v", got, at)
	}
	got, _ = simulate(check, Resume(check, spec.HealthUnhealthy, epoch), 100, never)
	if len(got) != 1 || got[spec.HealthUnhealthy] != 0 {
		t.Errorf("resumed unhealthy: %v", got)
	}
	got, _ = simulate(check, Resume(check, spec.HealthStarting, epoch), 100, never)
	if got[spec.HealthStarting] != 0 || got[spec.HealthUnhealthy] < 30 {
		t.Errorf("resumed starting: %v", got)
	}
}

// TestJudgeProperties: whatever the probes show, the last success decides.
func TestJudgeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		check := spec.HealthCheck{
			Interval:    seconds(rapid.Float64Range(0.1, 60).Draw(t, "interval")),
			StartPeriod: seconds(rapid.Float64Range(0, 60).Draw(t, "startPeriod")),
			Retries:     rapid.IntRange(1, 5).Draw(t, "retries"),
		}
		h, now, failures, succeeded := History{Started: epoch}, epoch, 0, false
		for range rapid.IntRange(1, 40).Draw(t, "probes") {
			verdict, next := Judge(check, h, now)
			if next.Before(now) || next.Sub(now) > time.Duration(check.Interval) {
				t.Fatalf("next probe after %s with an interval of %s", next.Sub(now), time.Duration(check.Interval))
			}
			if succeeded && (verdict == spec.HealthHealthy) != (failures < check.Retries) || succeeded && verdict == spec.HealthStarting {
				t.Fatalf("%s after %d failures", verdict, failures)
			}
			if !succeeded && verdict == spec.HealthHealthy {
				t.Fatal("healthy without a success")
			}
			earliest := time.Duration(check.StartPeriod) + time.Duration(check.Retries)*time.Duration(check.Interval)
			if !succeeded && verdict == spec.HealthUnhealthy && now.Sub(epoch) < earliest {
				t.Fatalf("unhealthy after %s, before %s", now.Sub(epoch), earliest)
			}
			now = next
			ok := rapid.Bool().Draw(t, "ok")
			if h = h.Add(check, ok, now); ok {
				failures, succeeded = 0, true
			} else {
				failures++
			}
		}
	})
}
