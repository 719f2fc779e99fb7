package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// smallDisk is a file system of a few megabytes.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("small", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("needs a file system that can be filled: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillUp writes until nothing more fits, and gives the file's path.
func fillUp(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "fill")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// On a disk that is full, what was acknowledged stays, all else is refused and
// said, and when somebody made room the same store goes on.
func TestAFullDiskIsSaidAndPasses(t *testing.T) {
	disk := smallDisk(t)
	dir := filepath.Join(disk, "store")
	s, other := open(t, Options{Dir: dir}), open(t, Options{})
	put(t, s, project(1))
	theirs := put(t, other, project(2), spec.Event{ID: "evt_2", Text: strings.Repeat("y", 100_000)})
	batch, err := other.Export(t.Context(), theirs.Site, 1, theirs.Seq, 1000)
	if err != nil {
		t.Fatal(err)
	}
	filled := fillUp(t, disk)
	if s.Status().DiskFull {
		t.Error("nothing was refused yet")
	}
	acknowledged, refused := 1, error(nil)
	for refused == nil {
		text := strings.Repeat("x", 1000)
		_, refused = s.Update(t.Context(), func(tx *Tx) error {
			tx.Put(project(10+acknowledged), spec.Event{ID: "evt_1", Text: text})
			return nil
		})
		if refused == nil {
			acknowledged++
		}
	}
	full := func(s *Store, err error) {
		t.Helper()
		f := faults.Of(err)
		if f == nil || f.Code != faults.DiskFull || f.Hint == "" || err.Error() != f.Sentence {
			t.Fatalf("refused with %v", err)
		}
		if !s.Status().DiskFull {
			t.Error("the status does not say so")
		}
	}
	full(s, refused)
	_, err = s.Merge(t.Context(), batch)
	full(s, err)
	before := digest(t, s)

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Dir: dir})
	if n := len(s.State().Projects); n != acknowledged || digest(t, s) != before {
		t.Fatalf("%d of %d acknowledged projects are there", n, acknowledged)
	}
	fillUp(t, disk) // what the log took
	_, err = s.Merge(t.Context(), batch)
	full(s, err)

	if err := os.Remove(filled); err != nil {
		t.Fatal(err)
	}
	if s.Status().DiskFull {
		t.Error("there is room, and the status does not say so")
	}
	if _, err := s.Merge(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	put(t, s, project(3))
	if n := len(s.State().Projects); n != acknowledged+2 {
		t.Fatalf("%d projects, %d were acknowledged and 2 came since", n, acknowledged)
	}
}
