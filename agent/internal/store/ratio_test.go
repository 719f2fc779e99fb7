package store

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
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
	}{{1, 500, 2.5}, {10, 300, 2.0}, {1000, 30, 3.0}} {
		compare(t, fmt.Sprintf("insert of %d rows", c.rows), c.most, func() (plain, own func(n int), commits int) {
			table, s := plainTable(t, "FULL"), open(t, Options{Dir: t.TempDir(), Schema: benchSchema})
			return func(n int) { insertPlain(t, table, n*c.rows, c.rows) }, func(n int) { putSamples(t, s, n*c.rows, c.rows) }, c.commits
		})
	}
	const rows, each = 20_000, 40
	batches := sampleBatches(t, rows, each)
	compare(t, "merge of 40 rows", 2.5, func() (plain, own func(n int), commits int) {
		table, s := plainTable(t, "NORMAL"), open(t, Options{Dir: t.TempDir(), Schema: benchSchema})
		merge := func(n int) {
			if _, err := s.Merge(t.Context(), batches[n]); err != nil {
				t.Fatal(err)
			}
		}
		return func(n int) { insertPlain(t, table, n*each, each) }, merge, len(batches)
	})
}

// compare takes the median of five ratios, each of many turns.
func compare(t *testing.T, what string, most float64, start func() (plain, own func(n int), turns int)) {
	var wall, cpu, best []float64
	for range 5 {
		plain, own, turns := start()
		var p, o spent
		for n := range turns {
			p.add(func() { plain(n) })
			o.add(func() { own(n) })
		}
		wall, cpu = append(wall, o.wall.Seconds()/p.wall.Seconds()), append(cpu, o.cpu.Seconds()/p.cpu.Seconds())
		best = append(best, o.best.Seconds()/p.best.Seconds())
	}
	t.Logf("%s: %.2f x the time of plain, %.2f x the processor, %.2f x by the quietest turns (medians of 5; at most %.1f)",
		what, median(wall), median(cpu), median(best), most)
	if median(wall) > most {
		t.Errorf("%s takes %.2f x", what, median(wall))
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
