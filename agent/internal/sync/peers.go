package statesync

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"uncloud/agent/internal/crdt"
)

const (
	dialTimeout = 5 * time.Second
	// callFirst is how long the machine with the higher id waits to be called
	// by the other before it calls itself.
	callFirst = 2 * time.Second
	// Between attempts the wait doubles, from redialMin to redialMax, so that
	// a machine that is back is connected soon.
	redialMin, redialMax = 200 * time.Millisecond, 10 * time.Second
)

// peer is a machine to keep connected.
type peer struct {
	machine string
	addr    PeerAddr
	gone    chan struct{} // closed when it is no peer any more
	now     chan struct{} // try now
	err     string        // why it is not connected
}

func (p *peer) hurry() {
	select {
	case p.now <- struct{}{}:
	default:
	}
}

// SetPeers says which machines to keep connected, by id. Links to machines
// that are no longer among them are closed. Machines that call are served
// without being listed, if they are of this cluster: the mesh admits members
// only, and a new one may know us before we know it.
func (s *Syncer) SetPeers(peers map[string]PeerAddr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for machine, p := range s.peers {
		if addr, stays := peers[machine]; !stays || addr != p.addr {
			s.dismiss(p, !stays)
		}
	}
	for machine, addr := range peers {
		if machine != s.machine && s.peers[machine] == nil {
			p := &peer{machine: machine, addr: addr, gone: make(chan struct{}), now: make(chan struct{}, 1)}
			s.peers[machine] = p
			s.keep(p)
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// dismiss stops calling a peer, and with hangUp closes its link.
func (s *Syncer) dismiss(p *peer, hangUp bool) {
	delete(s.peers, p.machine)
	close(p.gone)
	if l := s.core.live[p.machine]; l != nil && hangUp {
		if w := s.wires[l.id]; w != nil {
			w.hangUp()
		}
	}
}

// keep starts the keeper of a peer. The caller holds mu.
func (s *Syncer) keep(p *peer) {
	s.spawn(func(ctx context.Context) { s.keeper(ctx, p) })
}

// keeper calls a machine whenever there is no link to it, until it is no peer.
func (s *Syncer) keeper(ctx context.Context, p *peer) {
	if s.machine > p.machine {
		p.pause(ctx, callFirst)
	}
	wait := redialMin
	for s.awaitUnlinked(ctx, p) {
		began := time.Now()
		s.note(p, s.call(ctx, p))
		if time.Since(began) > redialMax {
			wait = redialMin // it was connected
		}
		p.pause(ctx, wait+rand.N(wait/4))
		wait = min(2*wait, redialMax)
	}
}

// call connects to a machine and serves the link until it ends.
func (s *Syncer) call(ctx context.Context, p *peer) error {
	dial, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := s.dial(dial, p.machine, p.addr)
	if err != nil {
		return err
	}
	return s.serve(ctx, conn, p.machine)
}

func (p *peer) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.now:
	case <-p.gone:
	case <-ctx.Done():
	}
}

// awaitUnlinked waits until there is no link to a machine; it is false when
// the machine is no peer any more, or ctx ended.
func (s *Syncer) awaitUnlinked(ctx context.Context, p *peer) bool {
	for {
		s.mu.Lock()
		linked, changed := s.core.live[p.machine] != nil, s.changed
		s.mu.Unlock()
		select {
		case <-p.gone:
			return false
		case <-ctx.Done():
			return false
		default:
		}
		if !linked {
			return true
		}
		select {
		case <-changed:
		case <-p.gone:
		case <-ctx.Done():
		}
	}
}

func (s *Syncer) note(p *peer, err error) {
	s.log.Debug("not connected", "peer", p.machine, "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.err = ""
	if err != nil {
		p.err = err.Error()
	}
}

// PeerStatus is how replication with one machine stands.
type PeerStatus struct {
	Machine   string
	Connected bool
	Site      crdt.SiteID // while connected
	Queued    int         // bytes that wait to be pushed to it
	Missing   uint64      // versions that it has and this machine has not
	Synced    time.Time   // when nothing was missing, last; zero if never on this link
	Err       string      // why it is not connected
}

// Status is how replication stands.
type Status struct {
	Peers    []PeerStatus // by machine
	CaughtUp bool
	Clone    string // a machine that runs on a copy of this machine's database; empty: none
}

// Status does not block.
func (s *Syncer) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.store.Known()
	st := Status{CaughtUp: s.caughtUp(), Clone: s.core.clone}
	for _, l := range s.core.live {
		st.Peers = append(st.Peers, PeerStatus{
			Machine: l.machine, Connected: true, Site: l.site, Queued: l.outbox.bytes,
			Missing: l.known.Minus(known).Count(), Synced: l.synced,
		})
	}
	for _, p := range s.peers {
		if s.core.live[p.machine] == nil {
			st.Peers = append(st.Peers, PeerStatus{Machine: p.machine, Err: p.err})
		}
	}
	slices.SortFunc(st.Peers, func(a, b PeerStatus) int { return strings.Compare(a.Machine, b.Machine) })
	return st
}
