package store

import (
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"uncloud/agent/internal/crdt"
)

// origin is what must be unchanged for a site to go on giving versions. Each
// part catches another way in which the file can have become an old one:
//
//	file     a copy that was put in place, or that came from another machine
//	boot     a disk that was set back while the machine was off
//	witness  a disk that was set back while it ran
//
// See DESIGN.md, "Whose numbers are they".
type origin struct {
	file    string
	boot    string
	witness *witness
}

// ensureOwn gives the database a site id of its own: a new one when there is
// none, and when the file may lack versions that the site has given. The old
// site is then one like any other. A new id that was not needed harms nothing.
func (f *file) ensureOwn(now origin, random io.Reader) error {
	was, err := f.meta("file", "boot")
	if err != nil {
		return err
	}
	head := f.known.Head(f.self)
	if !f.self.IsZero() && was["file"] == now.file && was["boot"] == now.boot && now.witness.vouches(f.self, head) {
		return nil
	}
	site, err := crdt.NewSiteID(random)
	if err != nil {
		return err
	}
	// The witness speaks for the new site before the file does: if the file
	// does not get that far, it draws another.
	if err := now.witness.note(site, 0); err != nil {
		return err
	}
	err = f.write(false, func(c *conn) error {
		return errors.Join(c.setMeta("site", site[:]), c.setMeta("file", now.file), c.setMeta("boot", now.boot))
	})
	if err == nil {
		f.self = site
	}
	return err
}

// meta reads some texts of the file's own.
func (f *file) meta(keys ...string) (map[string]string, error) {
	out := map[string]string{}
	for _, key := range keys {
		err := f.w.query("SELECT value FROM _meta WHERE key = ?", []any{key}, func(row []driver.Value) error {
			out[key], _ = row[0].(string)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (c *conn) setMeta(key string, value any) error {
	return c.exec("INSERT INTO _meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", key, value)
}

// originOf is the origin of the database at path, as things are now.
func originOf(path, boot, witnessDir string) (origin, error) {
	if isMemory(path) {
		return origin{}, nil
	}
	now, err := identify(path)
	if err != nil {
		return origin{}, fmt.Errorf("identify %s: %w", path, err)
	}
	id := now.String()
	if boot == "" {
		boot = bootID()
	}
	w, err := openWitness(witnessDir, id)
	return origin{file: id, boot: boot, witness: w}, err
}

// identity is a file's inode and the time it was made, since numbers of inodes
// are given again.
type identity struct {
	inode uint64
	made  unix.StatxTimestamp
}

func identify(path string) (identity, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &st)
	return identity{st.Ino, st.Btime}, err
}

// String is the form in which the file itself remembers it.
func (id identity) String() string {
	return fmt.Sprintf("%d %d.%09d", id.inode, id.made.Sec, id.made.Nsec)
}

// bootID names the run of the kernel. Where it cannot be read every start
// counts as a boot of its own, which costs site ids and is never wrong.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Sprint("start ", os.Getpid(), " ", unixNow())
	}
	return strings.TrimSpace(string(b))
}

func unixNow() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_REALTIME, &ts) // cannot fail for this clock
	return ts.Nano()
}

// witness is a small file in memory that remembers the newest version of this
// site. It does not go back when the disk does, and is gone after a boot. A
// nil witness is none.
type witness struct{ f *os.File }

func openWitness(dir, identity string) (*witness, error) {
	if dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the store's witness: %w", err)
	}
	name := strings.ReplaceAll(identity, " ", "-") + ".witness"
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the store's witness: %w", err)
	}
	return &witness{f}, nil
}

const witnessBytes = 24

// vouches tells whether the witness has seen no version of the site after head.
func (w *witness) vouches(site crdt.SiteID, head uint64) bool {
	if w == nil {
		return true
	}
	var b [witnessBytes]byte
	if _, err := w.f.ReadAt(b[:], 0); err != nil {
		return false
	}
	return crdt.SiteID(b[:16]) == site && binary.BigEndian.Uint64(b[16:]) <= head
}

// note remembers a version. It is called before anyone else can see it.
func (w *witness) note(site crdt.SiteID, head uint64) error {
	if w == nil {
		return nil
	}
	b := binary.BigEndian.AppendUint64(site[:], head)
	if _, err := w.f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("write the store's witness: %w", err)
	}
	return nil
}

func (w *witness) close() error {
	if w == nil {
		return nil
	}
	return w.f.Close()
}
