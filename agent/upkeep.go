package agent

import (
	"context"
	"fmt"
	"time"

	"uncloud/agent/internal/server"
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

// storeNotes is what the store and its replication suffer from.
func (m *member) storeNotes() []server.Note {
	var out []server.Note
	note := func(code, format string, args ...any) {
		out = append(out, server.Note{Code: code, Text: fmt.Sprintf(format, args...)})
	}
	st := m.store.Status()
	if clone := m.sync.Status().Clone; clone != "" {
		note("store.clone", "machine %s runs on a copy of this machine's disk; reset one of the two", clone)
	}
	if st.ClockSkewed {
		note("store.clock", "a change from another machine is stamped ahead of the time here; set the clock of one of the two")
	}
	if st.Quarantined > 0 {
		note("store.quarantine", "%d rows from other machines do not fit their tables and are set aside", st.Quarantined)
	}
	return out
}
