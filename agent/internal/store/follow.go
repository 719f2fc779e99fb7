package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"uncloud/agent/internal/crdt"
)

const (
	// feedEvents and feedBytes bound how far back a follower can resume.
	feedEvents = 500
	feedBytes  = 16 << 20
)

// EventKind is what an Event says.
type EventKind int

const (
	// Restart carries every living row: forget what was before. It is the first
	// event of a follower, unless it resumed, and comes again to one that has
	// fallen further behind than is remembered.
	Restart EventKind = iota
	Inserted
	Updated
	Deleted
)

func (k EventKind) String() string {
	return [...]string{"restart", "insert", "update", "delete"}[k]
}

// Event is one change of one row. Ids of a table count up by one from a start
// that is drawn anew with each start of the store; a Restart has the id after
// which its rows are to be continued. Ids fit in 53 bits.
type Event struct {
	ID   uint64
	Kind EventKind
	Row  crdt.Row   // but for Restart; a deleted row has its key and no cells
	Rows []crdt.Row // of a Restart
}

// feeds is the recent events of the tables that are followed.
type feeds struct {
	mu     sync.Mutex
	tables map[string]*feed
}

// feed is what followers of one table share. None of them has a buffer of its
// own: who is slow reads from here until it is too late, and then starts anew.
type feed struct {
	mu     sync.Mutex
	recent []Event // the last of them has id head
	bytes  int
	head   uint64
	more   chan struct{} // closed when there is more
}

// Follower reads the events of one table. It is for one goroutine.
type Follower struct {
	store *Store
	table string
	feed  *feed
	at    uint64 // the id that was read last
	fresh bool   // nothing can be continued: the next event is a Restart
}

// Follow reads the changes of a table from the event after the one with id
// from. If that is not remembered (0 never is) the first event is a Restart.
func (s *Store) Follow(table string, from uint64) (*Follower, error) {
	f, err := s.feedOf(table)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	oldest := f.head - uint64(len(f.recent))
	return &Follower{store: s, table: table, feed: f, at: from, fresh: from < oldest || from > f.head}, nil
}

func (s *Store) feedOf(table string) (*feed, error) {
	s.feeds.mu.Lock()
	defer s.feeds.mu.Unlock()
	if f := s.feeds.tables[table]; f != nil {
		return f, nil
	}
	var b [4]byte
	if _, err := io.ReadFull(s.random, b[:]); err != nil {
		return nil, fmt.Errorf("draw the start of a table's events: %w", err)
	}
	// An id that was given before a restart of the store is thereby, but for
	// one in four billion, not taken for one that is given now.
	f := &feed{head: (1 + uint64(binary.BigEndian.Uint32(b[:]))) << 20, more: make(chan struct{})}
	if s.feeds.tables == nil {
		s.feeds.tables = map[string]*feed{}
	}
	s.feeds.tables[table] = f
	return f, nil
}

// Next gives the events since the last call, at least one. It waits for them
// until ctx ends, and fails with faults.Interrupted once the store is closed
// and all has been read.
func (f *Follower) Next(ctx context.Context) ([]Event, error) {
	for {
		events, more := f.read()
		switch {
		case f.fresh:
			e, err := f.restart(ctx)
			if err != nil {
				return nil, err
			}
			return []Event{e}, nil
		case len(events) > 0:
			return events, nil
		}
		select {
		case <-more:
		case <-f.store.closing:
			return nil, errClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *Follower) read() ([]Event, <-chan struct{}) {
	f.feed.mu.Lock()
	defer f.feed.mu.Unlock()
	missed := f.feed.head - f.at
	if f.fresh || missed > uint64(len(f.feed.recent)) {
		f.fresh = true
		return nil, nil
	}
	f.at = f.feed.head
	recent := f.feed.recent
	return append([]Event(nil), recent[len(recent)-int(missed):]...), f.feed.more
}

// restart reads the rows and the id that they are continued from at one point
// between two commits.
func (f *Follower) restart(ctx context.Context) (Event, error) {
	e := Event{Kind: Restart}
	begun := func() {
		f.feed.mu.Lock()
		defer f.feed.mu.Unlock()
		e.ID = f.feed.head
	}
	err := f.store.asOfNow(ctx, begun, func(c *conn, _ *view) error {
		return f.store.file.scan(c, func(row crdt.Row) error {
			if row.Table == f.table && row.Record.Alive() {
				e.Rows = append(e.Rows, row)
			}
			return nil
		})
	})
	if err != nil {
		return e, fmt.Errorf("read the rows of %s: %w", f.table, err)
	}
	f.at, f.fresh = e.ID, false
	return e, nil
}

// add takes the changes of a commit. It is called under the writer lock.
func (s *feeds) add(changes []change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tables) == 0 {
		return
	}
	for _, ch := range changes {
		f := s.tables[ch.row.Table]
		if kind, ok := kindOf(ch); ok && f != nil {
			f.append(kind, ch.row)
		}
	}
}

// kindOf is what a change is to those who only see living rows.
func kindOf(ch change) (EventKind, bool) {
	was, is := ch.old.Record, ch.row.Record
	switch {
	case was.Alive() && !is.Alive():
		return Deleted, true
	case !was.Alive() && is.Alive():
		return Inserted, true
	}
	return Updated, is.Alive() && !is.Equal(was)
}

func (f *feed) append(kind EventKind, row crdt.Row) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.head++
	f.recent, f.bytes = append(f.recent, Event{ID: f.head, Kind: kind, Row: row}), f.bytes+row.Size()
	drop := 0
	for len(f.recent)-drop > feedEvents || f.bytes > feedBytes && drop < len(f.recent) {
		f.bytes -= f.recent[drop].Row.Size()
		drop++
	}
	f.recent = f.recent[drop:]
	close(f.more)
	f.more = make(chan struct{})
}
