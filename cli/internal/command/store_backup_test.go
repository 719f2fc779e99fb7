package command

import (
	"os"
	"path/filepath"
	"testing"

	"uncloud/internal/faults"
)

// FuzzBackupInfo reads any description of a backup. What is taken says which
// file it is of, and is the same when it is written and read again.
func FuzzBackupInfo(f *testing.F) {
	f.Add([]byte(`{"sha256": "5f1c", "bytes": 16, "schema": 4, "createdAt": "2026-03-01T12:00:00Z", "cluster": "cls_a", "machine": "m1"}`))
	f.Add([]byte(`{"SHA256": "5f1c", "createdAt": "9999-12-31T23:59:59.999999999+14:00"}`))
	f.Add([]byte(`{"sha256": "\ud800", "machine": "\u0000"}`))
	f.Add([]byte(`{"sha256": ""}`))
	f.Add([]byte(`{"bytes": 1e99}`))
	f.Add([]byte(`null`))
	f.Add([]byte(``))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(dir, "backup")
		if err := os.WriteFile(path+infoSuffix, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		about, err := readInfo(path)
		if err != nil {
			if faults.CodeOf(err) != faults.Invalid || faults.Of(err).Hint == "" {
				t.Fatalf("refused without a word what to do: %v", err)
			}
			return
		}
		if err := writeInfo(path+infoSuffix, about); err != nil {
			t.Fatalf("%+v cannot be written: %v", about, err)
		}
		again, err := readInfo(path)
		if err != nil || about.SHA256 == "" || !again.CreatedAt.Equal(about.CreatedAt) {
			t.Fatalf("%+v became %+v, %v", about, again, err)
		}
		if again.CreatedAt = about.CreatedAt; again != about {
			t.Fatalf("%+v became %+v", about, again)
		}
	})
}
