package agent

import (
	"context"
	"time"
)

// upkeepEvery is how often old tombstones are looked for. They are kept for a
// week at least, so it is not urgent.
const upkeepEvery = time.Hour

// upkeep forgets tombstones that every machine has. It reads memory only while
// there are none, and writes only if some may go.
func (m *member) upkeep(ctx context.Context) error {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if m.isReady() && m.store.Status().Deleted > 0 {
			m.collect(ctx)
		}
	}
}

func (m *member) collect(ctx context.Context) {
	n, err := m.sync.Collect(ctx)
	switch {
	case err != nil && ctx.Err() == nil:
		m.sub("store").Warn("cannot forget old tombstones; it is tried again", "err", err)
	case n > 0:
		m.sub("store").Info("forgot old tombstones that every machine has", "rows", n)
	}
}
