package agent

import (
	"context"
	"sync"

	"uncloud/agent/internal/crdt"
)

// loadedState is how far an organ has followed the store: the versions that
// it works with.
type loadedState struct {
	mu      sync.Mutex
	known   crdt.Known
	changed chan struct{} // closed and replaced at every set
}

func (l *loadedState) set(known crdt.Known) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = known
	if l.changed != nil {
		close(l.changed)
	}
	l.changed = make(chan struct{})
}

// await returns when the version is loaded, or ctx's error.
func (l *loadedState) await(ctx context.Context, v crdt.Version) error {
	for {
		l.mu.Lock()
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		covers, changed := l.known.Covers(v), l.changed
		l.mu.Unlock()
		if covers {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
