package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"uncloud/internal/spec"
)

const (
	// A repair that fails is tried again after firstPause, then twice as long
	// each time, up to longestPause: it writes rows, and disks are not to suffer.
	firstPause   = 5 * time.Second
	longestPause = 10 * time.Minute
	// sooner is the part of a pause that is left once what surrounds the service
	// changed. It is not nothing: a machine that comes and goes every few seconds
	// is such a change each time.
	sooner = 8
)

// attempts is how the last attempts to make one service fit went. It decides,
// and knows no clock.
type attempts struct {
	row      spec.Service // as it was tried
	around   string       // surroundings of the last attempt
	failures int          // in a row; a service that fitted in between does not end it
	last     time.Time    // end of the last one that failed
}

// failed is a with one more failure.
func (a attempts) failed(row spec.Service, around string, now time.Time) attempts {
	if a.row != row {
		a.failures = 0
	}
	return attempts{row: row, around: around, failures: a.failures + 1, last: now}
}

// next is when a service may be tried again: at once (the zero time) when it
// never failed or its row is another, else after a pause.
func (a attempts) next(row spec.Service, around string) time.Time {
	if a.failures == 0 || a.row != row {
		return time.Time{}
	}
	pause := pauseAfter(a.failures)
	if a.around != around {
		pause = max(pause/sooner, firstPause)
	}
	return a.last.Add(pause)
}

// over tells whether nothing has failed for so long that it does not count.
func (a attempts) over(now time.Time) bool {
	return a.failures == 0 || now.Sub(a.last) > 2*longestPause
}

func pauseAfter(failures int) time.Duration {
	const doublings = 10 // far beyond longestPause, and far from overflow
	return min(firstPause<<min(failures-1, doublings), longestPause)
}

// surroundings are what may be the reason that a service does not fit, beside
// its row: who lives, what the machines offer and run, and what their engines
// made of the service's replicas. Equal texts are equal surroundings.
func surroundings(s *spec.State, alive spec.Alive, service string) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(s.Machines)) {
		m := s.Machines[id]
		fmt.Fprintf(&b, "%s %t %t %v %v %s %s\n", id, alive[id], m.Schedulable, m.Roles, m.Labels, m.Version, m.System)
	}
	for _, r := range s.ReplicasOf(service) {
		c, made := s.Containers[r.ID]
		made = made && c.State != spec.ContainerPending && c.State != spec.ContainerFailed
		fmt.Fprintf(&b, "%s %s %t %t\n", r.ID, r.Machine, made, spec.Eligible(s, alive, r))
	}
	return b.String()
}
