package store

import (
	"testing"

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
