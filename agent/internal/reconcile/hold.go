package reconcile

import "time"

// Delays between repetitions of one action.
const (
	firstDelay = time.Second
	lastDelay  = time.Minute
	// calm is how much longer than its delay an action must have lasted for
	// the next one to count as the first again.
	calm = 10 * time.Second
)

// Hold is what keeps a replica's action from being repeated at once. A replica
// that ran for longer than the delay is not kept at all.
type Hold struct {
	Key   string
	Count int // repetitions without calm in between
	At    time.Time
	Until time.Time
}

// Next is the hold after an action was done. random is in [0,1): it spreads
// replicas that failed together by up to a quarter of the delay.
func (h Hold) Next(key string, now time.Time, random float64) Hold {
	next := Hold{Key: key, Count: 1, At: now}
	if h.Key == key && now.Before(h.Until.Add(calm)) {
		next.Count = h.Count + 1
	}
	delay := lastDelay
	if shift := next.Count - 1; shift < 6 { // 1 s << 6 is more than lastDelay
		delay = firstDelay << shift
	}
	delay -= time.Duration(random * float64(delay) / 4)
	next.Until = now.Add(delay)
	return next
}
