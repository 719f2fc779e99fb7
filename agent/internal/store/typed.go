package store

import (
	"fmt"
	"maps"
	"reflect"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/spec"
)

// typed is the bridge between the rows of one table and spec.State.
type typed interface {
	name() string
	columns() []string // the key first
	encode(spec.Row) ([]crdt.Assignment, error)
	decode(key string, r crdt.Record) (spec.Row, error)
	get(st *spec.State, key string) (spec.Row, bool)
	own(st *spec.State) // makes the part of st that holds the table its own
	set(st *spec.State, r spec.Row)
	remove(st *spec.State, key string)
}

// typedTables is every table of spec.State. A table of the file that is not
// here belongs to a newer agent.
var typedTables = index(
	clusterTable{rowCodec[spec.Cluster]{fieldsOf(reflect.TypeFor[spec.Cluster]())}},
	mapOf(func(st *spec.State) *map[string]spec.Machine { return &st.Machines }),
	mapOf(func(st *spec.State) *map[string]spec.Project { return &st.Projects }),
	mapOf(func(st *spec.State) *map[string]spec.Service { return &st.Services }),
	mapOf(func(st *spec.State) *map[string]spec.Revision { return &st.Revisions }),
	mapOf(func(st *spec.State) *map[string]spec.Replica { return &st.Replicas }),
	mapOf(func(st *spec.State) *map[string]spec.Container { return &st.Containers }),
	mapOf(func(st *spec.State) *map[string]spec.Rollout { return &st.Rollouts }),
	mapOf(func(st *spec.State) *map[string]spec.Volume { return &st.Volumes }),
	mapOf(func(st *spec.State) *map[string]spec.Ticket { return &st.Tickets }),
	mapOf(func(st *spec.State) *map[string]spec.TicketUse { return &st.TicketUses }),
	mapOf(func(st *spec.State) *map[string]spec.Event { return &st.Events }),
	mapOf(func(st *spec.State) *map[string]spec.Upgrade { return &st.Upgrades }),
	mapOf(func(st *spec.State) *map[string]spec.Turn { return &st.Turns }),
)

func index(tables ...typed) map[string]typed {
	out := map[string]typed{}
	for _, t := range tables {
		out[t.name()] = t
	}
	return out
}

// rowCodec turns structs of type R into cells and back.
type rowCodec[R spec.Row] struct{ fields []field }

func (rowCodec[R]) name() string {
	var zero R
	return zero.Table()
}

func (c rowCodec[R]) columns() []string {
	out := make([]string, len(c.fields))
	for i, f := range c.fields {
		out[i] = f.column
	}
	return out
}

func (c rowCodec[R]) encode(row spec.Row) ([]crdt.Assignment, error) {
	r, ok := row.(R)
	if !ok {
		return nil, fmt.Errorf("a %T is no row of %s", row, c.name())
	}
	v := reflect.ValueOf(r)
	out := make([]crdt.Assignment, 0, len(c.fields)-1)
	for _, f := range c.fields[1:] {
		value, err := f.encode(v.Field(f.index))
		if err != nil {
			return nil, fmt.Errorf("column %s of %s %q: %w", f.column, c.name(), r.Key(), err)
		}
		out = append(out, crdt.Assignment{Column: f.column, Value: value})
	}
	return out, nil
}

func (c rowCodec[R]) decode(key string, record crdt.Record) (spec.Row, error) {
	var r R
	v := reflect.ValueOf(&r).Elem()
	v.Field(c.fields[0].index).SetString(key)
	for _, f := range c.fields[1:] {
		cell, _ := record.Find(f.column)
		if cell.Value.IsNull() {
			continue
		}
		if err := f.decode(cell.Value, v.Field(f.index)); err != nil {
			return nil, fmt.Errorf("column %s: %w", f.column, err)
		}
	}
	return r, nil
}

// mapTable is a table that spec.State holds as a map by key.
type mapTable[R spec.Row] struct {
	rowCodec[R]
	rows func(*spec.State) *map[string]R
}

func mapOf[R spec.Row](rows func(*spec.State) *map[string]R) typed {
	return mapTable[R]{rowCodec[R]{fieldsOf(reflect.TypeFor[R]())}, rows}
}

func (t mapTable[R]) get(st *spec.State, key string) (spec.Row, bool) {
	r, ok := (*t.rows(st))[key]
	return r, ok
}

func (t mapTable[R]) own(st *spec.State) {
	rows := t.rows(st)
	if *rows == nil {
		*rows = map[string]R{}
		return
	}
	*rows = maps.Clone(*rows)
}

func (t mapTable[R]) set(st *spec.State, r spec.Row)    { (*t.rows(st))[r.Key()] = r.(R) }
func (t mapTable[R]) remove(st *spec.State, key string) { delete(*t.rows(st), key) }

// clusterTable has one row.
type clusterTable struct{ rowCodec[spec.Cluster] }

func (t clusterTable) decode(key string, r crdt.Record) (spec.Row, error) {
	if key != spec.ClusterKey {
		return nil, fmt.Errorf("the key of the cluster is %q", spec.ClusterKey)
	}
	return t.rowCodec.decode(key, r)
}

func (clusterTable) get(st *spec.State, key string) (spec.Row, bool) {
	return st.Cluster, st.Cluster.ID != "" && st.Cluster.ID == key
}

func (clusterTable) own(*spec.State) {}

func (clusterTable) set(st *spec.State, r spec.Row) { st.Cluster = r.(spec.Cluster) }

func (clusterTable) remove(st *spec.State, key string) {
	if st.Cluster.ID == key {
		st.Cluster = spec.Cluster{}
	}
}
