package store

import (
	"fmt"
	"path/filepath"
	"testing"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/spec"
)

// The control of these benchmarks is the same insert into a plain table with
// the same setup: go test -bench Insert.
func BenchmarkInsert(b *testing.B) {
	for _, size := range []int{1, 10, 40, 1000} {
		b.Run(fmt.Sprintf("plain/%d", size), func(b *testing.B) { benchPlain(b, size) })
		b.Run(fmt.Sprintf("store/%d", size), func(b *testing.B) { benchStore(b, size) })
	}
}

func benchPlain(b *testing.B, size int) {
	c := plainTable(b, "FULL")
	n := 0
	for b.Loop() {
		insertPlain(b, c, n, size)
		n += size
	}
}

func benchStore(b *testing.B, size int) {
	s := open(b, Options{Dir: b.TempDir(), Schema: benchSchema})
	n := 0
	for b.Loop() {
		putSamples(b, s, n, size)
		n += size
	}
}

// benchSchema is of the store and of the plain table that it is compared with,
// which has no record and no guards.
const benchSchema = "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, machine ANY, kind ANY, subject ANY, text ANY) STRICT, WITHOUT ROWID"

func sample(n int) [5]string {
	return [5]string{fmt.Sprintf("evt_%013d", n), "mch_abcdefgh", "container", "rep_0123456789", "the container was started and is healthy"}
}

// plainTable is the control: the same setup, the same shape.
func plainTable(t testing.TB, synchronous string) *conn {
	c, err := openConn(filepath.Join(t.TempDir(), "plain.db"), writerSetup+"PRAGMA synchronous = "+synchronous+";"+benchSchema, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return c
}

func insertPlain(t testing.TB, c *conn, first, rows int) {
	err := c.within("BEGIN IMMEDIATE", func() error {
		for i := range rows {
			r := sample(first + i)
			if err := c.exec("INSERT INTO t VALUES (?, ?, ?, ?, ?)", r[0], r[1], r[2], r[3], r[4]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func putSamples(t testing.TB, s *Store, first, rows int) {
	alter(t, s, func(tx *Tx) {
		for i := range rows {
			r := sample(first + i)
			tx.PutValues("t", Values{"id": crdt.Text(r[0])}, Values{
				"machine": crdt.Text(r[1]), "kind": crdt.Text(r[2]), "subject": crdt.Text(r[3]), "text": crdt.Text(r[4]),
			})
		}
	})
}

// BenchmarkMerge merges 20,000 new rows in batches of 40; its control is
// BenchmarkInsert/plain with transactions of 40 rows.
func BenchmarkMerge(b *testing.B) {
	const rows, each = 20_000, 40
	batches := sampleBatches(b, rows, each)
	for b.Loop() {
		b.StopTimer()
		s := open(b, Options{Dir: b.TempDir(), Schema: benchSchema})
		b.StartTimer()
		for _, batch := range batches {
			if _, err := s.Merge(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// sampleBatches is what another store has written.
func sampleBatches(t testing.TB, rows, each int) (out []crdt.Batch) {
	from := open(t, Options{Schema: benchSchema})
	from.OnCommit(func(c Commit) { out = append(out, c.Batch) })
	for n := 0; n < rows; n += each {
		putSamples(t, from, n, each)
	}
	return out
}

// BenchmarkUpdate is the whole way, with a state of some thousand rows.
func BenchmarkUpdate(b *testing.B) {
	s := open(b, Options{Dir: b.TempDir()})
	rows := make([]spec.Row, 3000)
	for i := range rows {
		rows[i] = project(i)
	}
	put(b, s, rows...)
	n := len(rows)
	for b.Loop() {
		n++
		put(b, s, spec.Project{ID: fmt.Sprint("prj_", n%3000), Name: fmt.Sprint(n)})
	}
}
