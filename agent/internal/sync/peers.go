package statesync

import (
	"context"
	"maps"
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

// SetPeers says who the other machines are, by id. In a cluster of up to 64
// each is kept connected; in a larger one a few are, see contacts. Links to
// machines that are no longer among them are closed. Machines that call are
// served without being listed, if they are of this cluster: the mesh admits
// members only, and a new one may know us before we know it.
func (s *Syncer) SetPeers(peers map[string]PeerAddr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for machine, p := range s.peers {
		if addr, stays := peers[machine]; !stays || addr != p.addr {
			s.dismiss(p, !stays)
		}
	}
	for machine := range s.core.live {
		if _, was := s.members[machine]; was && peers[machine] == "" {
			s.hangUp(machine)
		}
	}
	s.members = maps.Clone(peers)
	delete(s.members, s.machine)
	s.core.members = len(s.members) + 1
	if _, still := s.members[s.core.clone]; !still {
		s.core.clone = "" // it was removed
	}
	s.choose()
	close(s.changed)
	s.changed = make(chan struct{})
}

// choose keeps those connected who are to be. The caller holds mu.
func (s *Syncer) choose() {
	chosen := map[string]bool{}
	for _, machine := range s.chooser.choose(time.Now(), slices.Sorted(maps.Keys(s.members))) {
		chosen[machine] = true
		if s.peers[machine] == nil {
			p := &peer{machine: machine, addr: s.members[machine], gone: make(chan struct{}), now: make(chan struct{}, 1)}
			s.peers[machine] = p
			s.keep(p)
		}
	}
	for machine, p := range s.peers {
		if !chosen[machine] {
			s.dismiss(p, false)
		}
	}
}

func (s *Syncer) hangUp(machine string) {
	if l := s.core.live[machine]; l != nil {
		if w := s.wires[l.id]; w != nil {
			w.hangUp()
		}
	}
}

// dismiss stops calling a peer, and with hangUp closes its link.
func (s *Syncer) dismiss(p *peer, hangUp bool) {
	delete(s.peers, p.machine)
	close(p.gone)
	if hangUp {
		s.hangUp(p.machine)
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
	p.pause(ctx, rand.N(redialMin)) // so that a large cluster does not start at one moment
	wait := redialMin
	for s.awaitUnlinked(ctx, p) {
		began := time.Now()
		err := s.call(ctx, p)
		long := time.Since(began) > redialMax // it was connected
		if long {
			wait = redialMin
		}
		s.note(p, err, long)
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

// note keeps why a call ended. In a large cluster another machine is called
// instead of one that does not answer.
func (s *Syncer) note(p *peer, err error, wasLong bool) {
	s.log.Debug("not connected", "peer", p.machine, "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.err = ""
	if err != nil {
		p.err = err.Error()
	}
	switch linked := s.core.live[p.machine] != nil; {
	case s.peers[p.machine] != p || !s.core.large():
	case linked || wasLong:
		s.chooser.reached(p.machine)
	default:
		s.chooser.failed(p.machine, time.Now())
		s.choose()
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
	Counters Counters
	Clone    string // a machine that runs on a copy of this machine's database; empty: none
}

// Status does not block.
func (s *Syncer) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.store.Known()
	st := Status{CaughtUp: s.caughtUp(), Counters: s.counters(), Clone: s.core.clone}
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
