package atomicfile

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAFailedReplaceLeavesTheOldFile and nothing beside it.
func TestAFailedReplaceLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, text := range []string{"old", "new"} {
		must(t, Replace(path, []byte(text), 0o640))
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o640 {
		t.Error(info.Mode())
	}
	blocked := filepath.Join(dir, "folder")
	must(t, os.MkdirAll(filepath.Join(blocked, "x"), 0o700))
	if err := Replace(blocked, []byte("new"), 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if err := Replace(filepath.Join(dir, "none", "file"), nil, 0o600); err == nil {
		t.Error("a folder was made")
	}
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

// TestTwoWritersDoNotMix: each has a file of its own until it is whole.
func TestTwoWritersDoNotMix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var writers sync.WaitGroup
	for _, letter := range []string{"a", "b"} {
		writers.Go(func() {
			for n := range 20 {
				if err := Replace(path, bytes.Repeat([]byte(letter), 1+n*1000), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	got, err := os.ReadFile(path)
	must(t, err)
	if len(got) != 19001 || len(bytes.Trim(got, string(got[:1]))) > 0 {
		t.Errorf("%d bytes, and they are of both", len(got))
	}
}
