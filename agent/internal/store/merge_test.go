package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/spec"
)

type fataler interface {
	Helper()
	Fatal(...any)
}

// pull brings everything that from knows to s, in small pieces, newest first.
func pull(t fataler, s, from *Store) {
	t.Helper()
	ctx := testContext
	for site, ranges := range from.Known().Minus(s.Known()) {
		for _, r := range slices.Backward(ranges) {
			for last := r.Last; last >= r.First; {
				b, err := from.Export(ctx, site, r.First, last, 300)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Merge(ctx, b); err != nil {
					t.Fatal(err)
				}
				last = b.Marks[site][0].First - 1
			}
		}
	}
	if !s.Known().CoversAll(from.Known()) {
		t.Fatal("pulled everything, yet lacks", from.Known().Minus(s.Known()))
	}
}

// The columns of a service that two sides changed merge one by one; removal
// beats a concurrent change.
func TestTwoSidesOfAPartition(t *testing.T) {
	a, b := open(t, Options{}), open(t, Options{})
	web, db := spec.Service{ID: "svc_web", Revision: "rev_1", Replicas: 1}, spec.Service{ID: "svc_db"}
	put(t, a, web, db)
	pull(t, b, a)
	deployed, scaled := web, web
	deployed.Revision, scaled.Replicas = "rev_2", 5
	put(t, a, deployed)
	put(t, b, scaled)
	remove(t, b, "services", "svc_db")
	db.Replicas = 7
	put(t, a, db)
	pull(t, a, b)
	pull(t, b, a)
	for _, s := range []*Store{a, b} {
		got := s.State().Services
		if got["svc_web"].Revision != "rev_2" || got["svc_web"].Replicas != 5 || len(got) != 1 {
			t.Errorf("%+v", got)
		}
	}
	if digest(t, a) != digest(t, b) {
		t.Error("digests differ")
	}
}

func TestConcurrentWritesAreDecidedByTime(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	late := func() time.Time { return now.Add(time.Minute) }
	a := open(t, Options{Clock: func() time.Time { return now }})
	b := open(t, Options{Clock: late})
	put(t, b, spec.Project{ID: "prj_1", Name: "a later write"})
	put(t, a, spec.Project{ID: "prj_1", Name: "zzz an earlier write"})
	pull(t, a, b)
	if got := a.State().Projects["prj_1"].Name; got != "a later write" || !a.Status().ClockSkewed {
		t.Errorf("%q, %+v", got, a.Status())
	}
	// A write that has seen another beats it, however slow its clock is.
	put(t, a, spec.Project{ID: "prj_1", Name: "seen and changed"})
	pull(t, b, a)
	if got := b.State().Projects["prj_1"].Name; got != "seen and changed" {
		t.Errorf("%q", got)
	}
}

func TestExportIsNewestFirstAndWhole(t *testing.T) {
	s := open(t, Options{})
	for i := range 50 {
		put(t, s, project(i%20), spec.Event{ID: fmt.Sprint("evt_", i)}, spec.Service{ID: "svc_1", Replicas: i + 1})
	}
	site, seen := s.Site(), crdt.Ranges(nil)
	for last := uint64(50); last > 0; {
		b, err := s.Export(t.Context(), site, 1, last, 1000)
		if err != nil {
			t.Fatal(err)
		}
		marks := b.Marks[site]
		if len(marks) != 1 || marks.Head() != last || len(b.Rows) == 0 {
			t.Fatalf("asked for 1 to %d, got %v with %d rows", last, marks, len(b.Rows))
		}
		for _, row := range b.Rows {
			if !slices.ContainsFunc(row.Writers, func(v Version) bool { return marks.Contains(v.Seq) }) {
				t.Errorf("%s %s is not of %v: %v", row.Table, row.Key, marks, row.Writers)
			}
		}
		seen, last = seen.Union(marks), marks[0].First-1
	}
	if !slices.Equal(seen, crdt.Single(1, 50)) {
		t.Errorf("got %v", seen)
	}
	for _, r := range []crdt.Range{{First: 1, Last: 51}, {First: 0, Last: 3}, {First: 5, Last: 4}} {
		if _, err := s.Export(t.Context(), site, r.First, r.Last, 1000); err == nil {
			t.Errorf("exported %v", r)
		}
	}
}

