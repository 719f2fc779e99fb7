package store

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
)

const (
	memoryPrefix = "file:/store-"
	databaseName = "state.db"
	lockName     = "lock"
	// readerCount bounds the readers of exports and digests. State needs none.
	readerCount = 3
)

// Setup of connections. FULL syncs the log at each commit; see DESIGN.md,
// "What a commit promises".
const (
	writerSetup = `PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000;
		PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -4000; PRAGMA temp_store = MEMORY;`
	readerSetup = `PRAGMA query_only = ON; PRAGMA busy_timeout = 10000; PRAGMA cache_size = -1000;`
)

// file is the open database: one writing connection and a few reading ones,
// with what is kept of it in memory. All but the readers is used under the
// store's writer lock.
type file struct {
	path    string
	w       *conn
	readers chan *conn // idle ones
	opened  int        // readers, idle or not
	lock    *os.File
	witness *witness

	identity identity // of the file at path, as it was opened
	log      string   // its write-ahead log

	dict   dict
	tables map[string]*shape
	self   crdt.SiteID
	known  crdt.Known

	writing     bool // within a store transaction: the guard triggers let writes pass
	quarantined bool // there is a row in the quarantine
	lazy        bool // the last transaction was not synced at its commit

	full atomic.Bool // the last transaction found no space on the disk
}

// openFile opens or creates the database in o.Dir; an empty one is memory. The
// migrations are applied where they have not been yet.
func openFile(o Options, tables []Table, random io.Reader) (f *file, err error) {
	f = &file{readers: make(chan *conn, readerCount)}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	path, err := f.locate(o.Dir)
	if err != nil {
		return f, err
	}
	f.path = path
	if f.w, err = openConn(path, writerSetup+passTable, f.registerGuard); err != nil {
		return f, asFault(fmt.Errorf("open %s: %w", path, err))
	}
	if err := f.migrate(o.schema); err != nil {
		return f, err
	}
	if err := f.extend(tables); err != nil {
		return f, err
	}
	now, err := originOf(path, o.boot, o.Witness)
	if err != nil {
		return f, err
	}
	f.witness = now.witness
	if err := f.remember(); err != nil {
		return f, err
	}
	if err := f.ensureOwn(now, random); err != nil {
		return f, err
	}
	for range readerCount {
		r, err := openConn(path, readerSetup, nil)
		if err != nil {
			return f, fmt.Errorf("open a reader of %s: %w", path, err)
		}
		f.readers <- r
		f.opened++
	}
	return f, syncDir(o.Dir)
}

func (f *file) locate(dir string) (string, error) {
	if dir == "" {
		return fmt.Sprintf("%s%p?vfs=memdb", memoryPrefix, f), nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the store's folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", fmt.Errorf("open the store's lock: %w", err)
	}
	f.lock = lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return "", faults.New(faults.Conflict, "another process uses the store in %s", dir).
			WithHint("see which: fuser -v %s/*; the agent is stopped with: systemctl stop uncloud", dir).Because(err)
	}
	// Not before: to close a file of a database that this process has open would
	// drop SQLite's locks on it.
	withoutAtime(dir)
	return filepath.Join(dir, databaseName), nil
}

func isMemory(path string) bool { return strings.HasPrefix(path, memoryPrefix) }

// syncDir makes the names of new files durable; SQLite syncs only what is in them.
func syncDir(dir string) error {
	if dir == "" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// close waits for reads that are under way.
func (f *file) close() error {
	var errs []error
	for range f.opened {
		errs = append(errs, (<-f.readers).close())
	}
	if f.w != nil {
		errs = append(errs, f.w.close())
	}
	errs = append(errs, f.witness.close())
	if f.lock != nil {
		errs = append(errs, f.lock.Close())
	}
	return errors.Join(errs...)
}

// registerGuard gives the triggers on replicated tables what they ask. On a
// connection without the function any write to such a table fails.
func (f *file) registerGuard(c *sqlite3.SQLiteConn) error {
	return c.RegisterFunc(guardFunction, func() bool { return f.writing }, false)
}

// write runs one store transaction. With lazy the log is not synced: such a
// commit is in order with all others, but a power cut may take it back.
func (f *file) write(lazy bool, do func(*conn) error) error {
	if err := f.stillThere(); err != nil {
		return err
	}
	if lazy != f.lazy {
		mode := "FULL"
		if lazy {
			mode = "NORMAL"
		}
		if err := f.w.script("PRAGMA synchronous = " + mode); err != nil {
			return err
		}
		f.lazy = lazy
	}
	err := f.w.within("BEGIN IMMEDIATE", func() error {
		f.writing = true
		defer func() { f.writing = false }()
		return do(f.w)
	})
	if err != nil {
		// Memory follows the tables, whatever became of the transaction.
		err = errors.Join(asFault(err), f.reload())
	}
	f.full.Store(faults.CodeOf(err) == faults.DiskFull)
	return err
}

// leastRoom is the free space at which a disk is no longer called full: many
// times what a change takes.
const leastRoom = 1 << 20

// roomAgain tells whether the disk of a file has room. Nothing may be written
// for long after somebody made some, and then only the disk can tell.
func roomAgain(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) != nil || fs.Bavail*uint64(fs.Bsize) >= leastRoom //nolint:gosec // a block's size is positive
}

