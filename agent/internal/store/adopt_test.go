package store

import (
	"errors"
	"testing"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/spec"
)

// adopt brings what from holds to s, as a machine does that is behind its floor.
func adopt(t testing.TB, s, from *Store) {
	t.Helper()
	all, err := from.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AdoptSnapshot(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	checked(t, s)
}

// What was written by a machine that was away beats a tombstone that one
// machine has forgotten and another has not.
func TestSurvivorsRiseAboveTheFloor(t *testing.T) {
	clock := &clockAt{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	a, keeps, away := open(t, Options{Clock: clock.read}), open(t, Options{Clock: clock.read}), open(t, Options{Clock: clock.read})
	put(t, a, project(1), project(2))
	pull(t, away, a)
	remove(t, a, "projects", "prj_1")
	pull(t, keeps, a)
	put(t, away, spec.Project{ID: "prj_1", Name: "changed while away"})
	remove(t, away, "projects", "prj_2")
	clock.now = clock.now.Add(2 * Retention)
	if n := collect(t, a, keeps.Known()); n != 1 {
		t.Fatal(n)
	}
	var local int
	away.OnCommit(func(c Commit) {
		if c.Local {
			local += len(c.Batch.Rows)
		}
	})
	adopt(t, away, a)
	if local != 1 {
		t.Errorf("%d rows were written again", local)
	}
	for _, s := range []*Store{a, keeps} {
		pull(t, s, away)
		if got := s.State().Projects; len(got) != 1 || got["prj_1"].Name != "changed while away" {
			t.Errorf("%v", got)
		}
	}
	if digest(t, a) != digest(t, keeps) || digest(t, a) != digest(t, away) {
		t.Error("they do not agree")
	}
}

// Two sides that have each forgotten what the other never saw removed.
func TestFloorsOfTwoSides(t *testing.T) {
	clock := &clockAt{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	a, b := open(t, Options{Clock: clock.read}), open(t, Options{Clock: clock.read})
	put(t, a, project(1), project(2), project(3))
	pull(t, b, a)
	remove(t, a, "projects", "prj_1")
	remove(t, b, "projects", "prj_2")
	put(t, b, project(4))
	clock.now = clock.now.Add(2 * Retention)
	if n := collect(t, a, a.Known()) + collect(t, b, b.Known()); n != 2 {
		t.Fatal(n)
	}
	adopt(t, a, b)
	adopt(t, b, a)
	pull(t, a, b)
	if got := a.State().Projects; len(got) != 2 || got["prj_3"].ID == "" || got["prj_4"].ID == "" || digest(t, a) != digest(t, b) {
		t.Errorf("%v\n%v", got, b.State().Projects)
	}
}

func TestSnapshotsThatCannotBe(t *testing.T) {
	s := open(t, Options{})
	put(t, s, project(1))
	before := digest(t, s)
	other := crdt.SiteID{7}
	for name, all := range map[string]crdt.Snapshot{
		"a floor above what is known": {Floor: Floor{Known: crdt.Known{other: crdt.Single(1, 3)}, CL: 2}},
		"a row without a record":      {Batch: crdt.Batch{Rows: []crdt.Row{{Table: "projects", Key: "x"}}, Marks: crdt.Known{other: crdt.Single(1, 3)}}},
		"a version beyond all":        {Batch: crdt.Batch{Marks: crdt.Known{other: crdt.Single(1<<63, 1<<63)}}},
	} {
		if _, err := s.AdoptSnapshot(t.Context(), all); !errors.Is(err, crdt.ErrImpossible) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if digest(t, s) != before || len(s.Known()) != 1 || len(s.Floor().Known) != 0 {
		t.Error("something of them was kept")
	}
}
