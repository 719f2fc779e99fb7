package store

import (
	"testing"
	"testing/fstest"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// A row that its table refuses neither stops a merge nor is lost: it is kept,
// counted, passed on, and put in its place once the table takes it.
func TestRowThatItsTableRefuses(t *testing.T) {
	picky := newer(`CREATE TRIGGER picky BEFORE INSERT ON projects WHEN NEW.name = 'bad' BEGIN SELECT RAISE(ABORT, 'bad name'); END;`)
	dir, site := t.TempDir(), crdt.SiteID{15: 9}
	s := open(t, Options{Dir: dir, schema: picky})
	put(t, s, spec.Project{ID: "prj_2", Name: "good"})
	named := func(id, name string) crdt.Row {
		return rawRow("projects", id, site, crdt.Assignment{Column: "name", Value: crdt.Text(name)}, crdt.Assignment{Column: "new column", Value: crdt.Integer(1)})
	}
	bad := named("prj_2", "bad")
	bad.Record.CL = 3
	batch := crdt.Batch{Marks: crdt.Knows(Version{Site: site, Seq: 1}), Rows: []crdt.Row{named("prj_0", "fine"), named("prj_1", "bad"), bad, rawRow("gadgets", "g", site)}}
	if _, err := s.Merge(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	list, err := s.Quarantine(t.Context())
	if err != nil || len(list) != 2 || list[0].Key != "prj_1" || s.Status().Quarantined != 2 || s.Status().Rows != 4 {
		t.Fatalf("%v %v %+v", list, err, s.Status())
	}
	if _, err := s.Update(t.Context(), func(tx *Tx) error { tx.Put(spec.Project{ID: "prj_3", Name: "bad"}); return nil }); faults.CodeOf(err) != faults.Invalid {
		t.Error("a local write that does not fit:", err)
	}
	checked(t, s)
	other := open(t, Options{})
	pull(t, other, s)
	if digest(t, other) != digest(t, s) || len(other.State().Projects) != 3 {
		t.Error("the row was not passed on")
	}
	put(t, s, spec.Project{ID: "prj_1", Name: "mended"})
	if n := s.Status().Quarantined; n != 1 {
		t.Errorf("%d in quarantine after one was mended", n)
	}
	want := digest(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	picky["migrations/9999_patient.sql"] = &fstest.MapFile{Data: []byte("DROP TRIGGER picky;")}
	again := open(t, Options{Dir: dir, schema: picky})
	if again.Status().Quarantined != 0 || digest(t, again) != want {
		t.Errorf("%+v after the schema changed", again.Status())
	}
	checked(t, again)
}
