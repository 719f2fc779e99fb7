package store

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uncloud/internal/faults"
)

// FuzzBackupInfo lays any description beside a backup. It is taken if it says
// what the file is, and a store that it is refused for is what it was.
func FuzzBackupInfo(f *testing.F) {
	sum, size, err := checksumOf(f, "a backup")
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(BackupInfo{SHA256: sum, Bytes: size, Schema: 4})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(good))
	f.Add(strings.ToUpper(string(good)))
	f.Add(string(good) + string(good))
	f.Add(`{"sha256": "` + sum + `"}`)
	f.Add(`{"sha256": "` + sum + `", "bytes": 8, "bytes": 7}`)
	f.Add(`{"bytes": 8e0, "createdAt": "2026-03-01T12:00:00Z"}`)
	f.Add(`{"schema": "4"}`)
	f.Add(`null`)
	f.Add(``)
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		backup, place := filepath.Join(dir, "backup"), filepath.Join(dir, "copy")
		if os.WriteFile(backup, []byte("a backup"), 0o600) != nil || os.WriteFile(backup+infoSuffix, []byte(text), 0o600) != nil {
			t.Fatal("the backup cannot be written")
		}
		err := verifiedCopy(place, backup)
		var info BackupInfo
		fits := json.Unmarshal([]byte(text), &info) == nil && info.SHA256 == sum && info.Bytes == size
		switch {
		case fits != (err == nil):
			t.Fatalf("it fits: %t, and %v", fits, err)
		case err != nil && (faults.CodeOf(err) != faults.Invalid || faults.Of(err).Hint == ""):
			t.Fatalf("refused without a word what to do: %v", err)
		case err == nil:
			if got, err := os.ReadFile(place); err != nil || string(got) != "a backup" {
				t.Fatalf("%q %v", got, err)
			}
		}
	})
}

func checksumOf(f *testing.F, content string) (string, int64, error) {
	path := filepath.Join(f.TempDir(), "content")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return "", 0, err
	}
	return checksum(path)
}
