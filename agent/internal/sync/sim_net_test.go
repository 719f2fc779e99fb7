package statesync

import "time"

func (n *node) send(e *end, f frame) {
	if e == nil {
		return
	}
	s, packed := n.sim, appendFrame(nil, f)
	s.frame, s.bytes = s.frame+1, s.bytes+len(packed)+4
	took := time.Duration(0)
	if s.lineRate > 0 {
		took = time.Duration(len(packed)) * time.Second / time.Duration(s.lineRate)
	}
	begin := s.now
	if e.peer.arrives.After(begin) && s.lineRate > 0 {
		begin = e.peer.arrives
	}
	arrives := begin.Add(took + s.delay() + s.way(n, e.peer.node))
	if arrives.Before(e.peer.arrives) {
		arrives = e.peer.arrives
	}
	e.peer.arrives = arrives
	n.later(begin.Add(took).Sub(s.now), func() {
		if n.ends[e.id] == e {
			n.step(sent{Link: e.id})
		}
	})
	s.carry(e, packed, arrives)
}

// way is half of the round trip between nodes, if they have places.
func (s *sim) way(a, b *node) time.Duration {
	if s.rtt == nil {
		return 0
	}
	return s.rtt(a, b) / 2
}

// carry has a frame arrive, if the way is open.
func (s *sim) carry(e *end, packed []byte, at time.Time) {
	if s.cut(e.node, e.peer.node) {
		return
	}
	if s.lossy {
		switch s.rand.IntN(50) {
		case 0:
			return // lost
		case 1:
			s.after(at.Sub(s.now)+s.random(time.Second), func() { e.peer.arrive(packed) })
		case 2: // overtaken by others
			at = at.Add(s.random(300 * time.Millisecond))
		}
	}
	s.after(at.Sub(s.now), func() { e.peer.arrive(packed) })
}

func (e *end) arrive(packed []byte) {
	if !e.conn.broken && e.node.ends[e.id] == e {
		e.heard = e.node.sim.now
		e.inbox = append(e.inbox, packed)
		e.deliver()
	}
}

// deliver reads on, unless the store is at work on what was read.
func (e *end) deliver() {
	n := e.node
	if n.paused && len(e.inbox) > 0 {
		n.backlog = append(n.backlog, e.deliver)
		return
	}
	for len(e.inbox) > 0 && !e.merging && n.ends[e.id] == e {
		f, err := parseFrame(e.inbox[0])
		if err != nil {
			panic(err)
		}
		e.inbox = e.inbox[1:]
		n.step(received{Link: e.id, Frame: f})
	}
}
