package rollout

import (
	"fmt"

	"uncloud/internal/spec"
)

// event records what happened, and drops this machine's oldest.
func (d *Driver) event(tx Tx, kind, subject, text string) error {
	id, err := spec.NewID(spec.EventPrefix, d.Random)
	if err != nil {
		return fmt.Errorf("name an event: %w", err)
	}
	for _, e := range tx.State().SurplusEvents(d.Self, 1) {
		if err := tx.Delete(e.Table(), e.ID); err != nil {
			return err
		}
	}
	return tx.Put(spec.Event{ID: id, Machine: d.Self, At: d.Now(), Kind: kind, Subject: subject, Text: text})
}
