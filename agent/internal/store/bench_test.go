package store

import (
	"fmt"
	"path/filepath"
	"testing"

	"uncloud/internal/spec"
)

// The control of these benchmarks is the same insert into a plain table with
// the same setup: go test -bench Insert.
func BenchmarkInsert(b *testing.B) {
	for _, size := range []int{1, 10, 1000} {
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

func benchStore(b *testing.B, size int) {
	s := open(b, Options{Dir: b.TempDir()})
	var seq uint64
	n := 0
	for b.Loop() {
		seq++
		edits := make([]edit, size)
		for i := range edits {
			n++
			row := spec.Event{ID: fmt.Sprintf("evt_%013d", n), Machine: "mch_abcdefgh", Kind: "kind", Subject: "subject", Text: "some text"}
			set, err := typedTables["events"].encode(row)
			if err != nil {
				b.Fatal(err)
			}
			edits[i] = edit{id: rowID{"events", row.ID}, set: set}
		}
		next := Version{Site: s.Site(), Seq: seq}
		if _, err := s.write(false, func(*conn) (outcome, error) { return s.stamp(edits, next) }); err != nil {
			b.Fatal(err)
		}
	}
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
