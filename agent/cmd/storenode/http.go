package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"uncloud/agent/internal/store"
	"uncloud/internal/faults"
)

// maxBody bounds a request: the largest commit, as base64.
const maxBody = 100 << 20

func (n *node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /tx", n.handleTx)
	mux.HandleFunc("GET /rows", n.handleRows)
	mux.HandleFunc("GET /records", n.handleRecords)
	mux.HandleFunc("GET /known", n.handleKnown)
	mux.HandleFunc("GET /status", n.handleStatus)
	mux.HandleFunc("POST /peers", n.handlePeers)
	mux.HandleFunc("POST /links", n.handleLinks)
	mux.HandleFunc("GET /subscribe", n.handleSubscribe)
	mux.HandleFunc("POST /backup", n.handleBackup)
	mux.HandleFunc("POST /scrub", n.handleScrub)
	mux.HandleFunc("GET /check", n.handleCheck)
	mux.HandleFunc("GET /clock", n.handleClock)
	mux.HandleFunc("POST /clock", n.handleSetClock)
	return mux
}

// reply writes a result, or an error with its code.
func reply(w http.ResponseWriter, result any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		status, body := explain(err)
		w.WriteHeader(status)
		result = body
	}
	_ = json.NewEncoder(w).Encode(result) // who asked may be gone
}

type errorBody struct {
	Error struct {
		Code    faults.Code `json:"code"`
		Message string      `json:"message"`
		Hint    string      `json:"hint,omitempty"`
	} `json:"error"`
}

func explain(err error) (int, errorBody) {
	var body errorBody
	body.Error.Code, body.Error.Message = faults.Internal, err.Error()
	if f, ok := errors.AsType[*faults.Fault](err); ok {
		body.Error.Code, body.Error.Message, body.Error.Hint = f.Code, f.Sentence, f.Hint
	}
	switch body.Error.Code {
	case faults.Invalid:
		return http.StatusBadRequest, body
	case faults.NotFound:
		return http.StatusNotFound, body
	case faults.Conflict:
		return http.StatusConflict, body
	case faults.DiskFull:
		return http.StatusInsufficientStorage, body
	case faults.Interrupted:
		return http.StatusServiceUnavailable, body
	}
	return http.StatusInternalServerError, body
}

// read takes the body of a request. Unknown fields are slips.
func read(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if f, ok := errors.AsType[*faults.Fault](err); ok {
		return f
	}
	if err != nil {
		return invalid("the request cannot be read: %v", err)
	}
	return nil
}

type op struct {
	Table string `json:"table"`
	Op    string `json:"op"`
	Key   cells  `json:"key"`
	Set   cells  `json:"set"`
}

func (n *node) handleTx(w http.ResponseWriter, r *http.Request) {
	var ops []op
	if err := read(w, r, &ops); err != nil {
		reply(w, nil, err)
		return
	}
	v, err := n.store.Update(r.Context(), func(tx *store.Tx) error {
		for i, o := range ops {
			switch o.Op {
			case "put":
				tx.PutValues(o.Table, o.Key.values(), o.Set.values())
			case "patch":
				tx.PatchValues(o.Table, o.Key.values(), o.Set.values())
			case "delete":
				tx.DeleteKey(o.Table, o.Key.values())
			default:
				return invalid("operation %d is %q; there are put, patch and delete", i, o.Op)
			}
		}
		return nil
	})
	reply(w, map[string]any{"site": v.Site, "version": v.Seq}, err)
}

func (n *node) handleRows(w http.ResponseWriter, r *http.Request) {
	rows, err := n.store.Rows(r.Context(), r.FormValue("table"))
	out := make([]cells, len(rows))
	for i, row := range rows {
		out[i] = cellsOf(row)
	}
	reply(w, out, err)
}

func (n *node) handleRecords(w http.ResponseWriter, r *http.Request) {
	rows, err := n.store.Records(r.Context(), r.FormValue("table"))
	out := make([]record, len(rows))
	for i, row := range rows {
		out[i] = n.recordOf(row)
	}
	reply(w, out, err)
}

