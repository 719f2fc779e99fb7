package store

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"uncloud/agent/internal/crdt"
)

const modelSchema = "CREATE TABLE t (id TEXT PRIMARY KEY, v)"

// machine is a store on a disk, beside a model of what it must hold.
type machine struct {
	t       *rapid.T
	options Options
	s       *Store
	model   map[string]int64
	sites   map[crdt.SiteID]uint64 // the newest version that was acknowledged
}

func (m *machine) start() {
	s, err := Open(testContext, m.options)
	if err != nil {
		m.t.Fatal(err)
	}
	m.s = s
}

func (m *machine) stop() {
	if err := m.s.Close(); err != nil {
		m.t.Fatal(err)
	}
}

// draw makes some changes to a transaction and to a copy of the model.
func (m *machine) draw() (func(tx *Tx) error, map[string]int64) {
	next := maps.Clone(m.model)
	var ops []func(tx *Tx)
	for range rapid.IntRange(1, 4).Draw(m.t, "operations") {
		id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(m.t, "key")
		key, n := Values{"id": crdt.Text(id)}, rapid.Int64Range(0, 3).Draw(m.t, "value")
		_, there := next[id]
		switch op := rapid.SampledFrom([]string{"put", "patch", "delete"}).Draw(m.t, "operation"); {
		case op == "delete":
			ops = append(ops, func(tx *Tx) { tx.DeleteKey("t", key) })
			delete(next, id)
		case op == "patch" && there:
			ops = append(ops, func(tx *Tx) { tx.PatchValues("t", key, Values{"v": crdt.Integer(n)}) })
			next[id] = n
		default:
			ops = append(ops, func(tx *Tx) { tx.PutValues("t", key, Values{"v": crdt.Integer(n)}) })
			next[id] = n
		}
	}
	return func(tx *Tx) error {
		for _, op := range ops {
			op(tx)
		}
		return nil
	}, next
}

// write commits. A version is never given twice.
func (m *machine) write() {
	do, next := m.draw()
	v, err := m.s.Update(testContext, do)
	if err != nil {
		m.t.Fatal(err)
	}
	if !maps.Equal(next, m.model) && v.Seq <= m.sites[v.Site] {
		m.t.Fatalf("version %v was given again", v)
	}
	m.sites[v.Site] = max(v.Seq, m.sites[v.Site])
	m.model = next
}

// crash loses all that is not on disk, just before a commit or just after.
func (m *machine) crash(before bool) {
	var image map[string][]byte
	if before {
		do, _ := m.draw()
		abort := errors.New("the power goes")
		if _, err := m.s.Update(testContext, func(tx *Tx) error {
			if err := do(tx); err != nil {
				return err
			}
			edits, err := m.s.edits(tx)
			if err != nil {
				return err
			}
			head := m.s.head()
			_, err = m.s.write(false, func(c *conn, changes []change) error {
				err := m.s.file.saveAll(c, changes)
				image = m.files()
				return errors.Join(abort, err)
			}, func(*conn) (outcome, error) { return m.s.stamp(edits, Version{Site: head.Site, Seq: head.Seq + 1}) })
			return err
		}); !errors.Is(err, abort) {
			m.t.Fatal(err)
		}
	} else {
		m.write()
		image = m.files()
	}
	m.stop()
	m.setDisk(image)
	m.start()
}

