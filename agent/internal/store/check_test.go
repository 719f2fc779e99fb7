package store

import (
	"runtime"
	"testing"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// checked asserts that a store finds nothing wrong with itself.
func checked(t fataler, s *Store) Report {
	t.Helper()
	r, err := s.Check(testContext)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Problems) > 0 {
		t.Fatal(r.Problems)
	}
	return r
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	for _, sql := range []string{
		"DELETE FROM _version WHERE key = 'prj_1'",
		"INSERT INTO _version SELECT site, seq + 7, tbl, key FROM _version WHERE key = 'prj_1'",
		"UPDATE _known SET last = 1",
		"UPDATE projects SET name = 'changed behind our back' WHERE id = 'prj_1'",
	} {
		s := open(t, Options{Dir: t.TempDir()})
		put(t, s, project(1))
		put(t, s, project(2))
		remove(t, s, "projects", "prj_2")
		if r := checked(t, s); r.Rows != 1 || r.Tombstones != 1 || r.Pointers != 2 {
			t.Errorf("%+v", r)
		}
		if err := s.file.write(false, func(c *conn) error { return c.script(sql) }); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Check(t.Context()); err != nil || len(r.Problems) == 0 {
			t.Errorf("%s: %+v, %v", sql, r, err)
		}
	}
}

func TestCheckOfEveryTable(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	put(t, s, everyRow()...)
	put(t, s, spec.Project{ID: "full", Name: "again"})
	checked(t, s)
}

// A check of a large database takes long, and nobody waits for it: neither for
// what it reads nor for its turn to read. It compares with what memory held
// when it began.
func TestWritersDoNotWaitForACheck(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	put(t, s, project(1))
	var r Report
	err := s.asOfNow(t.Context(), func() {}, func(c *conn, memory *view) error {
		put(t, s, project(2))
		return s.checkRows(c, &r, memory)
	})
	if err != nil || len(r.Problems) > 0 || r.Rows != 1 {
		t.Error(r, err)
	}
	readers := []*conn{<-s.file.readers, <-s.file.readers, <-s.file.readers}
	checked := make(chan error)
	go func() {
		_, err := s.Check(t.Context())
		checked <- err
	}()
	put(t, s, project(3))
	for _, c := range readers {
		s.file.readers <- c
	}
	if err := <-checked; err != nil {
		t.Error(err)
	}
}

// Who waits for the writer while the store closes is sent away, also with a
// reader in hand, for which Close waits.
func TestCloseWhileACheckBegins(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	<-s.writer
	checked := make(chan error)
	go func() {
		_, err := s.Check(t.Context())
		checked <- err
	}()
	for len(s.file.readers) == readerCount {
		runtime.Gosched()
	}
	go func() { s.writer <- struct{}{} }()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-checked; err != nil && faults.CodeOf(err) != faults.Interrupted {
		t.Error(err)
	}
}