// A row that came early, in the state of a version that is not known yet, is
// still passed on under the older version that is.
func TestRowAheadOfItsVersion(t *testing.T) {
	a, b, c, d := open(t, Options{}), open(t, Options{}), open(t, Options{}), open(t, Options{})
	first := put(t, a, spec.Service{ID: "svc_1", Replicas: 1})
	pull(t, b, a)
	pull(t, c, a)
	second := put(t, a, spec.Service{ID: "svc_1", Replicas: 2}, project(1))
	// c hears of the row through a version of b, which has seen a's second.
	pull(t, b, a)
	mine := put(t, b, spec.Service{ID: "svc_1", Replicas: 2, Wanted: spec.WantStopped})
	only, err := b.Export(t.Context(), mine.Site, 1, 1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Merge(t.Context(), only); err != nil {
		t.Fatal(err)
	}
	if c.Covers(second) || !c.Covers(first) {
		t.Fatal("c knows", c.Known())
	}
	// d asks c for the first version of a only, and must get the row.
	part, err := c.Export(t.Context(), first.Site, 1, 1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Merge(t.Context(), part); err != nil {
		t.Fatal(err)
	}
	if !d.Covers(first) || d.State().Services["svc_1"].Replicas != 2 {
		t.Fatalf("d knows %v and has %v", d.Known(), d.State().Services)
	}
}

func TestMergeRefusesWhatCannotBe(t *testing.T) {
	s, site := open(t, Options{}), crdt.SiteID{15: 9}
	put(t, s, project(1))
	for name, b := range map[string]crdt.Batch{
		"no record":  {Rows: []crdt.Row{{Table: "projects", Key: "x"}}},
		"no key":     {Rows: []crdt.Row{rawRow("projects", "", site)}},
		"too far":    {Marks: crdt.Known{site: crdt.Single(1, 1<<63)}},
		"own future": {Marks: crdt.Knows(Version{Site: s.Site(), Seq: 2})},
	} {
		if _, err := s.Merge(t.Context(), b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if s.Known().Count() != 1 {
		t.Error(s.Known())
	}
}

// A copy of a database takes a site id of its own before it writes, knows the
// old site up to the copy, and gets the rest from others.
func TestCopiedDatabase(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	a, b := open(t, Options{Dir: dir}), open(t, Options{})
	put(t, a, project(1))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	a = open(t, Options{Dir: dir})
	put(t, a, project(2))
	pull(t, b, a)
	if err := os.WriteFile(filepath.Join(copied, databaseName), content, 0o600); err != nil {
		t.Fatal(err)
	}
	twin := open(t, Options{Dir: copied})
	if twin.Site() == a.Site() || twin.Known().Head(a.Site()) != 1 {
		t.Fatalf("site %v and %v, knows %v", a.Site(), twin.Site(), twin.Known())
	}
	put(t, twin, project(3))
	pull(t, twin, b)
	pull(t, b, twin)
	pull(t, a, b)
	if digest(t, a) != digest(t, twin) || len(a.State().Projects) != 3 {
		t.Fatalf("%v\n%v", a.State().Projects, twin.State().Projects)
	}
	before := twin.Site()
	if err := twin.Close(); err != nil {
		t.Fatal(err)
	}
	if again := open(t, Options{Dir: copied}); again.Site() != before {
		t.Fatal("the site id changed at a restart")
	}
}

// A database that was set back in place takes a new site id when another
// machine shows later versions of it, loses nothing that was written on either
// side, and agrees in the end.
func TestDatabaseSetBack(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, Options{Dir: dir}), open(t, Options{})
	put(t, a, project(1))
	if err := a.Close(); err != nil { // also folds the log into the database
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	a = open(t, Options{Dir: dir})
	put(t, a, project(2))
	put(t, a, project(3))
	pull(t, b, a)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, databaseName), content, 0o600); err != nil {
		t.Fatal(err)
	}
	restored := open(t, Options{Dir: dir})
	put(t, restored, project(4)) // as version 2 of the old site, which means project 2 to b
	before := restored.Site()
	bad := crdt.Batch{Marks: b.Known()}
	if _, err := restored.Merge(t.Context(), bad); !errors.Is(err, ErrSiteReused) {
		t.Fatal(err)
	}
	changed, err := restored.Reseat(t.Context(), Version{Site: before, Seq: b.Known().Head(before)})
	if err != nil || !changed || restored.Site() == before {
		t.Fatal(changed, err)
	}
	if changed, err := restored.Reseat(t.Context(), Version{Site: before, Seq: 99}); changed || err != nil {
		t.Fatal(changed, err)
	}
	pull(t, restored, b)
	pull(t, b, restored)
	if len(b.State().Projects) != 4 || digest(t, b) != digest(t, restored) {
		t.Fatalf("%v\n%v", b.State().Projects, restored.State().Projects)
	}
}

// cluster is a model test: stores that write, pull from one another and are
// closed and opened at random agree once all have pulled from all, and hold
// what the last write of each row says where one side alone wrote it.
func TestStoresConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const size = 3
		dirs, stores := [size]string{}, [size]*Store{}
		start := func(i int) {
			s, err := Open(testContext, Options{Dir: dirs[i]})
			if err != nil {
				rt.Fatal(err)
			}
			stores[i] = s
		}
		for i := range size {
			dirs[i] = tempDir(rt)
			start(i)
		}
		defer func() {
			for i := range size {
				_ = stores[i].Close()
				_ = os.RemoveAll(dirs[i])
			}
		}()
		acknowledged := crdt.Known{}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			i := rapid.IntRange(0, size-1).Draw(rt, "store")
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				if from := stores[rapid.IntRange(0, size-1).Draw(rt, "from")]; from != stores[i] {
					pull(rt, stores[i], from)
				}
			case 1:
				before := stores[i].State()
				if err := stores[i].Close(); err != nil {
					rt.Fatal(err)
				}
				start(i)
				if now := stores[i].State(); len(now.Projects) != len(before.Projects) {
					rt.Fatal("a restart changed the state")
				}
			default:
				acknowledged = acknowledged.Union(crdt.Knows(write(rt, stores[i])))
			}
			checkBooks(rt, stores[i])
		}
		for range 2 {
			for i := range size {
				pull(rt, stores[i], stores[(i+1)%size])
				pull(rt, stores[i], stores[(i+2)%size])
			}
		}
		for i, s := range stores {
			if !s.Known().Equal(stores[0].Known()) || mustDigest(rt, s) != mustDigest(rt, stores[0]) {
				rt.Fatalf("store %d differs", i)
			}
			if !s.Known().CoversAll(acknowledged) || s.Status().Missing > 0 {
				rt.Fatalf("store %d lost a write", i)
			}
		}
	})
}

