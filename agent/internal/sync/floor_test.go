package statesync

import (
	"testing"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/store"
)

// A machine that was away while a tombstone was forgotten gives nothing back
// that was removed, and loses nothing that it wrote.
func TestAwayWhileTombstonesWent(t *testing.T) {
	s := ready(t, 4)
	a, away, keeps := s.nodes[0], s.nodes[3], s.nodes[1]
	a.write("x", "gone", "changed", "kept")
	s.run(time.Second)
	s.partition(false, func(x, y *node) bool { return x == away || y == away })
	s.run(5 * time.Second)
	a.write("", "gone", "changed")
	away.write("meanwhile", "changed", "new")
	s.run(5 * time.Second)
	s.weeks += store.Retention + time.Hour
	members := s.names[:3] // the one that is away was removed
	for range 3 {
		a.collect(members)
		s.nodes[2].collect(members)
		s.run(time.Minute) // what was said settles
	}
	if s.forgotten != 4 || len(keeps.rep.all()) != 3 {
		t.Fatalf("%d tombstones were forgotten, %d rows are kept", s.forgotten, len(keeps.rep.all()))
	}
	// It meets those first who have forgotten; by the other it would hear of the
	// removal, which beats what it wrote.
	s.partition(false, func(x, y *node) bool { return (x == away || y == away) && (x == keeps || y == keeps) })
	s.until(30*time.Second, func() bool { return away.rep.Floor().CL > 0 })
	s.heal()
	if took, ok := s.until(30*time.Second, s.agree); !ok {
		t.Fatalf("after %v: %s", took, s.disagreement())
	}
	for _, n := range s.nodes {
		rows := n.rep.all()
		if rows[rowID{"t", "gone"}].Record.Alive() || !rows[rowID{"t", "changed"}].Record.Alive() || !rows[rowID{"t", "new"}].Record.Alive() {
			t.Errorf("node %d: %v", n.n, rows)
		}
	}
	if n := a.core.count.Snapshots + s.nodes[2].core.count.Snapshots; n != 1 {
		t.Errorf("%d snapshots", n)
	}
}

// What a member has said counts while it is down. Who was never heard keeps
// all tombstones where they are.
func TestWhoMustHaveATombstone(t *testing.T) {
	s := ready(t, 3)
	a, down := s.nodes[0], s.nodes[2]
	a.write("x", "k", "l")
	a.write("", "k")
	s.run(3 * time.Minute)
	a.collect(s.names) // asks
	s.run(3 * time.Minute)
	down.crash(time.Hour)
	s.run(time.Minute)
	a.write("", "l")
	s.weeks += store.Retention + time.Hour
	for range 3 {
		a.collect(s.names)
		s.run(time.Minute)
	}
	if s.forgotten != 1 {
		t.Errorf("%d were forgotten, with one that is down", s.forgotten)
	}
	s.names = append(s.names, "mch_never")
	if _, told := a.core.everyone(s.names, a.rep.Known()); told {
		t.Error("a machine that said nothing was left out")
	}
}

// Rows that are on their way when a machine says what it has may be older than
// that, so only what it said a while ago counts.
func TestSayingsSettle(t *testing.T) {
	s := ready(t, 2)
	a, b := s.nodes[0], s.nodes[1]
	b.write("x", "k")
	s.run(100 * time.Millisecond)
	at := crdt.Version{Site: b.rep.Site(), Seq: 1}
	if known, told := a.core.everyone(s.names, a.rep.Known()); !told || !a.rep.Known().Covers(at) || known.Covers(at) {
		t.Error("what was said just now counts")
	}
	s.run(3 * settleFor)
	if known, _ := a.core.everyone(s.names, a.rep.Known()); !known.Covers(at) {
		t.Error("what was said long ago does not count")
	}
}

// By versions, a machine behind the floor gets and gives nothing.
func TestNoRangesBehindTheFloor(t *testing.T) {
	s := ready(t, 2)
	a, b := s.nodes[0], s.nodes[1]
	l := a.core.live[machineName(1)]
	high := crdt.Known{a.rep.Site(): crdt.Single(1, 7)}
	has := crdt.Known{a.rep.Site(): crdt.Single(1, 9)}
	row := crdt.Row{Table: "t", Key: "k", Record: crdt.Record{CL: 1, Site: b.rep.Site()}, Writers: []crdt.Version{{Site: b.rep.Site(), Seq: 1}}}
	for _, f := range []frame{
		rows{Serial: 50, Batch: crdt.Batch{Rows: []crdt.Row{row}, Marks: crdt.Knows(row.Writers[0])}},
		rows{Serial: 51, Mend: true, Batch: crdt.Batch{Rows: []crdt.Row{row}}},
		ask{Req: 5, Wants: has},
	} {
		for _, act := range a.core.handle(s.now, has, high, received{Link: l.id, Frame: f}) {
			switch act.(type) {
			case mergeBatch, exportRange:
				t.Errorf("%T came of %T", act, f)
			}
		}
	}
	for _, act := range a.core.handle(s.now, has, high, committed{Batch: crdt.Batch{Rows: []crdt.Row{row}, Marks: has}}) {
		if f, ok := act.(sendFrame); ok && f.Frame.kind() == kindRows {
			t.Error("a commit was pushed to it")
		}
	}
	snapshot := false
	for _, act := range a.core.handle(s.now, has, high, received{Link: l.id, Frame: ask{Req: 6, Snapshot: true}}) {
		e, ok := act.(exportRange)
		snapshot = snapshot || ok && e.Snapshot
	}
	if !snapshot {
		t.Error("it was given no snapshot")
	}
}
