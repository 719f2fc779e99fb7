package store

import (
	"errors"
	"testing"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/spec"
)

// clockAt is a clock that a test moves.
type clockAt struct{ now time.Time }

func (c *clockAt) read() time.Time { return c.now }

func collect(t testing.TB, s *Store, everyone crdt.Known) int {
	t.Helper()
	n, err := s.Collect(t.Context(), everyone)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTombstonesGoWhenEveryoneHasThem(t *testing.T) {
	clock, dir := &clockAt{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}, t.TempDir()
	a, b := open(t, Options{Dir: dir, Clock: clock.read}), open(t, Options{Clock: clock.read})
	put(t, a, project(1), project(2))
	pull(t, b, a)
	remove(t, a, "projects", "prj_1")
	clock.now = clock.now.Add(Retention + time.Second)
	if n := collect(t, a, b.Known()); n != 0 {
		t.Fatal("collected what another member lacks")
	}
	pull(t, b, a)
	clock.now = clock.now.Add(-2 * time.Second)
	if n := collect(t, a, b.Known()); n != 0 {
		t.Fatal("collected before the retention has passed")
	}
	clock.now = clock.now.Add(2 * time.Second)
	if n := collect(t, a, b.Known()); n != 1 || a.Status().Deleted != 0 {
		t.Fatalf("collected %d, %+v", n, a.Status())
	}
	checked(t, a)
	if collect(t, a, b.Known()) != 0 || !b.Known().CoversAll(a.Floor().Known) || len(a.Floor().Known) != 1 {
		t.Fatal("floor", a.Floor())
	}
	floor := a.Floor()
	closed(t, a, dir)
	a = open(t, Options{Dir: dir, Clock: clock.read})
	if !a.Floor().Known.Equal(floor.Known) || a.Floor().CL != 2 {
		t.Error("the floor is forgotten over a restart")
	}
	// The row can be made again, also where others still have the tombstone.
	put(t, a, project(1))
	pull(t, b, a)
	if digest(t, a) != digest(t, b) || len(b.State().Projects) != 2 {
		t.Error("a row was lost to a tombstone that was collected here:", b.State().Projects)
	}
}

// A member that was away while tombstones were collected gives back nothing
// that was removed, loses nothing that it wrote, and agrees.
func TestMemberThatWasAwayWhileTombstonesWent(t *testing.T) {
	clock := &clockAt{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	a, away := open(t, Options{Clock: clock.read}), open(t, Options{Dir: t.TempDir(), Clock: clock.read})
	put(t, a, project(1), project(2), project(3))
	pull(t, away, a)
	remove(t, a, "projects", "prj_1")
	put(t, a, spec.Project{ID: "prj_2", Name: "changed"})
	put(t, away, project(4), spec.Project{ID: "prj_3", Name: "changed while away"})
	clock.now = clock.now.Add(2 * Retention)
	if n := collect(t, a, a.Known()); n != 1 { // away was removed from the members
		t.Fatal(n)
	}
	if away.Known().CoversAll(a.Floor().Known) {
		t.Fatal("the floor does not show it")
	}
	f := follow(t, away, "projects", 0)
	var seen folded
	if err := seen.fold(next(t, f)); err != nil {
		t.Fatal(err)
	}
	snapshot, err := a.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := away.AdoptSnapshot(t.Context(), snapshot); err != nil {
		t.Fatal(err)
	}
	if err := seen.fold(next(t, f)); err != nil || len(seen.rows) != 3 {
		t.Errorf("followers: %v, %v", err, seen.rows)
	}
	checked(t, away)
	pull(t, a, away)
	got := a.State().Projects
	if len(got) != 3 || got["prj_2"].Name != "changed" || got["prj_3"].Name != "changed while away" || digest(t, a) != digest(t, away) {
		t.Errorf("%v\n%v", got, away.State().Projects)
	}
	if !away.Known().CoversAll(a.Floor().Known) || away.Status().Rows != 3 || away.Status().Deleted != 0 {
		t.Errorf("%+v", away.Status())
	}
}

// Whoever has read rows without a tombstone that was forgotten finds a Floor
// that says so: it is there before they can be read.
func TestTheFloorIsThereBeforeTombstonesGo(t *testing.T) {
	clock := &clockAt{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	s := open(t, Options{Clock: clock.read})
	put(t, s, project(1))
	remove(t, s, "projects", "prj_1")
	gone := s.head()
	clock.now = clock.now.Add(2 * Retention)
	if err := s.raiseFloor(Floor{Known: crdt.Knows(gone), CL: 2}, func() error {
		if !s.Floor().Known.Covers(gone) {
			t.Error("not within the transaction")
		}
		return errors.New("rolled back")
	}); err == nil || s.Floor().CL != 0 {
		t.Error("what was rolled back has raised the floor:", err, s.Floor())
	}
	if collect(t, s, s.Known()) != 1 || s.Floor().CL != 2 {
		t.Error(s.Floor())
	}
}

// A tombstone ahead of its version is kept: nobody can say that it has that.
func TestTombstoneAheadOfItsVersion(t *testing.T) {
	clock := &clockAt{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	a, b := open(t, Options{Clock: clock.read}), open(t, Options{Clock: clock.read})
	put(t, a, project(1))
	pull(t, b, a)
	remove(t, a, "projects", "prj_1")
	all, err := a.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := b.Repair(t.Context(), all.Rows); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	c := open(t, Options{Clock: clock.read})
	if _, err := c.Repair(t.Context(), all.Rows); err != nil {
		t.Fatal(err)
	}
	clock.now = clock.now.Add(2 * Retention)
	if n := collect(t, c, c.Known()); n != 0 {
		t.Errorf("%d tombstones were forgotten of which no version is known", n)
	}
}
