package statesync

import (
	"context"
	cryptorand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/stall"
)

// Store is what the Syncer needs of the store.
type Store interface {
	// Site is the id under which the store writes.
	Site() crdt.SiteID
	// Known is the versions that are completely here. It must not block.
	Known() crdt.Known
	// Merge applies a batch as one transaction.
	Merge(context.Context, crdt.Batch) (crdt.Known, error)
	// Export gives the newest part of a range of versions, with its marks.
	Export(ctx context.Context, site crdt.SiteID, first, last uint64, limit int) (crdt.Batch, error)
	// Snapshot gives all that is here.
	Snapshot(context.Context) (crdt.Snapshot, error)
	// AdoptSnapshot joins all that another machine has, which may have
	// forgotten tombstones that are unknown here.
	AdoptSnapshot(context.Context, crdt.Snapshot) (crdt.Known, error)
	// Floor is what is left of the tombstones that were forgotten here. It must
	// not block.
	Floor() crdt.Floor
	// Collect forgets the tombstones that everyone has, if they are old, and
	// says how many.
	Collect(ctx context.Context, everyone crdt.Known) (int, error)
	// Buckets gives, in one read, what is known and hashes over the rows of
	// each table.
	Buckets(context.Context) (crdt.Known, map[string]*[256]uint64, error)
	// BucketRows gives the rows of some buckets of each table.
	BucketRows(context.Context, map[string][]byte) ([]crdt.Row, error)
	// Repair merges rows that bring no new versions, and says how many changed.
	Repair(context.Context, []crdt.Row) (int, error)
	// Reseat takes a new site id, unless seen turns out to be known here.
	Reseat(ctx context.Context, seen crdt.Version) (bool, error)
}

// PeerAddr is where a machine's Syncer listens: host:port.
type PeerAddr string

// Options say who this machine is and how it reaches others.
type Options struct {
	Cluster string // machines with another value are refused
	Machine string // this machine's id
	Store   Store
	// Dial connects to a peer. Default: TCP.
	Dial func(ctx context.Context, machine string, addr PeerAddr) (net.Conn, error)
	// Distance is how far another machine is; false where that is unknown. In
	// a cluster of more than 64 machines, nearer ones are preferred. It must
	// not block. Default: unknown.
	Distance func(machine string) (time.Duration, bool)
	// Admit says why a machine of this cluster is not let in, or nil. It must
	// not block, nor call the Syncer. Default: all are.
	Admit  func(machine string) error
	Random io.Reader    // default crypto/rand
	Logger *slog.Logger // default: none
}

// Syncer keeps the store of this machine and those of its peers alike. Its
// methods may be called from any goroutine.
type Syncer struct {
	cluster string
	machine string
	store   Store
	dial    func(ctx context.Context, machine string, addr PeerAddr) (net.Conn, error)
	log     *slog.Logger
	work    sync.WaitGroup
	wake    chan struct{} // the core's deadline may have moved
	turn    stall.Turn    // of tick

	framesIn, framesOut, bytesIn, bytesOut atomic.Uint64

	merging, reading ailment
	spoilt           atomic.Bool // some batch was

	mu      sync.Mutex
	launch  func(func(ctx context.Context)) // starts work that ends with Run; nil outside of Run
	core    *core
	wires   map[linkID]*wire
	nextID  linkID
	peers   map[string]*peer // those to keep connected
	members map[string]PeerAddr
	chooser *contacts
	seen    uint64        // epoch of the core that changed belongs to
	changed chan struct{} // closed when links came or went, or more is known
}

// New makes a Syncer. It does nothing until Run.
func New(o Options) (*Syncer, error) {
	if o.Cluster == "" || o.Machine == "" || o.Store == nil {
		return nil, fmt.Errorf("a syncer needs a cluster, a machine and a store")
	}
	if o.Random == nil {
		o.Random = cryptorand.Reader
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = dialTCP
	}
	if o.Distance == nil {
		o.Distance = func(string) (time.Duration, bool) { return 0, false }
	}
	var seed [24]byte
	if _, err := io.ReadFull(o.Random, seed[:]); err != nil {
		return nil, fmt.Errorf("draw a nonce: %w", err)
	}
	who := self{Cluster: o.Cluster, Machine: o.Machine, Site: o.Store.Site(), Nonce: binary.BigEndian.Uint64(seed[:])}
	random := rand.New(rand.NewPCG(binary.BigEndian.Uint64(seed[8:]), binary.BigEndian.Uint64(seed[16:])))
	c := newCore(who, random)
	c.distance = o.Distance
	if o.Admit != nil {
		c.admit = o.Admit
	}
	return &Syncer{
		cluster: o.Cluster, machine: o.Machine, store: o.Store, dial: o.Dial, log: o.Logger,
		wake: make(chan struct{}, 1), core: c, chooser: newContacts(o.Machine, o.Distance), wires: map[linkID]*wire{},
		peers: map[string]*peer{}, changed: make(chan struct{}),
	}, nil
}

