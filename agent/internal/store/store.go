package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Version names one commit: its site and its number there.
type Version = crdt.Version

// Options say where a store lives and what it takes from the world.
type Options struct {
	// Dir is the folder of the database. It is made if missing, and locked
	// against a second process. Empty: in memory, gone with Close, for tests.
	Dir string
	// Witness is a folder in memory, such as one under /run, that is empty after
	// a boot. With it the store notices that its disk was set back while the
	// machine ran. Empty: only copies, and what happened between boots, are noticed.
	Witness string
	Clock   func() time.Time // default time.Now
	Random  io.Reader        // for site ids; default crypto/rand
	Logger  *slog.Logger     // default: none

	// Schema makes this a store of other tables than those of spec: plain
	// CREATE TABLE statements, see ParseSchema. State is then empty, and rows
	// are written and read with PutValues, PatchValues, DeleteKey and Rows.
	Schema string

	schema fs.FS  // default: the migrations of this agent
	boot   string // default: the kernel's boot id
}

// Store is the replicated state of this machine. Its methods may be called
// from any goroutine.
type Store struct {
	clock  func() time.Time
	random io.Reader
	log    *slog.Logger

	writer chan struct{} // holds one token: the right to write and to use what follows
	file   *file
	hlc    crdt.Clock
	bad    map[rowID]string // rows that State leaves out, and why

	typed   map[string]typed  // the tables of State
	generic map[string]*Table // those of Options.Schema

	closing  chan struct{} // closed with the store
	current  atomic.Pointer[view]
	site     atomic.Pointer[crdt.SiteID]
	skewedAt atomic.Pointer[time.Time] // when a change came stamped ahead, last
	badCount atomic.Int64
	rows     atomic.Int64 // living ones
	deleted  atomic.Int64

	quarantined atomic.Int64
	floor       atomic.Pointer[Floor]
	feeds       feeds
	busy        busy
	listeners   listeners
}

// view is what readers see: one State and the versions it holds.
type view struct {
	state *spec.State
	known crdt.Known
	gone  chan struct{} // closed when a newer view is there
}

type rowID struct{ table, key string }

// Open opens or creates the store in o.Dir and reads it into memory. It fails
// with faults.Conflict while another process has it open or when a newer agent
// wrote it, and with faults.DiskFull.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		clock: o.Clock, random: o.Random, log: o.Logger,
		writer: make(chan struct{}, 1), bad: map[rowID]string{}, closing: make(chan struct{}),
		listeners: listeners{subs: map[*Subscription]bool{}}, typed: typedTables,
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.random == nil {
		s.random = rand.Reader
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	tables, err := s.shapeBy(&o)
	if err != nil {
		return nil, err
	}
	if s.file, err = openFile(o, tables, s.random); err != nil {
		return nil, asFault(err)
	}
	if err := s.readAll(); err != nil {
		return nil, errors.Join(fmt.Errorf("read the store: %w", asFault(err)), s.file.close())
	}
	s.writer <- struct{}{}
	return s, nil
}

// shapeBy says which tables the store has: those of spec, or others.
func (s *Store) shapeBy(o *Options) ([]Table, error) {
	if o.schema == nil {
		o.schema = migrations
	}
	if o.Schema == "" {
		return nil, nil
	}
	tables, err := ParseSchema(o.Schema)
	s.typed, s.generic, o.schema = nil, map[string]*Table{}, onlyBooks{o.schema}
	for i := range tables {
		s.generic[tables[i].Name] = &tables[i]
	}
	return tables, err
}

// readAll makes the first view from the file.
func (s *Store) readAll() error {
	d := s.draftOf(emptyState())
	err := s.file.scan(s.file.w, func(row crdt.Row) error {
		s.apply(d, row)
		s.count(crdt.Record{}, row.Record)
		return nil
	})
	if err != nil {
		return err
	}
	s.recount()
	floor, err := s.file.readFloor(s.file.w)
	if err != nil {
		return fmt.Errorf("read the floor: %w", err)
	}
	s.floor.Store(&floor)
	site := s.file.self
	s.site.Store(&site)
	s.current.Store(&view{state: d.freeze(), known: s.file.known, gone: make(chan struct{})})
	return nil
}