// setDisk puts contents in place of those of the same files.
func (m *machine) setDisk(image map[string][]byte) {
	for name, content := range image {
		if err := os.WriteFile(filepath.Join(m.options.Dir, name), content, 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *machine) files() map[string][]byte {
	out := map[string][]byte{}
	for _, name := range []string{databaseName, databaseName + "-wal"} {
		content, err := os.ReadFile(filepath.Join(m.options.Dir, name))
		if err != nil {
			m.t.Fatal(err)
		}
		out[name] = content
	}
	return out
}

// check compares the store with the model and with itself.
func (m *machine) check() {
	rows, err := m.s.Rows(testContext, "t")
	if err != nil {
		m.t.Fatal(err)
	}
	got := map[string]int64{}
	for _, r := range rows {
		got[r["id"].Str()] = r["v"].Int()
	}
	if !maps.Equal(got, m.model) {
		m.t.Fatalf("holds %v, the model %v", got, m.model)
	}
	checked(m.t, m.s)
}

// meet exchanges everything with a peer. The model follows: what a merge gives
// is the business of other tests, that both agree is the business of this one.
func (m *machine) meet(peer *Store) {
	pull(m.t, peer, m.s)
	pull(m.t, m.s, peer)
	pull(m.t, peer, m.s)
	if mustDigest(m.t, peer) != mustDigest(m.t, m.s) {
		m.t.Fatal("two that met do not agree")
	}
	rows, err := m.s.Rows(testContext, "t")
	if err != nil {
		m.t.Fatal(err)
	}
	m.model = map[string]int64{}
	for _, r := range rows {
		m.model[r["id"].Str()] = r["v"].Int()
	}
}

// A store does what a map does, through restarts, crashes before and after a
// commit, backups and restores, and disks that are set back; nothing that a
// peer has ever seen is missing in the end.
func TestStoreAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := tempDir(rt)
		defer os.RemoveAll(dir) //nolint:errcheck // of a test
		peer, err := Open(testContext, Options{Schema: modelSchema})
		if err != nil {
			rt.Fatal(err)
		}
		defer peer.Close() //nolint:errcheck // in memory
		o := Options{Dir: filepath.Join(dir, "store"), Schema: modelSchema}
		if rapid.Bool().Draw(rt, "witness") {
			o.Witness = filepath.Join(dir, "memory")
		}
		m := &machine{t: rt, options: o, model: map[string]int64{}, sites: map[crdt.SiteID]uint64{}}
		m.start()
		defer func() { _ = m.s.Close() }()
		m.run(peer, dir)
		m.meet(peer)
		if !m.s.Known().Equal(peer.Known()) || m.s.Status().Missing > 0 {
			rt.Fatalf("knows %v, the peer %v", m.s.Known(), peer.Known())
		}
	})
}

func (m *machine) run(peer *Store, dir string) {
	var backups []past
	for i := range rapid.IntRange(1, 15).Draw(m.t, "steps") {
		step := rapid.SampledFrom([]string{"write", "write", "restart", "crash before", "crash after", "backup", "restore", "set back", "meet"}).Draw(m.t, "step")
		switch {
		case step == "restart":
			m.stop()
			m.start()
		case step == "crash before", step == "crash after":
			m.crash(step == "crash before")
		case step == "backup":
			path := filepath.Join(dir, fmt.Sprint("backup", i))
			if _, err := m.s.Backup(testContext, path); err != nil {
				m.t.Fatal(err)
			}
			backups = append(backups, past{path, m.files(), maps.Clone(m.model)})
		case step == "meet":
			m.meet(peer)
		case step == "write" || len(backups) == 0:
			m.write()
		default:
			m.goBack(step, rapid.SampledFrom(backups).Draw(m.t, "past"), i)
		}
		m.check()
	}
}

// past is a machine as it was: a backup, the files of its disk, and its model.
type past struct {
	backup string
	disk   map[string][]byte
	model  map[string]int64
}

// goBack restores a backup, or sets the disk back. That happens between boots,
// or to a running machine that has a witness.
func (m *machine) goBack(how string, to past, n int) {
	site := m.s.Site()
	m.stop()
	switch how {
	case "restore":
		if err := Restore(testContext, m.options.Dir, to.backup); err != nil {
			m.t.Fatal(err)
		}
	default:
		m.setDisk(to.disk)
		if m.options.Witness == "" || rapid.Bool().Draw(m.t, "boot") {
			m.options.boot = fmt.Sprint("boot ", n)
		}
	}
	m.start()
	m.model = maps.Clone(to.model)
	if how == "restore" && m.s.Site() == site {
		m.t.Fatal("restored, and kept its site")
	}
}
