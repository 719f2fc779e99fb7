package store

import (
	"database/sql/driver"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// filesOf is what an outsider sees of the store's files.
func filesOf(t testing.TB, s *Store) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(s.file.lock.Name()))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, e.Name(), info.Size(), info.ModTime())
	}
	return b.String()
}

// readingTimes lists the files of the store that keep the time of reading,
// though the file system could do without.
func readingTimes(t testing.TB, s *Store) string {
	t.Helper()
	dir := filepath.Dir(s.file.lock.Name())
	flags := func(path string) (int, error) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	}
	if on, err := flags(dir); err != nil || on&noAtime == 0 {
		return "" // such a file system
	}
	var kept []string
	for _, name := range []string{databaseName, databaseName + "-wal"} {
		if on, err := flags(filepath.Join(dir, name)); err != nil || on&noAtime == 0 {
			kept = append(kept, name)
		}
	}
	return strings.Join(kept, ", ")
}

func TestOnlyOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, Options{Dir: dir})
	if _, err := Open(t.Context(), Options{Dir: dir}); faults.CodeOf(err) != faults.Conflict {
		t.Fatal(err)
	}
}

func TestGuardsAgainstForeignWrites(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	put(t, s, project(1))
	foreign, err := openConn(filepath.Join(dir, databaseName), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.close()
	for _, sql := range []string{
		"UPDATE projects SET name = 'x'", "DELETE FROM projects",
		"INSERT OR REPLACE INTO projects (id, _record) VALUES ('prj_1', x'')",
	} {
		for who, c := range map[string]*conn{"another program": foreign, "the store outside of a transaction": s.file.w} {
			if err := c.script(sql); err == nil {
				t.Errorf("%s may %s", who, sql)
			}
		}
	}
	for name := range s.file.tables {
		n, err := s.file.w.number("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?", name)
		if err != nil || n != 3 {
			t.Errorf("table %s has %d guards, %v", name, n, err)
		}
	}
}

// Replicated tables have nothing that two replicas can each satisfy and a
// merge cannot.
func TestNoConstraintsOnReplicatedTables(t *testing.T) {
	s := open(t, Options{})
	for name := range s.file.tables {
		err := s.file.w.query("SELECT origin FROM pragma_index_list(?)", []any{name}, func(row []driver.Value) error {
			if row[0].(string) == "u" {
				t.Errorf("table %s has a unique constraint", name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := s.file.w.number("SELECT count(*) FROM pragma_foreign_key_list(?)", name); n != 0 || err != nil {
			t.Errorf("table %s has %d foreign keys, %v", name, n, err)
		}
	}
}

func TestDiskFull(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	put(t, s, project(1))
	pages, err := s.file.w.number("PRAGMA page_count")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.file.w.script(fmt.Sprintf("PRAGMA max_page_count = %d", pages+2)); err != nil {
		t.Fatal(err)
	}
	before := digest(t, s)
	big := spec.Event{ID: "evt_1", Text: strings.Repeat("x", 100_000)}
	if _, err := s.Update(t.Context(), func(tx *Tx) error { tx.Put(big, project(2)); return nil }); faults.CodeOf(err) != faults.DiskFull {
		t.Fatal(err)
	}
	if digest(t, s) != before || len(s.State().Events)+len(s.State().Projects) != 1 {
		t.Fatal("a failed commit left something behind")
	}
	if err := s.file.w.script("PRAGMA max_page_count = 1000000"); err != nil {
		t.Fatal(err)
	}
	if v := put(t, s, big); v.Seq != 2 {
		t.Fatalf("version %v after room was made", v)
	}
}

func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, databaseName), []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Options{Dir: dir})
	if f := faults.Of(err); f == nil || f.Hint == "" {
		t.Fatalf("%v", err)
	}
}

// A local commit waits for the disk, also right after a merge, which does not.
func TestWhichCommitsAreSynced(t *testing.T) {
	s, other := open(t, Options{Dir: t.TempDir()}), open(t, Options{})
	put(t, other, project(1))
	mode := func() int64 {
		n, err := s.file.w.number("PRAGMA synchronous")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const normal, full = 1, 2
	put(t, s, project(2))
	if mode() != full {
		t.Error("a local commit was not synced")
	}
	pull(t, s, other)
	if mode() != normal {
		t.Error("a merge was synced")
	}
	put(t, s, project(3))
	if mode() != full {
		t.Error("a local commit after a merge was not synced")
	}
}

func scriptNames() []string {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		panic(err)
	}
	return names
}

// newer is the schema of an agent to come: one more column and one more table.
func newer(extra string) fstest.MapFS {
	scripts := fstest.MapFS{}
	for _, name := range scriptNames() {
		data, err := migrations.ReadFile(name)
		if err != nil {
			panic(err)
		}
		scripts[name] = &fstest.MapFile{Data: data}
	}
	scripts["migrations/9999_more.sql"] = &fstest.MapFile{Data: []byte(`ALTER TABLE projects ADD COLUMN owner ANY;
			CREATE TABLE gadgets (id TEXT PRIMARY KEY NOT NULL, size ANY, _record BLOB NOT NULL) STRICT, WITHOUT ROWID;` + extra)}
	return scripts
}

func rawRow(table, key string, by crdt.SiteID, cells ...crdt.Assignment) crdt.Row {
	r, _ := crdt.Record{}.Put(cells, 1<<20, by)
	return crdt.Row{Table: table, Key: key, Record: r, Writers: []Version{{Site: by, Seq: 1}}}
}

// What a newer agent writes is kept, passed on, and moves into place with the
// upgrade, which itself is no change of anything.
func TestRowsOfANewerAgent(t *testing.T) {
	dir, site := t.TempDir(), crdt.SiteID{15: 9}
	batch := crdt.Batch{Marks: crdt.Knows(Version{Site: site, Seq: 1}), Rows: []crdt.Row{
		rawRow("projects", "prj_1", site, crdt.Assignment{Column: "name", Value: crdt.Text("a")}, crdt.Assignment{Column: "owner", Value: crdt.Text("me")}),
		rawRow("gadgets", "g1", site, crdt.Assignment{Column: "size", Value: crdt.Real(2.5)}),
	}}
	old := open(t, Options{Dir: dir})
	if _, err := old.Merge(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got := old.State().Projects["prj_1"].Name; got != "a" {
		t.Fatalf("name %q", got)
	}
	put(t, old, spec.Project{ID: "prj_1", Name: "b"}) // keeps the owner
	other := open(t, Options{})
	pull(t, other, old)
	want, known := digest(t, old), old.Known()
	if digest(t, other) != want {
		t.Fatal("not all was passed on")
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}

	upgraded := open(t, Options{Dir: dir, schema: newer("")})
	if digest(t, upgraded) != want || !upgraded.Known().Equal(known) {
		t.Fatal("the upgrade changed rows")
	}
	for sql, want := range map[string]crdt.Value{
		"SELECT owner FROM projects WHERE id = 'prj_1'": crdt.Text("me"),
		"SELECT size FROM gadgets WHERE id = 'g1'":      crdt.Real(2.5),
		"SELECT count(*) FROM _shelf":                   crdt.Integer(0),
	} {
		err := upgraded.file.w.query(sql, nil, func(row []driver.Value) error {
			if got := fromSQL(row[0]); got != want {
				t.Errorf("%s: %v", sql, got)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if err := upgraded.Close(); err != nil {
		t.Fatal(err)
	}

	// The host is rolled back: the older agent works on with the newer file.
	again := open(t, Options{Dir: dir})
	put(t, again, spec.Project{ID: "prj_1", Name: "c"})
	row, _, err := again.file.load(again.file.w, "projects", "prj_1")
	if err != nil {
		t.Fatal(err)
	}
	if owner, _ := row.Record.Find("owner"); owner.Value != crdt.Text("me") || again.State().Projects["prj_1"].Name != "c" {
		t.Fatalf("%+v", row)
	}
}

func TestSchemaThatThisAgentMustNotTouch(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, schema: newer(fmt.Sprintf("UPDATE _meta SET value = %d WHERE key = 'min_reader';", len(scriptNames())+1))})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Dir: dir}); faults.CodeOf(err) != faults.Conflict {
		t.Fatal(err)
	}
}

// A row that cannot be read is left out of State, but merged, counted and
// mended by the next write.
func TestUnreadableRow(t *testing.T) {
	s, site := open(t, Options{Dir: t.TempDir()}), crdt.SiteID{15: 9}
	_, err := s.Merge(t.Context(), crdt.Batch{Marks: crdt.Knows(Version{Site: site, Seq: 1}), Rows: []crdt.Row{
		rawRow("services", "svc_1", site, crdt.Assignment{Column: "replicas", Value: crdt.Text("many")}),
		rawRow("services", "svc_2", site, crdt.Assignment{Column: "replicas", Value: crdt.Integer(2)}),
		rawRow("cluster", "other", site, crdt.Assignment{Column: "domain", Value: crdt.Text("x")}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if st := s.Status(); st.Unreadable != 2 || st.Rows != 3 || len(s.State().Services) != 1 {
		t.Fatalf("%+v", st)
	}
	put(t, s, spec.Service{ID: "svc_1", Replicas: 4})
	remove(t, s, "cluster", "other")
	if st := s.Status(); st.Unreadable != 0 || st.Rows != 2 || st.Deleted != 1 || s.State().Services["svc_1"].Replicas != 4 {
		t.Fatalf("%+v", st)
	}
}

// The file is at most 2.5 times as large as that of a plain table.
func TestSizeOnDisk(t *testing.T) {
	const rows = 20_000
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	plain, err := openConn(filepath.Join(dir, "plain.db"), writerSetup+"CREATE TABLE t (id TEXT PRIMARY KEY, a, b, c, d)", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.close()
	var all []spec.Row
	err = plain.within("BEGIN", func() error {
		for i := range rows {
			row := spec.Event{ID: fmt.Sprintf("evt_%013d", i), Machine: "mch_abcdefghijklm", Kind: "rollout.failed", Subject: "svc_abcdefghijklm", Text: "some text"}
			all = append(all, row)
			if err := plain.exec("INSERT INTO t VALUES (?, ?, ?, ?, ?)", row.ID, row.Machine, row.Kind, row.Subject, row.Text); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, all...)
	pages := func(c *conn) int64 {
		n, err := c.number("PRAGMA page_count")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got, control := pages(s.file.w), pages(plain); float64(got) > 2.5*float64(control) {
		t.Errorf("%d pages, the plain table takes %d", got, control)
	} else {
		t.Logf("%d pages, the plain table takes %d", got, control)
	}
}

// The first agents made everything in one script. Their files open as they are.
func TestFileOfTheFirstAgents(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	put(t, s, project(1))
	before := digest(t, s)
	if err := s.file.w.script(`DROP TABLE _quarantine; DROP TABLE upgrades; DROP TABLE turns;
		ALTER TABLE machines DROP COLUMN system; ALTER TABLE machines DROP COLUMN nixos; ALTER TABLE tickets DROP COLUMN notes; PRAGMA user_version = 1`); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, Options{Dir: dir})
	if digest(t, again) != before || again.Site() != s.Site() {
		t.Fatal("the upgrade changed something")
	}
	put(t, again, project(2))
	checked(t, again)
}

// An attempt on a store that this process has open leaves SQLite's locks on the
// file: another program that opened it then could write beside the store.
func TestLocksOutliveAnAttempt(t *testing.T) {
	dir := t.TempDir()
	put(t, open(t, Options{Dir: dir}), project(1))
	f, err := os.Open(filepath.Join(dir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // it would drop them as well
	locked := func() bool {
		l := unix.Flock_t{Type: unix.F_WRLCK}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
			t.Skip("locks cannot be asked for:", err)
		}
		return l.Type != unix.F_UNLCK
	}
	if !locked() {
		t.Fatal("an open store has no lock on its file")
	}
	if err := Restore(t.Context(), dir, "none"); faults.CodeOf(err) != faults.Conflict {
		t.Error(err)
	}
	if !locked() {
		t.Error("the locks are gone")
	}
}