func write(t *rapid.T, s *Store) Version {
	key := rapid.SampledFrom([]string{"p", "q"}).Draw(t, "key")
	v, err := s.Update(testContext, func(tx *Tx) error {
		if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
			tx.Delete("projects", key)
		} else {
			tx.Put(spec.Project{ID: key, Name: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// checkBooks asserts what must hold of the bookkeeping after every step.
func checkBooks(t *rapid.T, s *Store) {
	onDisk, err := s.file.readKnown(s.file.w)
	if err != nil || !onDisk.Equal(s.Known()) {
		t.Fatalf("memory knows %v, the disk %v, %v", s.Known(), onDisk, err)
	}
	all, err := s.Snapshot(testContext)
	if err != nil {
		t.Fatal(err)
	}
	pointers := 0
	for _, row := range all.Rows {
		for _, v := range row.Writers {
			pointers++
			if !onDisk.Covers(v) {
				t.Fatalf("%s %s points to %v, which is not known", row.Table, row.Key, v)
			}
		}
	}
	if n, err := s.file.w.number("SELECT count(*) FROM _version"); err != nil || int(n) != pointers {
		t.Fatalf("%d lines of versions for %d pointers, %v", n, pointers, err)
	}
}

func mustDigest(t fataler, s *Store) string {
	d, err := s.Digest(testContext)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func tempDir(t fataler) string {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
