package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/store"
)

// benchSchema is also the shape of the plain table, which has no record.
const benchSchema = "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, machine ANY, kind ANY, subject ANY, text ANY) STRICT, WITHOUT ROWID"

// plain is SQLite without any of this repository: a table of the same shape,
// with the same setup of its connection as the store's, used through the
// driver itself.
type plain struct {
	db            *sql.DB
	conn          *sql.Conn
	insert        driver.Stmt
	begin, commit driver.Stmt
	path          string
}

func openPlain(ctx context.Context, dir, synchronous string) (p *plain, err error) {
	p = &plain{path: filepath.Join(dir, "plain.db")}
	if p.db, err = sql.Open("sqlite3", p.path+"?vfs=unix-excl&_mutex=no"); err != nil {
		return nil, err
	}
	if p.conn, err = p.db.Conn(ctx); err != nil {
		return nil, errors.Join(err, p.db.Close())
	}
	setup := "PRAGMA journal_mode = WAL; PRAGMA synchronous = " + synchronous + "; PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -4000; PRAGMA temp_store = MEMORY;" + benchSchema
	if _, err := p.conn.ExecContext(ctx, setup); err != nil {
		return nil, errors.Join(err, p.close())
	}
	err = p.conn.Raw(func(c any) error {
		raw := c.(driver.Conn)
		for text, into := range map[string]*driver.Stmt{"BEGIN IMMEDIATE": &p.begin, "COMMIT": &p.commit, "INSERT INTO t VALUES (?, ?, ?, ?, ?)": &p.insert} {
			if *into, err = raw.Prepare(text); err != nil {
				return err
			}
		}
		return nil
	})
	return p, err
}

func (p *plain) close() error {
	for _, s := range []driver.Stmt{p.insert, p.begin, p.commit} {
		if s != nil {
			_ = s.Close() // a statement that failed has said so when it ran
		}
	}
	return errors.Join(p.conn.Close(), p.db.Close())
}

// write inserts rows in one transaction. Its statements cannot be interrupted,
// as those of the store: otherwise each would cost the driver a goroutine.
func (p *plain) write(from, rows int) error {
	run := func(s driver.Stmt, args ...driver.NamedValue) error {
		_, err := s.(driver.StmtExecContext).ExecContext(context.Background(), args)
		return err
	}
	if err := run(p.begin); err != nil {
		return err
	}
	args := make([]driver.NamedValue, 5)
	for i := range rows {
		for j, v := range benchRow(from + i) {
			args[j] = driver.NamedValue{Ordinal: j + 1, Value: v}
		}
		if err := run(p.insert, args...); err != nil {
			return err
		}
	}
	return run(p.commit)
}

func benchRow(n int) [5]string {
	return [5]string{fmt.Sprintf("evt_%013d", n), "mch_abcdefgh", "container", "rep_0123456789", "the container was started and is healthy"}
}

func benchPut(tx *store.Tx, n int) {
	r := benchRow(n)
	tx.PutValues("t", store.Values{"id": crdt.Text(r[0])}, store.Values{
		"machine": crdt.Text(r[1]), "kind": crdt.Text(r[2]), "subject": crdt.Text(r[3]), "text": crdt.Text(r[4]),
	})
}

func putRows(ctx context.Context, s *store.Store, from, rows int) error {
	_, err := s.Update(ctx, func(tx *store.Tx) error {
		for i := range rows {
			benchPut(tx, from+i)
		}
		return nil
	})
	return err
}

// times calls do some times, with the number of the first row of each, and
// gives the mean duration.
func times(count, rows int, do func(from int) error) (time.Duration, error) {
	began := time.Now()
	for i := range count {
		if err := do(i * rows); err != nil {
			return 0, err
		}
	}
	return time.Since(began) / time.Duration(count), nil
}

// spent is what one side of a comparison used.
type spent struct{ wall, cpu time.Duration }

func (s *spent) add(do func() error) error {
	wall, cpu := time.Now(), processorTime()
	err := do()
	s.wall, s.cpu = s.wall+time.Since(wall), s.cpu+processorTime()-cpu
	return err
}

// processorTime is what this process has used so far, its kernel part too.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for this process
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pair is the rounds of a control and of the store, by what was done.
type pair struct{ control, store []spent }

// turns has both do something in turn, so many times, and keeps what the mean
// turn took.
func (p *pair) turns(count int, control, store func(turn int) error) error {
	var c, s spent
	for i := range count {
		if err := errors.Join(c.add(func() error { return control(i) }), s.add(func() error { return store(i) })); err != nil {
			return err
		}
	}
	n := time.Duration(count)
	p.control, p.store = append(p.control, spent{c.wall / n, c.cpu / n}), append(p.store, spent{s.wall / n, s.cpu / n})
	return nil
}

func wall(s spent) time.Duration { return s.wall }
func cpu(s spent) time.Duration  { return s.cpu }

