package agent

import (
	"cmp"
	"slices"
	"sync"

	"uncloud/agent/internal/server"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// troubles is what this machine suffers from, by who says so. They are facts
// about now: whoever raised one takes it back when it is over.
type troubles struct {
	mu    sync.Mutex
	notes map[string][]server.Note // by subsystem
}

// set replaces what a subsystem complains about.
func (t *troubles) set(subsystem string, notes ...server.Note) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.notes == nil {
		t.notes = map[string][]server.Note{}
	}
	t.notes[subsystem] = notes
}

// setError is set for a subsystem that can have one trouble; nil ends it. What
// a fault tells to do is told too.
func (t *troubles) setError(subsystem, code string, err error) {
	if err == nil {
		t.set(subsystem)
		return
	}
	t.set(subsystem, server.Note{Code: code, Text: err.Error(), Hint: faults.Of(err).Hint})
}

// all are the troubles in a stable order.
func (t *troubles) all() []server.Note {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := []server.Note{}
	for _, notes := range t.notes {
		out = append(out, notes...)
	}
	slices.SortFunc(out, func(a, b server.Note) int { return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Text, b.Text)) })
	return out
}

func (t *troubles) count() map[string]int {
	n := map[string]int{}
	for _, note := range t.all() {
		n[note.Code]++
	}
	return n
}

// serviceNote is what a service suffers from; nothing for one that was removed
// meanwhile.
func serviceNote(state *spec.State, service, code, text string) []server.Note {
	svc, ok := state.Services[service]
	if !ok {
		return nil
	}
	return []server.Note{{Code: code, Text: svc.Project + "/" + svc.Name + ": " + text}}
}
