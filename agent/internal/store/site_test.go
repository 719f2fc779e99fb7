package store

import (
	"os"
	"path/filepath"
	"testing"
)

// setBack puts content in place of a closed store's database, in the same file.
func setBack(t testing.TB, dir string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, databaseName), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func closed(t testing.TB, s *Store, dir string) []byte {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// A whole disk is set back and writes as much as was lost, and more, before it
// meets anyone; those it meets first do not know what was lost. Nothing that
// any of them has is lost, and all agree.
func TestDiskSetBackThatWritesBeforeItMeetsAnyone(t *testing.T) {
	for name, again := range map[string]func(dir, memory string) Options{
		"between boots":         func(dir, _ string) Options { return Options{Dir: dir, boot: "second"} },
		"while the machine ran": func(dir, memory string) Options { return Options{Dir: dir, boot: "first", Witness: memory} },
		"both":                  func(dir, _ string) Options { return Options{Dir: dir, boot: "second", Witness: t.TempDir()} },
	} {
		t.Run(name, func(t *testing.T) {
			dir, memory := t.TempDir(), t.TempDir()
			start := Options{Dir: dir, boot: "first", Witness: memory}
			witness, third := open(t, Options{}), open(t, Options{})
			a := open(t, start)
			put(t, a, project(1))
			content := closed(t, a, dir)
			a = open(t, start)
			put(t, a, project(2))
			put(t, a, project(3))
			pull(t, witness, a)
			closed(t, a, dir)

			setBack(t, dir, content)
			restored := open(t, again(dir, memory))
			for n := 4; n < 8; n++ {
				put(t, restored, project(n))
			}
			pull(t, third, restored)
			pull(t, witness, third)
			pull(t, third, witness)
			pull(t, restored, third)
			for who, s := range map[string]*Store{"third": third, "restored": restored} {
				if len(s.State().Projects) != 7 || digest(t, s) != digest(t, witness) {
					t.Errorf("%s has %d projects, the witness %d", who, len(s.State().Projects), len(witness.State().Projects))
				}
			}
		})
	}
}

// Restarts cost no site id: not a clean one, not one after a crash that lost
// nothing, with and without a witness.
func TestRestartKeepsTheSite(t *testing.T) {
	for _, o := range []Options{{Dir: t.TempDir()}, {Dir: t.TempDir(), Witness: t.TempDir()}} {
		s := open(t, o)
		site := s.Site()
		put(t, s, project(1))
		closed(t, s, o.Dir)
		s = open(t, o)
		put(t, s, project(2))
		closed(t, s, o.Dir)
		if s = open(t, o); s.Site() != site || s.Known().Head(site) != 2 {
			t.Errorf("site %v became %v", site, s.Site())
		}
	}
}
