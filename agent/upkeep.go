package agent

import (
	"context"
	"fmt"
	"time"

	"uncloud/agent/internal/server"
	"uncloud/agent/internal/store"
	"uncloud/internal/faults"
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
	st := m.store.Status()
	if missing := m.unmerged.Load(); missing != nil && faults.CodeOf(missing.why) == faults.DiskFull {
		st.DiskFull = true
	}
	return notesOf(st, m.sync.Status().Clone)
}

func notesOf(st store.Status, clone string) []server.Note {
	var out []server.Note
	note := func(code, format string, args ...any) {
		out = append(out, server.Note{Code: code, Text: fmt.Sprintf(format, args...)})
	}
	if clone != "" {
		note("store.clone", "machine %s runs on a copy of this machine's disk; reset one of the two", clone)
	}
	if st.DiskFull {
		note("store.full", "no space left for the replicated state: what would change it is refused until somebody frees some on this machine")
	}
	if st.ClockSkewed {
		note("store.clock", "a change from another machine is stamped ahead of the time here; set the clock of one of the two")
	}
	if st.Quarantined > 0 {
		note("store.quarantine", "%d rows from other machines do not fit their tables and are set aside", st.Quarantined)
	}
	if st.Unreadable > 0 {
		note("store.unreadable", "%d rows from other machines cannot be read and are left out; upgrade the agent of this machine", st.Unreadable)
	}
	return out
}
