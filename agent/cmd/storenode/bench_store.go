package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/store"
)

// benchSchema is also the shape of the plain table, which has no record.
const benchSchema = "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, machine ANY, kind ANY, subject ANY, text ANY) STRICT, WITHOUT ROWID"

// plain is SQLite without any of this repository: a table of the same shape,
// with the same setup of its connection, used through the driver itself.
type plain struct {
	db            *sql.DB
	conn          *sql.Conn
	insert        driver.Stmt
	begin, commit driver.Stmt
	path          string
}

func openPlain(ctx context.Context, dir, synchronous string) (p *plain, err error) {
	p = &plain{path: filepath.Join(dir, "plain.db")}
	if p.db, err = sql.Open("sqlite3", p.path); err != nil {
		return nil, err
	}
	if p.conn, err = p.db.Conn(ctx); err != nil {
		return nil, errors.Join(err, p.db.Close())
	}
	setup := "PRAGMA journal_mode = WAL; PRAGMA synchronous = " + synchronous + "; PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -4000;" + benchSchema
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

func (p *plain) write(ctx context.Context, from, rows int) error {
	run := func(s driver.Stmt, args ...driver.NamedValue) error {
		_, err := s.(driver.StmtExecContext).ExecContext(ctx, args)
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

func (b *bench) insert(ctx context.Context) error {
	for _, c := range []struct {
		rows, count int
		most        float64
	}{{1, 400, 2.5}, {10, 200, 2.0}, {1000, 20, 3.0}} {
		var plains, stores []time.Duration
		err := b.each(func(dir string) error {
			took, err := b.plainInsert(ctx, dir, c.count, c.rows)
			if err != nil {
				return err
			}
			plains = append(plains, took)
			took, err = b.storeInsert(ctx, dir, c.count, c.rows)
			stores = append(stores, took)
			return err
		})
		if err != nil {
			return err
		}
		ratio := float64(median(stores)) / float64(median(plains))
		b.show(fmt.Sprintf("insert, %d rows a transaction", c.rows), brief(median(plains)), brief(median(stores)),
			fmt.Sprintf("%.2fx", ratio), fmt.Sprintf("<= %.1fx", c.most), ratio <= c.most)
	}
	return nil
}

func (b *bench) plainInsert(ctx context.Context, dir string, count, rows int) (took time.Duration, err error) {
	p, err := openPlain(ctx, dir, "FULL")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	return times(count, rows, func(from int) error { return p.write(ctx, from, rows) })
}

func (b *bench) storeInsert(ctx context.Context, dir string, count, rows int) (took time.Duration, err error) {
	s, err := store.Open(ctx, store.Options{Dir: filepath.Join(dir, "store"), Schema: benchSchema})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return times(count, rows, func(from int) error { return putRows(ctx, s, from, rows) })
}

const sizeRows = 20_000

func (b *bench) size(ctx context.Context) error {
	var plains, stores []int64
	err := b.each(func(dir string) error {
		if _, err := b.plainInsert(ctx, dir, sizeRows/100, 100); err != nil {
			return err
		}
		if _, err := b.storeInsert(ctx, dir, sizeRows/100, 100); err != nil {
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
	var plains, stores []float64
	rate := func(took time.Duration) float64 { return mergeBatch / took.Seconds() }
	err = b.each(func(dir string) (err error) {
		// What is merged is not waited for on disk; nor is the control.
		p, err := openPlain(ctx, dir, "NORMAL")
		if err != nil {
			return err
		}
		took, err := times(mergeRows/mergeBatch, mergeBatch, func(from int) error { return p.write(ctx, from, mergeBatch) })
		if err := errors.Join(err, p.close()); err != nil {
			return err
		}
		plains = append(plains, rate(took))
		s, err := store.Open(ctx, store.Options{Dir: filepath.Join(dir, "store"), Schema: benchSchema})
		if err != nil {
			return err
		}
		took, err = times(len(batches), 1, func(i int) error {
			_, err := s.Merge(ctx, batches[i])
			return err
		})
		stores = append(stores, rate(took))
		return errors.Join(err, s.Close())
	})
	if err != nil {
		return err
	}
	ratio := median(stores) / median(plains)
	b.show("merge of 20,000 new rows, 40 a batch", fmt.Sprintf("%.0f rows/s", median(plains)), fmt.Sprintf("%.0f rows/s", median(stores)),
		fmt.Sprintf("%.2fx", ratio), ">= 0.40x", ratio >= 0.4)
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
