package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// A backup is one point between two commits, though writers go on.
func TestBackupWhileWriting(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for n := 1; ; n++ {
			_, err := s.Update(testContext, func(tx *Tx) error {
				tx.Put(spec.Service{ID: "a", Replicas: n}, spec.Service{ID: "b", Replicas: n})
				return nil
			})
			select {
			case <-stop:
				done <- err
				return
			default:
				if err != nil {
					done <- err
					return
				}
			}
		}
	}()
	for range 5 {
		before := s.Known()
		path := filepath.Join(t.TempDir(), "backup")
		info, err := s.Backup(t.Context(), path)
		if err != nil || info.Bytes == 0 {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := Restore(t.Context(), dir, path); err != nil {
			t.Fatal(err)
		}
		restored := open(t, Options{Dir: dir})
		st := restored.State().Services
		if st["a"].Replicas != st["b"].Replicas || !restored.Known().CoversAll(before) || restored.Site() == s.Site() {
			t.Fatalf("%v, knows %v of %v", st, restored.Known(), before)
		}
		checked(t, restored)
		if err := restored.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestRestoreInPlace(t *testing.T) {
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "backup")
	s, peer := open(t, Options{Dir: dir}), open(t, Options{})
	put(t, s, project(1))
	if _, err := s.Backup(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Backup(t.Context(), path); faults.CodeOf(err) != faults.Conflict {
		t.Error("a backup was overwritten:", err)
	}
	if err := Restore(t.Context(), dir, path); faults.CodeOf(err) != faults.Conflict {
		t.Error("restored under an open store:", err)
	}
	put(t, s, project(2))
	pull(t, peer, s)
	put(t, s, project(3)) // nobody else has it
	before := s.Site()
	closed(t, s, dir)
	if err := Restore(t.Context(), dir, path); err != nil {
		t.Fatal(err)
	}
	restored := open(t, Options{Dir: dir})
	put(t, restored, project(4))
	pull(t, peer, restored)
	pull(t, restored, peer)
	if got := restored.State().Projects; len(got) != 3 || restored.Site() == before || digest(t, peer) != digest(t, restored) {
		t.Fatalf("%v", got)
	}
	checked(t, restored)
	again := restored.Site()
	closed(t, restored, dir)
	if open(t, Options{Dir: dir}).Site() != again {
		t.Error("the site changed once more")
	}
	kept := t.TempDir()
	if err := os.Rename(filepath.Join(dir, databaseName+".replaced"), filepath.Join(kept, databaseName)); err != nil {
		t.Fatal(err)
	}
	if got := open(t, Options{Dir: kept}).State().Projects; len(got) != 3 || got["prj_3"] != project(3) {
		t.Errorf("the replaced database has %v", got)
	}
}

// A backup that is not whole is refused, and leaves what was there.
func TestRestoreRefusesWhatIsNotTheBackup(t *testing.T) {
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "backup")
	s := open(t, Options{Dir: dir})
	put(t, s, project(1))
	if _, err := s.Backup(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, project(2))
	closed(t, s, dir)
	content[len(content)/2] ^= 1
	for name, spoil := range map[string]func() error{
		"a flipped bit":  func() error { return os.WriteFile(path, content, 0o600) },
		"torn":           func() error { return os.Truncate(path, int64(len(content)/2)) },
		"no description": func() error { return os.Remove(path + infoSuffix) },
		"no file":        func() error { return os.Remove(path) },
	} {
		if err := spoil(); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := Restore(t.Context(), dir, path); faults.CodeOf(err) != faults.Invalid && name != "no file" || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := open(t, Options{Dir: dir}).State().Projects; len(got) != 2 {
		t.Errorf("left %v", got)
	}
}
