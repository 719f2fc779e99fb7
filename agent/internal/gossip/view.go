package gossip

import (
	"maps"
	"sync"
	"sync/atomic"

	"uncloud/internal/spec"
)

// view is the current set of living machines and those who wait for it to
// change. Each published set is immutable.
type view struct {
	alive atomic.Pointer[spec.Alive]

	mu          sync.Mutex
	subscribers map[chan struct{}]bool
}

func newView(self string) *view {
	v := &view{subscribers: map[chan struct{}]bool{}}
	v.alive.Store(&spec.Alive{self: true})
	return v
}

func (v *view) get() spec.Alive { return *v.alive.Load() }

// change applies f to a copy of the set and wakes subscribers where that made
// a difference. Only one goroutine may call it.
func (v *view) change(f func(spec.Alive)) {
	before := v.get()
	after := maps.Clone(before)
	f(after)
	if maps.Equal(before, after) {
		return
	}
	v.alive.Store(&after)
	v.wake()
}

func (v *view) wake() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for c := range v.subscribers {
		select {
		case c <- struct{}{}:
		default: // already woken and not yet looked
		}
	}
}

func (v *view) subscribe() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.subscribers[c] = true
	return c, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.subscribers, c)
	}
}