func medianOf(rounds []spent, of func(spent) time.Duration) time.Duration {
	var all []time.Duration
	for _, r := range rounds {
		all = append(all, of(r))
	}
	return median(all)
}

// ratio is the median of how many times the control's time the store took.
func (p *pair) ratio(of func(spent) time.Duration) float64 {
	var all []float64
	for i := range p.store {
		all = append(all, float64(of(p.store[i]))/float64(of(p.control[i])))
	}
	return median(all)
}

// noteCPU shows how much of the times is the processor's, which the speed of
// the disk has no part in.
func (b *bench) noteCPU(p *pair) {
	b.note("  of that, processor", brief(medianOf(p.control, cpu)), brief(medianOf(p.store, cpu)), fmt.Sprintf("%.2fx", p.ratio(cpu)))
}

func (b *bench) insert(ctx context.Context) error {
	for _, c := range []struct {
		rows, count int
		most        float64
	}{{1, 1000, 2.5}, {10, 500, 2.0}, {1000, 40, 3.0}} {
		var p pair
		err := b.each(func(dir string) error {
			return withBoth(ctx, dir, "FULL", func(table *plain, s *store.Store) error {
				return p.turns(c.count,
					func(i int) error { return table.write(i*c.rows, c.rows) },
					func(i int) error { return putRows(ctx, s, i*c.rows, c.rows) })
			})
		})
		if err != nil {
			return err
		}
		b.show(fmt.Sprintf("insert, %d rows a transaction", c.rows), brief(medianOf(p.control, wall)), brief(medianOf(p.store, wall)),
			fmt.Sprintf("%.2fx", p.ratio(wall)), fmt.Sprintf("<= %.1fx", c.most), p.ratio(wall) <= c.most)
		b.noteCPU(&p)
	}
	return nil
}

// withBoth opens a plain table and a store of the same rows.
func withBoth(ctx context.Context, dir, synchronous string, do func(*plain, *store.Store) error) (err error) {
	p, err := openPlain(ctx, dir, synchronous)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	s, err := store.Open(ctx, store.Options{Dir: filepath.Join(dir, "store"), Schema: benchSchema})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(p, s)
}

const sizeRows = 20_000

func (b *bench) size(ctx context.Context) error {
	var plains, stores []int64
	err := b.each(func(dir string) error {
		var filled pair
		err := withBoth(ctx, dir, "NORMAL", func(table *plain, s *store.Store) error {
			return filled.turns(sizeRows/100,
				func(i int) error { return table.write(i*100, 100) },
				func(i int) error { return putRows(ctx, s, i*100, 100) })
		})
		if err != nil {
			return err
		}
		p, err := folderSize(dir, "plain.db*")
		if err != nil {
			return err
		}
		s, err := folderSize(filepath.Join(dir, "store"), "*")
		plains, stores = append(plains, p), append(stores, s)
		return err
	})
	if err != nil {
		return err
	}
	ratio := float64(median(stores)) / float64(median(plains))
	b.show("size on disk of 20,000 rows", fmt.Sprintf("%d kB", median(plains)>>10), fmt.Sprintf("%d kB", median(stores)>>10),
		fmt.Sprintf("%.2fx", ratio), "<= 2.5x", ratio <= 2.5)
	return nil
}

func folderSize(dir, pattern string) (size int64, err error) {
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		st, err := os.Stat(name)
		if err != nil {
			return 0, err
		}
		size += st.Size()
	}
	return size, nil
}

const mergeRows, mergeBatch = 20_000, 40

func (b *bench) merge(ctx context.Context) error {
	batches, err := benchBatches(ctx)
	if err != nil {
		return err
	}
	var p pair
	err = b.each(func(dir string) (err error) {
		// What is merged is not waited for on disk; nor is the control.
		return withBoth(ctx, dir, "NORMAL", func(table *plain, s *store.Store) error {
			return p.turns(len(batches),
				func(i int) error { return table.write(i*mergeBatch, mergeBatch) },
				func(i int) error {
					_, err := s.Merge(ctx, batches[i])
					return err
				})
		})
	})
	if err != nil {
		return err
	}
	rate := func(rounds []spent) string {
		return fmt.Sprintf("%.0f rows/s", mergeBatch/medianOf(rounds, wall).Seconds())
	}
	b.show("merge of 20,000 new rows, 40 a batch", rate(p.control), rate(p.store),
		fmt.Sprintf("%.2fx", 1/p.ratio(wall)), ">= 0.40x", 1/p.ratio(wall) >= 0.4)
	b.noteCPU(&p)
	return nil
}

// benchBatches is what another store has written.
func benchBatches(ctx context.Context) (out []crdt.Batch, err error) {
	s, err := store.Open(ctx, store.Options{Schema: benchSchema})
	if err != nil {
		return nil, err
	}
	s.OnCommit(func(c store.Commit) { out = append(out, c.Batch) })
	_, err = times(mergeRows/mergeBatch, mergeBatch, func(from int) error { return putRows(ctx, s, from, mergeBatch) })
	return out, errors.Join(err, s.Close())
}
