package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"uncloud/internal/faults"
)

// BackupInfo is what lies beside a backup, as PATH.json.
type BackupInfo struct {
	SHA256    string    `json:"sha256"`
	Bytes     int64     `json:"bytes"`
	Schema    int       `json:"schema"` // number of the schema, as the store counts them
	CreatedAt time.Time `json:"createdAt"`
}

const infoSuffix = ".json"

// Backup writes a copy of the database to path, as it is between two commits,
// while others write. The copy has no site: whoever opens it writes under a new
// one. It fails with faults.Conflict if path exists. A backup that was broken
// off leaves no file at path.
func (s *Store) Backup(ctx context.Context, path string) (BackupInfo, error) {
	if _, err := os.Lstat(path); err == nil {
		return BackupInfo{}, faults.New(faults.Conflict, "there is a file at %s", path).WithHint("name a file that does not exist")
	}
	info, err := s.backup(ctx, path)
	if err != nil {
		return info, fmt.Errorf("back up to %s: %w", path, asFault(err))
	}
	return info, nil
}

func (s *Store) backup(ctx context.Context, path string) (info BackupInfo, err error) {
	partial := path + ".partial"
	defer func() { err = errors.Join(err, removeIfThere(partial)) }()
	if err := removeIfThere(partial); err != nil {
		return info, err
	}
	if err := s.copyTo(ctx, partial); err != nil {
		return info, err
	}
	if info, err = strip(partial); err != nil {
		return info, err
	}
	info.CreatedAt = s.clock().UTC()
	text, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return info, err
	}
	if err := writeSynced(path+infoSuffix, text); err != nil {
		return info, err
	}
	if err := os.Rename(partial, path); err != nil {
		return info, err
	}
	return info, syncDir(filepath.Dir(path))
}

// copyTo copies the database on a connection of its own, which sees one point
// between two commits and keeps nobody waiting.
func (s *Store) copyTo(ctx context.Context, path string) error {
	if s.isClosed() {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := openConn(s.file.path, "PRAGMA busy_timeout = 10000", nil)
	if err != nil {
		return err
	}
	return errors.Join(c.exec("VACUUM INTO ?", path), c.close())
}

// strip takes the site out of a copy, and measures it.
func strip(path string) (info BackupInfo, err error) {
	c, err := openConn(path, "PRAGMA synchronous = FULL", nil)
	if err != nil {
		return info, err
	}
	version, err := c.number("PRAGMA user_version")
	err = errors.Join(err, c.script("DELETE FROM _meta WHERE key IN ('site', 'file', 'boot')"), c.close())
	if err != nil {
		return info, err
	}
	info.Schema = int(version)
	info.SHA256, info.Bytes, err = checksum(path)
	return info, err
}

func checksum(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close() //nolint:errcheck // read only
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Restore puts a backup in place of the database in dir, which no process may
// have open. The store then writes under a new site id, brings what the backup
// has to the machines that it meets, and gets what they have. The database that
// was there is kept beside it, with the suffix .replaced. It fails with
// faults.Invalid if the backup is not what was written, with faults.Conflict
// while the store is open, and leaves everything as it was if it fails.
func Restore(ctx context.Context, dir, backup string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f := &file{}
	path, err := f.locate(dir)
	if err == nil {
		err = restore(path, backup)
	}
	return errors.Join(err, f.close())
}

func restore(path, backup string) error {
	partial := path + ".partial"
	if err := removeIfThere(partial); err != nil {
		return err
	}
	if err := verifiedCopy(partial, backup); err != nil {
		return errors.Join(err, removeIfThere(partial))
	}
	return replaceDatabase(path, partial)
}

// verifiedCopy copies a backup and makes sure of what it has copied.
func verifiedCopy(to, backup string) error {
	text, err := os.ReadFile(backup + infoSuffix)
	if err != nil {
		return faults.New(faults.Invalid, "%s has no description beside it, so it cannot be verified", backup).
			WithHint("copy %s%s along with it", backup, infoSuffix).Because(err)
	}
	var info BackupInfo
	if err := json.Unmarshal(text, &info); err != nil {
		return faults.New(faults.Invalid, "the description of %s cannot be read", backup).
			WithHint("copy %s%s along with it once more", backup, infoSuffix).Because(err)
	}
	if err := copyFile(to, backup); err != nil {
		return asFault(fmt.Errorf("copy %s: %w", backup, err))
	}
	sum, size, err := checksum(to)
	if err != nil {
		return err
	}
	if sum != info.SHA256 || size != info.Bytes {
		return faults.New(faults.Invalid, "%s is not what was written: it is damaged or another file", backup).
			WithHint("use another backup")
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// replaceDatabase puts the closed database next in place of the one at path.
// The old one's log is folded in first: a log without its database, or beside
// another, would be worse than either.
func replaceDatabase(path, next string) error {
	kept := path + ".replaced"
	if _, err := os.Lstat(path); err == nil {
		if err := foldLog(path); err != nil {
			return fmt.Errorf("close the present database: %w", err)
		}
		if err := errors.Join(removeIfThere(kept), os.Link(path, kept)); err != nil {
			return err
		}
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// foldLog writes the log into the database and removes it. The log of a
// database that is damaged is kept aside.
func foldLog(path string) error {
	if c, err := openConn(path, "PRAGMA busy_timeout = 10000; PRAGMA wal_checkpoint(TRUNCATE)", nil); err == nil {
		_ = c.close() // if this failed, the log is still there
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if _, there := os.Lstat(path + suffix); there == nil {
			if err := os.Rename(path+suffix, path+".replaced"+suffix); err != nil {
				return err
			}
		}
	}
	return nil
}