func dialTCP(ctx context.Context, _ string, addr PeerAddr) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", string(addr))
}

// Run takes connections from listener, keeps one to every peer and replicates
// until ctx ends. It closes listener. It returns nil when ctx ended, or the
// error that the listener gave. It can be run once.
func (s *Syncer) Run(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.begin(ctx)
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	s.work.Go(func() { s.tick(ctx) })
	err := s.accept(ctx, listener)
	cancel()
	s.end()
	s.work.Wait()
	return err
}

// begin lets peers that were set before Run be called.
func (s *Syncer) begin(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.launch = func(do func(context.Context)) { s.work.Go(func() { do(ctx) }) }
	for _, p := range s.peers {
		s.keep(p)
	}
}

// end closes all links and lets nothing new begin.
func (s *Syncer) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.launch = nil
	for _, w := range s.wires {
		w.hangUp()
	}
}

func (s *Syncer) accept(ctx context.Context, listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept a connection: %w", err)
		}
		s.work.Go(func() {
			if err := s.serve(ctx, conn, ""); err != nil {
				s.log.Debug("connection ended", "address", conn.RemoteAddr(), "err", err)
			}
		})
	}
}

// tick wakes the core when it asked to be.
func (s *Syncer) tick(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due := false
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
			due = true
		}
		s.turn.Begin()
		if due {
			s.step(ticked{})
		}
		s.mu.Lock()
		next := s.core.deadline()
		s.mu.Unlock()
		s.turn.End()
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// step gives the core an event and does what it wants, except for merges:
// those are for the caller, who must not read on from the link before.
func (s *Syncer) step(event any) (merges []mergeBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.core.deadline()
	for _, a := range s.core.handle(time.Now(), s.store.Known(), s.store.Floor().Known, event) {
		switch a := a.(type) {
		case sendFrame:
			if w := s.wires[a.Link]; w != nil {
				w.send(a.Frame)
			}
		case closeLink:
			if w := s.wires[a.Link]; w != nil {
				w.finish(a.Reason)
			}
		case mergeBatch:
			merges = append(merges, a)
		case exportRange:
			s.spawn(func(ctx context.Context) { s.export(ctx, a) })
		case readSums:
			s.spawn(func(ctx context.Context) { s.sum(ctx, a) })
		case readBuckets:
			s.spawn(func(ctx context.Context) { s.buckets(ctx, a) })
		case readRelay:
			s.spawn(func(ctx context.Context) { s.readRelay(ctx, a) })
		case reseat:
			s.spawn(func(ctx context.Context) { s.reseat(ctx, a) })
		}
	}
	s.announce(event)
	if next := s.core.deadline(); !next.Equal(before) {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return merges
}

// announce wakes those who wait for links or for more to be known.
func (s *Syncer) announce(event any) {
	_, more := event.(merged)
	if more || s.core.epoch != s.seen {
		s.seen = s.core.epoch
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// spawn runs work beside Run, unless that has ended. The caller holds mu.
func (s *Syncer) spawn(do func(ctx context.Context)) {
	if s.launch != nil {
		s.launch(do)
	}
}

func (s *Syncer) export(ctx context.Context, a exportRange) {
	e := exported{Link: a.Link, Req: a.Req}
	if a.Snapshot {
		var all crdt.Snapshot
		all, e.Err = s.store.Snapshot(ctx)
		e.Batch, e.Floor = all.Batch, all.Floor
	} else {
		e.Batch, e.Err = s.store.Export(ctx, a.Site, a.Range.First, a.Range.Last, frameBytes)
		e.Floor = s.store.Floor()
	}
	s.reading.note(ctx, s.log, "answer", e.Err)
	s.step(e)
}

// readRelay reads what is to be passed on. What cannot be read is not: others
// hear of it later, and pull.
func (s *Syncer) readRelay(ctx context.Context, a readRelay) {
	out := read{From: a.From, Batch: crdt.Batch{Marks: crdt.Known{}}}
	for site, ranges := range a.Marks {
		for _, r := range ranges {
			b, err := s.store.Export(ctx, site, r.First, r.Last, frameBytes)
			s.reading.note(ctx, s.log, "relay", err)
			out.Batch.Rows = append(out.Batch.Rows, b.Rows...)
			out.Batch.Marks = out.Batch.Marks.Union(b.Marks)
		}
	}
	s.step(out)
}

func (s *Syncer) reseat(ctx context.Context, a reseat) {
	changed, err := s.store.Reseat(ctx, a.Seen)
	switch {
	case err != nil && ctx.Err() == nil:
		s.log.Error("the database is an old copy and cannot be mended", "err", err)
	case changed:
		s.step(reseated{Site: s.store.Site()})
	}
}

// merge gives the store what a link brought. Its error goes to the core, which
// asks again later.
func (s *Syncer) merge(ctx context.Context, a mergeBatch) {
	var repaired int
	var err error
	switch {
	case a.Mend:
		repaired, err = s.store.Repair(ctx, a.Batch.Rows)
	case a.Whole:
		_, err = s.store.AdoptSnapshot(ctx, crdt.Snapshot{Batch: a.Batch, Floor: a.Floor})
	default:
		_, err = s.store.Merge(ctx, a.Batch)
	}
	if repaired > 0 {
		s.log.Warn("rows differed from another machine's though both knew the same; they were merged", "rows", repaired)
	}
	if errors.Is(err, crdt.ErrImpossible) {
		s.noteSpoilt(err)
	} else {
		s.merging.note(ctx, s.log, "merge", err)
	}
	s.step(merged{mergeBatch: a, Repaired: repaired, Err: err})
}

// noteSpoilt tells of the first batch that cannot be used; Counters count them.
func (s *Syncer) noteSpoilt(err error) {
	if !s.spoilt.Swap(true) {
		s.log.Warn("another machine sent changes that cannot be; they are left out and asked for again", "err", err)
	}
}

func (s *Syncer) sum(ctx context.Context, a readSums) {
	known, tables, err := s.store.Buckets(ctx)
	s.reading.note(ctx, s.log, "hash", err)
	s.step(summed{Link: a.Link, Theirs: a.Theirs, Known: known, Tables: tables, Err: err})
}

func (s *Syncer) buckets(ctx context.Context, a readBuckets) {
	found, err := s.store.BucketRows(ctx, a.Buckets)
	s.reading.note(ctx, s.log, "compare", err)
	s.step(bucketsRead{Link: a.Link, Rows: found, Err: err})
}

// Collect forgets old tombstones that all machines have said to have, and says
// how many. Machines that are down count with what they said last; while one
// has said nothing since this Syncer began, none is forgotten. It writes
// nothing if there is nothing to forget.
//
// It asks the machines anew, and goes by what they have said half a
// minute ago (settleFor) and before: so it is to be called again, some minutes
// later at the soonest.
func (s *Syncer) Collect(ctx context.Context) (int, error) {
	s.step(census{})
	s.mu.Lock()
	everyone, told := s.core.everyone(slices.Collect(maps.Keys(s.members)), s.store.Known())
	s.mu.Unlock()
	if !told {
		return 0, nil
	}
	n, err := s.store.Collect(ctx, everyone)
	if n > 0 {
		s.step(collected{})
	}
	return n, err
}

// Scrub compares hashes of all rows with every connected machine, and merges
// those that differ. It happens by itself with one of them every ten minutes.
// It does not wait for the outcome: see Counters.Repaired.
func (s *Syncer) Scrub() { s.step(scrubNow{}) }

// Stalled is for how long the core has been at work on one thing, or has waited
// for whoever holds it; 0 while it waits for something to do. That takes
// milliseconds. It asks the core to show itself: what holds it is seen with the
// next question, also where nothing else would be due.
func (s *Syncer) Stalled() time.Duration {
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return s.turn.Took()
}

// Counters is what was done so far.
func (s *Syncer) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counters()
}

func (s *Syncer) counters() Counters {
	n := s.core.count
	n.FramesIn, n.FramesOut = s.framesIn.Load(), s.framesOut.Load()
	n.BytesIn, n.BytesOut = s.bytesIn.Load(), s.bytesOut.Load()
	return n
}

// Committed pushes a local commit to all connected machines. It does not block
// and may be called from the store's commit hook, in the order of commits.
func (s *Syncer) Committed(batch crdt.Batch) { s.step(committed{Batch: batch}) }

// Poke exchanges with a machine now what either lacks; with one that is not
// connected, it tries to connect now. An empty machine is all of them. It does
// not wait for the outcome.
func (s *Syncer) Poke(machine string) {
	s.step(poked{Machine: machine})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		if machine == "" || machine == p.machine {
			p.hurry()
		}
	}
}

// CaughtUp tells whether all is here that the connected machines had when they
// connected. It is false while no machine is connected, unless there are no
// peers at all. A machine that has just joined is not to act before.
func (s *Syncer) CaughtUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.caughtUp()
}

func (s *Syncer) caughtUp() bool {
	return len(s.peers) == 0 && len(s.core.live) == 0 || s.core.caughtUp(s.store.Known())
}

// AwaitCaughtUp returns nil once CaughtUp is true, or ctx's error.
func (s *Syncer) AwaitCaughtUp(ctx context.Context) error {
	for {
		s.mu.Lock()
		ready, changed := s.caughtUp(), s.changed
		s.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("catch up with the other machines: %w", ctx.Err())
		}
	}
}
