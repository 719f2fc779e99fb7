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
	c, err := openConn(filepath.Join(b.TempDir(), "plain.db"), writerSetup+"CREATE TABLE t (id TEXT PRIMARY KEY, machine, kind, subject, text)", nil)
	if err != nil {
		b.Fatal(err)
	}
	defer c.close()
	n := 0
	for b.Loop() {
		err := c.within("BEGIN IMMEDIATE", func() error {
			for range size {
				n++
				if err := c.exec("INSERT INTO t VALUES (?, ?, ?, ?, ?)", fmt.Sprintf("evt_%013d", n), "mch_abcdefgh", "kind", "subject", "some text"); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

const benchSchema = "CREATE TABLE t (id TEXT PRIMARY KEY, machine, kind, subject, text)"

func benchStore(b *testing.B, size int) {
	s := open(b, Options{Dir: b.TempDir(), Schema: benchSchema})
	n := 0
	for b.Loop() {
		alter(b, s, func(tx *Tx) {
			for range size {
				n++
				putSample(tx, n)
			}
		})
	}
}

func putSample(tx *Tx, n int) {
	tx.PutValues("t", Values{"id": crdt.Text(fmt.Sprintf("evt_%013d", n))}, Values{
		"machine": crdt.Text("mch_abcdefgh"), "kind": crdt.Text("kind"), "subject": crdt.Text("subject"), "text": crdt.Text("some text"),
	})
}

// BenchmarkMerge merges 20,000 new rows in batches of 40; its control is
// BenchmarkInsert/plain with transactions of 40 rows.
func BenchmarkMerge(b *testing.B) {
	const rows, each = 20_000, 40
	from := open(b, Options{Schema: benchSchema})
	var batches []crdt.Batch
	from.OnCommit(func(c Commit) { batches = append(batches, c.Batch) })
	for n := 0; n < rows; n += each {
		alter(b, from, func(tx *Tx) {
			for i := range each {
				putSample(tx, n+i)
			}
		})
	}
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
