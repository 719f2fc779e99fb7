package rollout

import (
	"cmp"
	"fmt"
	"slices"

	"uncloud/internal/spec"
)

// keptEvents bounds the events that one machine keeps of its own.
const keptEvents = 200

// event records what happened, and drops this machine's oldest.
func (d *Driver) event(tx Tx, kind, subject, text string) error {
	id, err := spec.NewID(spec.EventPrefix, d.Random)
	if err != nil {
		return fmt.Errorf("name an event: %w", err)
	}
	var mine []spec.Event
	for _, e := range tx.State().Events {
		if e.Machine == d.Self {
			mine = append(mine, e)
		}
	}
	slices.SortFunc(mine, func(a, b spec.Event) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
	})
	for len(mine) >= keptEvents {
		if err := tx.Delete(mine[0].Table(), mine[0].ID); err != nil {
			return err
		}
		mine = mine[1:]
	}
	return tx.Put(spec.Event{ID: id, Machine: d.Self, At: d.Now(), Kind: kind, Subject: subject, Text: text})
}
