package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"uncloud/agent/internal/crdt"
)

// TestRatios compares the store with a plain table, turn by turn so that what
// else the machine does strikes both. It takes a while and wants a quiet
// machine: STORE_RATIOS=1 go test -run Ratios -v
func TestRatios(t *testing.T) {
	if os.Getenv("STORE_RATIOS") == "" {
		t.Skip("set STORE_RATIOS to measure")
	}
	for _, c := range []struct {
		rows, commits int
		most          float64
	}{{1, 200, 2.5}, {10, 200, 2.0}, {1000, 12, 3.0}} {
		var wall, cpu, best []float64
		for range 5 {
			plain, own := plainTable(t), open(t, Options{Dir: t.TempDir(), Schema: benchSchema})
			var p, o spent
			for n := range c.commits {
				p.add(func() { insertPlain(t, plain, n*c.rows, c.rows) })
				o.add(func() {
					alter(t, own, func(tx *Tx) {
						for i := range c.rows {
							putSample(tx, n*c.rows+i)
						}
					})
				})
			}
			wall, cpu = append(wall, o.wall.Seconds()/p.wall.Seconds()), append(cpu, o.cpu.Seconds()/p.cpu.Seconds())
			best = append(best, o.best.Seconds()/p.best.Seconds())
		}
		t.Logf("insert of %d rows: %.2f x the time of plain, %.2f x the processor, %.2f x by the quietest turns (medians of 5; at most %.1f)",
			c.rows, median(wall), median(cpu), median(best), c.most)
		if median(wall) > c.most {
			t.Errorf("insert of %d rows takes %.2f x", c.rows, median(wall))
		}
	}
	ratioOfMerge(t)
}

func ratioOfMerge(t *testing.T) {
	const rows, each = 20_000, 40
	from := open(t, Options{Schema: benchSchema})
	var batches []crdt.Batch
	from.OnCommit(func(c Commit) { batches = append(batches, c.Batch) })
	for n := 0; n < rows; n += each {
		alter(t, from, func(tx *Tx) {
			for i := range each {
				putSample(tx, n+i)
			}
		})
	}
	var rates, ratios []float64
	for range 5 {
		plain, own := plainTable(t), open(t, Options{Dir: t.TempDir(), Schema: benchSchema})
		var p, o spent
		for n, batch := range batches {
			p.add(func() { insertPlain(t, plain, n*each, each) })
			o.add(func() {
				if _, err := own.Merge(t.Context(), batch); err != nil {
					t.Fatal(err)
				}
			})
		}
		rates, ratios = append(rates, rows/o.wall.Seconds()), append(ratios, p.wall.Seconds()/o.wall.Seconds())
	}
	t.Logf("merge: %.0f rows/s, %.2f of the rate of plain (medians of 5; at least 0.4)", median(rates), median(ratios))
	if median(ratios) < 0.4 {
		t.Errorf("merge at %.2f of the rate of plain", median(ratios))
	}
}

// spent is what was used in all, and by the quietest turn.
type spent struct{ wall, cpu, best time.Duration }

func (s *spent) add(do func()) {
	wall, cpu := time.Now(), processorTime()
	do()
	took := time.Since(wall)
	s.wall, s.cpu = s.wall+took, s.cpu+processorTime()-cpu
	if s.best == 0 || took < s.best {
		s.best = took
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for this process
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(values []float64) float64 { return slices.Sorted(slices.Values(values))[len(values)/2] }

func plainTable(t testing.TB) *conn {
	c, err := openConn(filepath.Join(t.TempDir(), "plain.db"), writerSetup+benchSchema, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return c
}

func insertPlain(t testing.TB, c *conn, first, rows int) {
	err := c.within("BEGIN IMMEDIATE", func() error {
		for i := range rows {
			if err := c.exec("INSERT INTO t VALUES (?, ?, ?, ?, ?)", fmt.Sprintf("evt_%013d", first+i), "mch_abcdefgh", "kind", "subject", "some text"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