// reload reads what is kept in memory, without the rows.
func (f *file) reload() error {
	if err := f.dict.load(f.w); err != nil {
		return fmt.Errorf("read the dictionary: %w", err)
	}
	known, err := f.readKnown(f.w)
	if err != nil {
		return fmt.Errorf("read the known versions: %w", err)
	}
	f.known = known
	if _, err := f.countQuarantine(); err != nil {
		return fmt.Errorf("read the quarantine: %w", err)
	}
	return f.w.query("SELECT value FROM _meta WHERE key = 'site'", nil, func(row []driver.Value) error {
		copy(f.self[:], row[0].([]byte))
		return nil
	})
}

func (f *file) readKnown(c *conn) (crdt.Known, error) {
	known := crdt.Known{}
	err := c.query("SELECT site, first, last FROM _known ORDER BY site, first", nil, func(row []driver.Value) error {
		site, ok := f.dict.SiteAt(uint64(row[0].(int64)))
		if !ok {
			return fmt.Errorf("site %d has no id", row[0])
		}
		known[site] = append(known[site], crdt.Range{First: uint64(row[1].(int64)), Last: uint64(row[2].(int64))})
		return nil
	})
	return known, err
}

// saveKnown writes the difference between the known versions and next. The
// caller sets known once the transaction is committed.
func (f *file) saveKnown(c *conn, next crdt.Known) error {
	for site := range f.known {
		if len(next[site]) == 0 {
			if err := c.exec("DELETE FROM _known WHERE site = ?", int64(f.dict.Site(site))); err != nil {
				return err
			}
		}
	}
	for site, ranges := range next {
		if err := f.saveRanges(c, int64(f.dict.Site(site)), f.known[site], ranges); err != nil {
			return err
		}
	}
	return f.dict.flush(c)
}

func (f *file) saveRanges(c *conn, site int64, old, next crdt.Ranges) error {
	starts := func(s crdt.Ranges, first uint64) bool {
		return slices.ContainsFunc(s, func(r crdt.Range) bool { return r.First == first })
	}
	for _, r := range old {
		if !starts(next, r.First) {
			if err := c.exec("DELETE FROM _known WHERE site = ? AND first = ?", site, int64(r.First)); err != nil {
				return err
			}
		}
	}
	for _, r := range next {
		if slices.Contains(old, r) {
			continue
		}
		if err := c.exec("INSERT INTO _known (site, first, last) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last = excluded.last", site, int64(r.First), int64(r.Last)); err != nil {
			return err
		}
	}
	return nil
}

// asFault turns what a person can mend into a fault.
func asFault(err error) error {
	if _, told := errors.AsType[*faults.Fault](err); told {
		return err
	}
	e, ok := errors.AsType[sqlite3.Error](err)
	switch {
	case errors.Is(err, crdt.ErrCorrupt):
		return damaged(err)
	case !ok:
		return err
	case e.Code == sqlite3.ErrFull || e.SystemErrno == syscall.ENOSPC:
		return faults.New(faults.DiskFull, "no space left for the replicated state").
			WithHint("free some space on this machine, then try again").Because(err)
	case e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB:
		return damaged(err)
	}
	return err
}

func damaged(err error) error {
	return faults.New(faults.Internal, "the database of the replicated state is damaged").
		WithHint("take the store of another machine: uc store reseed; where the agent does not start: uncloudd restore FILE, with what uc store backup FILE wrote on another machine or earlier").Because(err)
}

// remember notes which files are open, for stillThere.
func (f *file) remember() (err error) {
	if isMemory(f.path) {
		return nil
	}
	f.log = f.path + "-wal"
	f.identity, err = identify(f.path)
	return err
}

// stillThere tells whether the path still leads to the files that are open.
// SQLite would go on writing to files that were removed, and what is
// acknowledged then would be gone with the process.
func (f *file) stillThere() error {
	if isMemory(f.path) {
		return nil
	}
	now, err := identify(f.path)
	if err == nil && now == f.identity {
		_, err = identify(f.log)
	}
	if err != nil || now != f.identity {
		return faults.New(faults.Internal, "the database of the replicated state was removed or replaced while the agent runs").
			WithHint("put %s back, or start the agent anew: the other machines bring the state back", f.path).Because(err)
	}
	return nil
}
