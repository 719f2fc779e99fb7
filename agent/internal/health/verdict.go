package health

import (
	"time"

	"uncloud/internal/spec"
)

// History is what the probes of one container have shown, condensed. Its zero
// value but for Started is a container that was not probed yet.
type History struct {
	Started   time.Time // of the container
	Succeeded bool      // at least once
	Failures  int       // in a row; before the first success, in intervals since the start period
	Last      time.Time // end of the last probe
}

// Resume is the history of a container that had a verdict before this agent
// started: it keeps that until its probes say otherwise, so that an agent's
// restart takes nobody out of traffic.
func Resume(check spec.HealthCheck, known spec.Health, started time.Time) History {
	h := History{Started: started}
	switch known {
	case spec.HealthHealthy:
		h.Succeeded = true
	case spec.HealthUnhealthy:
		h.Succeeded, h.Failures = true, retries(check)
	}
	return h
}

// Add is the history after a probe that ended at a time.
func (h History) Add(check spec.HealthCheck, ok bool, at time.Time) History {
	h.Last = at
	switch {
	case ok:
		h.Succeeded, h.Failures = true, 0
	case h.Succeeded:
		h.Failures++
	default:
		over := at.Sub(h.Started) - time.Duration(check.StartPeriod)
		h.Failures = max(0, int(over/interval(check)))
	}
	return h
}

// Judge is the verdict, and when to probe next.
func Judge(check spec.HealthCheck, h History, now time.Time) (spec.Health, time.Time) {
	verdict := spec.HealthStarting
	switch {
	case h.Failures >= retries(check):
		verdict = spec.HealthUnhealthy
	case h.Succeeded:
		verdict = spec.HealthHealthy
	}
	if h.Last.IsZero() {
		return verdict, now
	}
	return verdict, h.Last.Add(pause(check, h, verdict))
}

// pause is the time between the end of a probe and the next. Before the first
// success it is short while the start period lasts, and then grows to a tenth
// of the container's age: a slow start is seen at most a tenth late, and one
// that never succeeds costs little.
func pause(check spec.HealthCheck, h History, verdict spec.Health) time.Duration {
	most := interval(check)
	if verdict != spec.HealthStarting {
		return most
	}
	quick := min(check.StartEvery.Or(spec.DefaultHealthStartEvery), most)
	age := h.Last.Sub(h.Started)
	if age < time.Duration(check.StartPeriod) {
		return quick
	}
	return min(max(age/10, quick), most)
}

func interval(check spec.HealthCheck) time.Duration {
	return check.Interval.Or(spec.DefaultHealthInterval)
}

func retries(check spec.HealthCheck) int {
	if check.Retries == 0 {
		return spec.DefaultHealthRetries
	}
	return check.Retries
}
