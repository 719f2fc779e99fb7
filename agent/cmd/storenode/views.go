package main

import (
	"context"
	"slices"

	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/store"
	statesync "uncloud/agent/internal/sync"
)

// record is the CRDT record of a row.
type record struct {
	Key     any       `json:"key"`
	Alive   bool      `json:"alive"`
	CL      uint64    `json:"cl"`
	Stamp   uint64    `json:"stamp"`
	Site    string    `json:"site"`
	Cells   []cell    `json:"cells"`
	Writers []version `json:"writers"`
}

type cell struct {
	Column string `json:"column"`
	Ver    uint64 `json:"ver"`
	Stamp  uint64 `json:"stamp"`
	Site   string `json:"site"`
	Value  value  `json:"value"`
}

type version struct {
	Site    string `json:"site"`
	Version uint64 `json:"version"`
}

func (n *node) recordOf(row crdt.Row) record {
	r := record{
		Key: n.keyOf(row), Alive: row.Record.Alive(), CL: row.Record.CL,
		Stamp: uint64(row.Record.Stamp), Site: row.Record.Site.String(), Cells: []cell{}, Writers: []version{},
	}
	for _, c := range row.Record.Cells {
		r.Cells = append(r.Cells, cell{c.Column, c.Ver, uint64(c.Stamp), c.Site.String(), value(c.Value)})
	}
	for _, v := range row.Writers {
		r.Writers = append(r.Writers, version{v.Site.String(), v.Seq})
	}
	return r
}

// keyOf is the key columns, or the packed key of a table that is not known here.
func (n *node) keyOf(row crdt.Row) any {
	if t := n.store.Table(row.Table); t != nil {
		if key, err := t.UnpackKey(row.Key); err == nil {
			return cellsOf(key)
		}
	}
	return row.Key
}

// event is one line of a subscription.
type event struct {
	ID   uint64   `json:"id"`
	Kind string   `json:"event"`
	Key  any      `json:"key,omitempty"`
	Row  cells    `json:"row,omitempty"`
	Rows *[]cells `json:"rows,omitempty"` // of a restart
}

func (n *node) eventOf(e store.Event) event {
	out := event{ID: e.ID, Kind: e.Kind.String()}
	if e.Kind == store.Restart {
		rows := []cells{}
		for _, row := range e.Rows {
			if r := n.rowOf(row); r != nil {
				rows = append(rows, r)
			}
		}
		out.Rows = &rows
		return out
	}
	out.Key = n.keyOf(e.Row)
	if e.Kind != store.Deleted {
		out.Row = n.rowOf(e.Row)
	}
	return out
}

func (n *node) rowOf(row crdt.Row) cells {
	v, err := n.store.Table(row.Table).Values(row)
	if err != nil {
		return nil // its key is none of this schema's; GET /rows leaves it out too
	}
	return cellsOf(v)
}

type statusBody struct {
	Address     string             `json:"address"`
	Site        string             `json:"site"`
	Head        uint64             `json:"head"`
	Health      []string           `json:"health"` // codes; none: all is well
	Missing     uint64             `json:"missing"`
	Rows        int                `json:"rows"`
	Deleted     int                `json:"deleted"`
	CaughtUp    bool               `json:"caught_up"`
	Quarantine  []quarantined      `json:"quarantine"`
	Repaired    uint64             `json:"repaired"`
	Clone       string             `json:"clone,omitempty"`
	Peers       []peerBody         `json:"peers"`
	Counters    statesync.Counters `json:"counters"`
	OffsetMS    int64              `json:"offset_ms"`
	ClockSkewed bool               `json:"clock_skewed"`
}

type quarantined struct {
	Table string `json:"table"`
	Key   string `json:"key"`
	Error string `json:"error"`
}

type peerBody struct {
	Peer      string `json:"peer"`
	Connected bool   `json:"connected"`
	Site      string `json:"site,omitempty"`
	Queued    int    `json:"queued_bytes"`
	Missing   uint64 `json:"missing"` // versions that it has and this node has not
	LagMS     *int64 `json:"lag_ms"`  // since when something of it was missing; null while it never was complete
	Error     string `json:"error,omitempty"`
}

func (n *node) status(ctx context.Context) (statusBody, error) {
	st, sy := n.store.Status(), n.sync.Status()
	out := statusBody{
		Address: n.address, Site: st.Site.String(), Head: st.Head, Missing: st.Missing, Rows: st.Rows, Deleted: st.Deleted,
		CaughtUp: sy.CaughtUp, Repaired: sy.Counters.Repaired, Clone: sy.Clone, Counters: sy.Counters, OffsetMS: n.offset.Load(),
		ClockSkewed: st.ClockSkewed, Health: []string{}, Quarantine: []quarantined{}, Peers: []peerBody{},
	}
	for _, p := range sy.Peers {
		out.Peers = append(out.Peers, peerOf(p))
	}
	aside, err := n.store.Quarantine(ctx)
	for _, q := range aside {
		out.Quarantine = append(out.Quarantine, quarantined{q.Table, q.Key, q.Error})
	}
	for code, raised := range map[string]bool{
		"store.clone": sy.Clone != "", "store.quarantine": len(aside) > 0, "store.clock": st.ClockSkewed, "store.repaired": sy.Counters.Repaired > 0,
	} {
		if raised {
			out.Health = append(out.Health, code)
		}
	}
	slices.Sort(out.Health)
	return out, err
}

func peerOf(p statesync.PeerStatus) peerBody {
	b := peerBody{Peer: p.Machine, Connected: p.Connected, Queued: p.Queued, Missing: p.Missing, Error: p.Err}
	if p.Connected {
		b.Site = p.Site.String()
	}
	if !p.Synced.IsZero() {
		lag := int64(0)
		if p.Missing > 0 {
			lag = time.Since(p.Synced).Milliseconds()
		}
		b.LagMS = &lag
	}
	return b
}
