package store

import (
	"uncloud/agent/internal/crdt"
	"uncloud/internal/spec"
)

// draft is a State in the making. It copies the map of a table when the table
// is first written, so that States given out before stay as they were.
type draft struct {
	st    spec.State
	owned map[string]bool
	typed map[string]typed
}

func (s *Store) draftOf(st *spec.State) *draft {
	return &draft{st: *st, typed: s.typed}
}

// emptyState has all maps, so that no reader meets a nil one.
func emptyState() *spec.State {
	d := &draft{}
	for _, t := range typedTables {
		d.own(t)
	}
	return d.freeze()
}

func (d *draft) own(t typed) {
	if d.owned[t.name()] {
		return
	}
	t.own(&d.st)
	if d.owned == nil {
		d.owned = map[string]bool{}
	}
	d.owned[t.name()] = true
}

// freeze gives the State as it is now. The draft may be written on.
func (d *draft) freeze() *spec.State {
	st := d.st
	clear(d.owned)
	return &st
}

func (d *draft) set(t typed, r spec.Row) {
	d.own(t)
	t.set(&d.st, r)
}

func (d *draft) remove(t typed, key string) {
	if _, ok := t.get(&d.st, key); ok {
		d.own(t)
		t.remove(&d.st, key)
	}
}

// apply brings one replicated row into the draft. The error says why the row
// cannot be read; it is then left out.
func (d *draft) apply(row crdt.Row) error {
	t := d.typed[row.Table]
	if t == nil {
		return nil
	}
	if !row.Record.Alive() {
		d.remove(t, row.Key)
		return nil
	}
	r, err := t.decode(row.Key, row.Record)
	if err != nil {
		d.remove(t, row.Key)
		return err
	}
	d.set(t, r)
	return nil
}
