// Package stall tells for how long a loop has been at one turn of its work, so
// that a watchdog sees one that will not end. It knows no bounds: whoever
// watches says how long is too long.
package stall

import (
	"sync/atomic"
	"time"
)

// Turn is the present turn of one loop. The zero Turn is a loop that waits.
type Turn struct {
	since atomic.Pointer[time.Time] // nil: it waits
}

// Begin notes that the loop was woken.
func (t *Turn) Begin() {
	now := time.Now()
	t.since.Store(&now)
}

// End notes that the loop waits again.
func (t *Turn) End() { t.since.Store(nil) }

// Took is for how long the present turn has run; 0 while the loop waits. It may
// be asked from any goroutine.
func (t *Turn) Took() time.Duration {
	since := t.since.Load()
	if since == nil {
		return 0
	}
	return time.Since(*since)
}
