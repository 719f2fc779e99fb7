package statesync

import (
	"context"
	"time"

	"uncloud/agent/internal/crdt"
)

// upgrade starts a newer agent on a node.
func (n *node) upgrade(down time.Duration) {
	newer, ok := n.rep.(interface{ upgrade() })
	if ok && n.up {
		n.crash(down)
		newer.upgrade()
	}
}

// wall is the time by the node's clock.
func (n *node) wall() time.Time { return n.sim.now.Add(n.sim.weeks + n.skew) }

// floor is what the core knows of it.
func (n *node) floor() crdt.Floor {
	if n.deaf {
		return crdt.Floor{}
	}
	return n.rep.Floor()
}

// collect is Syncer.Collect; members are those who must have the tombstones.
func (n *node) collect(members []string) {
	if !n.up || n.paused {
		return
	}
	n.step(census{})
	everyone, told := n.core.everyone(members, n.rep.Known())
	if !told {
		return
	}
	n.rep.setTime(n.wall())
	gone, err := n.rep.Collect(context.Background(), everyone)
	if err != nil {
		panic(err)
	}
	if gone > 0 {
		n.sim.forgotten += gone
		n.step(collected{})
	}
}

// relay is Syncer.readRelay.
func (n *node) relay(a readRelay) {
	out := read{From: a.From, Batch: crdt.Batch{Marks: crdt.Known{}}}
	for _, site := range a.Marks.Sites() {
		for _, r := range a.Marks[site] {
			b, err := n.rep.Export(context.Background(), site, r.First, r.Last, 2000)
			if err == nil {
				out.Batch.Rows, out.Batch.Marks = append(out.Batch.Rows, b.Rows...), out.Batch.Marks.Union(b.Marks)
			}
		}
	}
	n.step(out)
}
