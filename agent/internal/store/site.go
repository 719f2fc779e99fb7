package store

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"uncloud/agent/internal/crdt"
)

// ensureOwn gives the database a site id of its own. A new one is drawn when
// there is none, and when the file is not the one that the id was drawn for: a
// copy that was put back, or that came from another machine, has the versions
// of its site up to a point and must not give the later numbers again. The old
// site is then one like any other. Moving the file costs a site id as well,
// which harms nothing.
//
// This does not see that a whole disk was set back; see Reseat.
func (f *file) ensureOwn(path string, random io.Reader) error {
	now, err := fileIdentity(path)
	if err != nil {
		return fmt.Errorf("identify %s: %w", path, err)
	}
	was, err := f.w.text("SELECT value FROM _meta WHERE key = 'file'")
	if err != nil || !f.self.IsZero() && was == now {
		return err
	}
	site, err := crdt.NewSiteID(random)
	if err != nil {
		return err
	}
	err = f.write(false, func(c *conn) error {
		const set = "INSERT INTO _meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
		return errors.Join(c.exec(set, "site", site[:]), c.exec(set, "file", now))
	})
	if err == nil {
		f.self = site
	}
	return err
}

// fileIdentity is the file's inode and the time it was made, since numbers of
// inodes are given again. It is empty for a database in memory.
func fileIdentity(path string) (string, error) {
	if isMemory(path) {
		return "", nil
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %d.%09d", st.Ino, st.Btime.Sec, st.Btime.Nsec), nil
}

// text runs a query for one text, empty where there is no row.
func (c *conn) text(sql string) (s string, err error) {
	err = c.query(sql, nil, func(row []driver.Value) error {
		s, _ = row[0].(string)
		return nil
	})
	return s, err
}