func (n *node) handleKnown(w http.ResponseWriter, _ *http.Request) {
	type siteKnown struct {
		Head uint64      `json:"head"`
		Gaps [][2]uint64 `json:"gaps"`
	}
	out := map[string]siteKnown{}
	for site, ranges := range n.store.Known() {
		k := siteKnown{Head: ranges.Head(), Gaps: [][2]uint64{}}
		for _, gap := range ranges.Gaps() {
			k.Gaps = append(k.Gaps, [2]uint64{gap.First, gap.Last})
		}
		out[site.String()] = k
	}
	reply(w, out, nil)
}

func (n *node) handleStatus(w http.ResponseWriter, r *http.Request) {
	st, err := n.status(r.Context())
	reply(w, st, err)
}

func (n *node) handlePeers(w http.ResponseWriter, r *http.Request) {
	var in struct{ Add, Remove []string }
	err := read(w, r, &in)
	if err == nil {
		err = n.setPeers(in.Add, in.Remove)
	}
	reply(w, struct{}{}, err)
}

func (n *node) handleLinks(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Peer string
		Up   *bool
	}
	err := read(w, r, &in)
	if err == nil && (in.Peer == "" || in.Up == nil) {
		err = invalid(`name a peer and say whether its link is up: {"peer":"127.0.0.1:7001","up":false}`)
	}
	if err == nil {
		n.setLink(in.Peer, *in.Up)
	}
	reply(w, struct{}{}, err)
}

func (n *node) handleBackup(w http.ResponseWriter, r *http.Request) {
	var in struct{ Path string }
	if err := read(w, r, &in); err != nil {
		reply(w, nil, err)
		return
	}
	if !filepath.IsAbs(in.Path) {
		reply(w, nil, invalid("%q is no absolute path", in.Path))
		return
	}
	info, err := n.store.Backup(r.Context(), in.Path)
	reply(w, info, err)
}

func (n *node) handleScrub(w http.ResponseWriter, _ *http.Request) {
	n.sync.Scrub()
	reply(w, struct{}{}, nil)
}

func (n *node) handleCheck(w http.ResponseWriter, r *http.Request) {
	report, err := n.store.Check(r.Context())
	reply(w, map[string]any{"rows": report.Rows, "tombstones": report.Tombstones, "problems": append([]string{}, report.Problems...)}, err)
}

func (n *node) handleClock(w http.ResponseWriter, _ *http.Request) {
	reply(w, map[string]any{"now": n.now().UTC().Format(time.RFC3339Nano), "offset_ms": n.offset.Load()}, nil)
}

func (n *node) handleSetClock(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Offset *int64 `json:"offset_ms"`
	}
	err := read(w, r, &in)
	if err == nil && in.Offset == nil {
		err = invalid(`give the offset: {"offset_ms":-5000}`)
	}
	if err != nil {
		reply(w, nil, err)
		return
	}
	n.offset.Store(*in.Offset)
	n.handleClock(w, r)
}

func (n *node) handleSubscribe(w http.ResponseWriter, r *http.Request) {
	table := r.FormValue("table")
	var from uint64
	var err error
	if text := r.FormValue("from"); text != "" {
		if from, err = strconv.ParseUint(text, 10, 64); err != nil {
			reply(w, nil, invalid("%q is no event's id", text))
			return
		}
	}
	if n.store.Table(table) == nil {
		reply(w, nil, faults.New(faults.NotFound, "there is no table %q", table))
		return
	}
	follower, err := n.store.Follow(table, from)
	if err != nil {
		reply(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	n.stream(w, r, follower)
}

// stream writes events until the reader is gone or the store is closed.
func (n *node) stream(w http.ResponseWriter, r *http.Request, follower *store.Follower) {
	out := http.NewResponseController(w)
	lines := json.NewEncoder(w)
	if out.Flush() != nil {
		return
	}
	for {
		events, err := follower.Next(r.Context())
		if err != nil {
			return
		}
		for _, e := range events {
			if lines.Encode(n.eventOf(e)) != nil {
				return
			}
		}
		if out.Flush() != nil {
			return
		}
	}
}