// apply brings a row into a draft, or notes why it cannot be read. Such a row
// is still merged and passed on: a newer agent may understand it.
func (s *Store) apply(d *draft, row crdt.Row) {
	err := d.apply(row)
	if err == nil && len(s.bad) == 0 {
		return
	}
	id := rowID{row.Table, row.Key}
	if err == nil {
		delete(s.bad, id)
	} else {
		if _, told := s.bad[id]; !told {
			s.log.Warn("row cannot be read and is left out", "table", row.Table, "key", row.Key, "err", err)
		}
		s.bad[id] = err.Error()
	}
	s.badCount.Store(int64(len(s.bad)))
}

// Close waits for a running write and closes the file. Later writes fail;
// State goes on giving what was last there.
func (s *Store) Close() error {
	<-s.writer
	defer func() { s.writer <- struct{}{} }()
	if s.isClosed() {
		return nil
	}
	close(s.closing)
	return s.file.close()
}

func (s *Store) isClosed() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// acquire takes the right to write, and returns what gives it back.
func (s *Store) acquire(ctx context.Context) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-s.writer:
	case <-s.closing: // Close waits for readers, of whom one may be here
		return nil, errClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.isClosed() {
		s.writer <- struct{}{}
		return nil, errClosed
	}
	s.busy.begin()
	return func() {
		s.busy.end()
		s.writer <- struct{}{}
	}, nil
}

var errClosed = faults.New(faults.Interrupted, "the agent is shutting down and takes no more changes")

// State is the newest committed state. It never blocks; the result is never
// written to again.
func (s *Store) State() *spec.State { return s.current.Load().state }

// StateKnown is State together with the versions whose effects it shows. Who
// has acted on the state may report exactly these versions as loaded.
func (s *Store) StateKnown() (*spec.State, crdt.Known) {
	v := s.current.Load()
	return v.state, v.known
}

// Known is the versions of every site that are completely here.
func (s *Store) Known() crdt.Known { return s.current.Load().known }

// Covers tells whether v is here. Seq 0 always is.
func (s *Store) Covers(v Version) bool { return s.Known().Covers(v) }

// WaitFor returns nil once v is here, or ctx's error.
func (s *Store) WaitFor(ctx context.Context, v Version) error {
	for {
		now := s.current.Load()
		if now.known.Covers(v) {
			return nil
		}
		select {
		case <-now.gone:
		case <-ctx.Done():
			return fmt.Errorf("wait for version %v: %w", v, ctx.Err())
		}
	}
}

// Site is the id under which this store writes.
func (s *Store) Site() crdt.SiteID { return *s.site.Load() }

// head is the newest version of this site.
func (s *Store) head() Version {
	return Version{Site: s.file.self, Seq: s.file.known.Head(s.file.self)}
}

// Commit is one committed transaction, as those who pass it on see it.
type Commit struct {
	Batch crdt.Batch // the rows it changed, and the versions it completed
	Known crdt.Known // all that is known after it
	Local bool       // it was written here, not merged
}

// publish makes a commit visible. Its order is what callers rely on: first the
// state, then those who wait, then the other machines.
func (s *Store) publish(c Commit, changes []change) {
	old := s.current.Load()
	next := &view{state: old.state, known: c.Known, gone: make(chan struct{})}
	if s.quarantined.Load() > 0 {
		s.recount() // a row may have been mended
	}
	if len(c.Batch.Rows) > 0 {
		d := s.draftOf(old.state)
		for _, row := range c.Batch.Rows {
			s.apply(d, row)
		}
		next.state = d.freeze()
	}
	s.current.Store(next)
	close(old.gone)
	s.feeds.add(changes)
	s.listeners.tell(c)
}

// A version travels and is merged as a whole, so its size is bounded.
const (
	// MaxRowBytes bounds one row. Larger values belong elsewhere.
	MaxRowBytes = 1 << 20
	// MaxCommitBytes and MaxCommitRows bound one Update.
	MaxCommitBytes = 64 << 20
	MaxCommitRows  = 100_000
)

type sizeCheck struct {
	rows, bytes int
}

func (c *sizeCheck) add(row crdt.Row) error {
	size := row.Size()
	c.rows, c.bytes = c.rows+1, c.bytes+size
	switch {
	case size > MaxRowBytes:
		return faults.New(faults.Invalid, "%s %s takes %d bytes, at most %d fit", row.Table, row.Key, size, MaxRowBytes)
	case c.rows > MaxCommitRows || c.bytes > MaxCommitBytes:
		return faults.New(faults.Invalid, "one change may hold %d rows and %d bytes, this one is larger", MaxCommitRows, MaxCommitBytes)
	}
	return nil
}
