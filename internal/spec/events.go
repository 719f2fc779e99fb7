package spec

import (
	"cmp"
	"slices"
)

// KeptEvents bounds the events that one machine keeps of its own.
const KeptEvents = 200

// SurplusEvents are the oldest events of a machine, those to delete with more
// that are written, so that KeptEvents are left.
func (s *State) SurplusEvents(machine string, more int) []Event {
	var own []Event
	for _, e := range s.Events {
		if e.Machine == machine {
			own = append(own, e)
		}
	}
	surplus := len(own) + more - KeptEvents
	if surplus <= 0 {
		return nil
	}
	slices.SortFunc(own, func(a, b Event) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
	})
	return own[:min(surplus, len(own))]
}
