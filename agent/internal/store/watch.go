package store

import (
	"sync/atomic"
	"time"
)

// busy is what a watchdog sees of the writer.
type busy struct {
	turns atomic.Uint64
	since atomic.Pointer[time.Time] // nil: nobody writes
}

func (b *busy) begin() {
	now := time.Now()
	b.turns.Add(1)
	b.since.Store(&now)
}

func (b *busy) end() { b.since.Store(nil) }

// Turns counts the turns that writers have had: updates, merges, checks. A
// watchdog that sees Stalled grow while Turns stands still has found a stall.
func (s *Store) Turns() uint64 { return s.busy.turns.Load() }

// Stalled is for how long the present turn of a writer has run, 0 if nobody
// writes. A turn takes milliseconds; one of more than 30 seconds will not end,
// and the process should say where it stands and start anew.
func (s *Store) Stalled() time.Duration {
	since := s.busy.since.Load()
	if since == nil {
		return 0
	}
	return time.Since(*since)
}
