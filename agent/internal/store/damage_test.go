package store

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// A log that is torn anywhere, or has a bad byte, costs at most the commits
// from there on; what is left is whole, and goes on under versions of its own.
func TestTornLog(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	for round := range 12 {
		dir, peer := t.TempDir(), open(t, Options{})
		s := open(t, Options{Dir: dir, boot: "first"})
		for n := range 20 {
			put(t, s, spec.Service{ID: "a", Replicas: n + 1}, spec.Service{ID: "b", Replicas: n + 1})
		}
		pull(t, peer, s)
		log, err := os.ReadFile(s.file.path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(s.file.path)
		if err != nil {
			t.Fatal(err)
		}
		closed(t, s, dir)
		setBack(t, dir, content)
		cut := random.Intn(len(log))
		if round%2 == 0 {
			log = log[:cut]
		} else {
			log[cut] ^= 0x55
		}
		if err := os.WriteFile(filepath.Join(dir, databaseName+"-wal"), log, 0o600); err != nil {
			t.Fatal(err)
		}
		torn := open(t, Options{Dir: dir, boot: "second"})
		st := torn.State().Services
		if st["a"].Replicas != st["b"].Replicas {
			t.Errorf("cut at %d: half a commit: %v", cut, st)
		}
		checked(t, torn)
		put(t, torn, project(1))
		pull(t, torn, peer)
		pull(t, peer, torn)
		if torn.State().Services["a"].Replicas != 20 || digest(t, torn) != digest(t, peer) {
			t.Errorf("cut at %d: %v after the peer brought the rest", cut, torn.State().Services)
		}
	}
}

// A damaged database is told, with what to do, and never taken for a good one.
func TestDamagedPages(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for n := range 300 {
		put(t, s, spec.Event{ID: fmt.Sprintf("evt_%03d", n), Text: fmt.Sprint("text of ", n)})
	}
	want := digest(t, s)
	content := closed(t, s, dir)
	random, found := rand.New(rand.NewSource(2)), 0
	for range 40 {
		bad := append([]byte(nil), content...)
		at := random.Intn(len(bad) - 600)
		for i := range 500 {
			bad[at+i] = byte(random.Int())
		}
		setBack(t, dir, bad)
		again, err := Open(t.Context(), Options{Dir: dir})
		if err != nil {
			if faults.CodeOf(err) == faults.Internal && faults.Of(err).Hint == "" {
				t.Errorf("damage at %d: no hint: %v", at, err)
			}
			found++
			continue
		}
		r, err := again.Check(t.Context())
		d, err2 := again.Digest(t.Context())
		if err != nil || err2 != nil || len(r.Problems) > 0 {
			found++
		} else if d != want {
			t.Errorf("damage at %d changed rows and went unnoticed", at)
		}
		_ = again.Close()
	}
	if found < 10 { // the others hit what is unused
		t.Errorf("only %d of 40 damages were found", found)
	}
}

func TestFileRemovedUnderTheStore(t *testing.T) {
	for _, name := range []string{databaseName, databaseName + "-wal"} {
		dir := t.TempDir()
		s := open(t, Options{Dir: dir})
		put(t, s, project(1))
		aside := filepath.Join(t.TempDir(), "aside")
		if err := os.Rename(filepath.Join(dir, name), aside); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Update(t.Context(), func(tx *Tx) error { tx.Put(project(2)); return nil }); faults.CodeOf(err) != faults.Internal || faults.Of(err).Hint == "" {
			t.Fatalf("%s removed: %v", name, err)
		}
		if len(s.State().Projects) != 1 || s.Known().Head(s.Site()) != 1 {
			t.Error("a refused write is visible")
		}
		if err := os.Rename(aside, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		put(t, s, project(2))
		checked(t, s)
	}
}

// A machine whose clock is decades wrong, either way, writes, wins where it has
// seen what it overwrites, and is reported by the others.
func TestClockDecadesWrong(t *testing.T) {
	right := open(t, Options{Clock: func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }})
	for _, year := range []int{1969, 1970, 2090} {
		wrong := open(t, Options{Clock: func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }})
		put(t, right, spec.Project{ID: "prj_1", Name: fmt.Sprint("before ", year)})
		pull(t, wrong, right)
		put(t, wrong, spec.Project{ID: "prj_1", Name: fmt.Sprint("in ", year)})
		pull(t, right, wrong)
		if got := right.State().Projects["prj_1"].Name; got != fmt.Sprint("in ", year) {
			t.Errorf("%q", got)
		}
		put(t, right, spec.Project{ID: "prj_1", Name: fmt.Sprint("after ", year)})
		pull(t, wrong, right)
		if got := wrong.State().Projects["prj_1"].Name; got != fmt.Sprint("after ", year) || digest(t, wrong) != digest(t, right) {
			t.Errorf("%q", got)
		}
		if skewed := right.Status().ClockSkewed; skewed != (year == 2090) {
			t.Errorf("%d: skewed %v", year, skewed)
		}
	}
}

// A batch under our own site id, of versions that are not here, is never taken.
func TestPeerWithOurSite(t *testing.T) {
	s := open(t, Options{})
	put(t, s, project(1))
	row := rawRow("projects", "prj_1", s.Site(), crdt.Assignment{Column: "name", Value: crdt.Text("forged")})
	if _, err := s.Merge(t.Context(), crdt.Batch{Rows: []crdt.Row{row}, Marks: crdt.Knows(Version{Site: s.Site(), Seq: 2})}); !errors.Is(err, ErrSiteReused) {
		t.Error(err)
	}
	if s.State().Projects["prj_1"] != project(1) {
		t.Error("the row was taken")
	}
}
