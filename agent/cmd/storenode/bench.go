package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// bench runs every measurement some times and keeps the medians. Each stands
// beside its control. The two take turns within a round, so that what else the
// machine does strikes both, and a ratio is the median of those of the rounds.
type bench struct {
	dir    string
	rounds int
	idle   time.Duration
	out    *tabwriter.Writer
	bad    int
}

func runBench(ctx context.Context, args []string) (err error) {
	b := &bench{out: tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)}
	flags := flag.NewFlagSet("storenode bench", flag.ContinueOnError)
	flags.IntVar(&b.rounds, "rounds", 5, "of which the medians are shown")
	flags.DurationVar(&b.idle, "idle", 5*time.Minute, "how long idle nodes are watched")
	quick := flags.Bool("quick", false, "one round, and idle nodes for 20 seconds: to see that it works, not to judge")
	only := flags.String("only", "", "one measurement: insert, size, merge, latency, burst, thirty, rejoin or idle")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *quick {
		b.rounds, b.idle = 1, 20*time.Second
	}
	measurements := b.named(*only)
	if len(measurements) == 0 {
		return fmt.Errorf("there is no measurement %q", *only)
	}
	if b.dir, err = os.MkdirTemp("", "storenode-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	fmt.Fprintln(b.out, "WHAT\tCONTROL\tSTORE\tRATIO\tMUST BE\t\t")
	for _, m := range measurements {
		if err := m.run(ctx); err != nil {
			return errors.Join(fmt.Errorf("measure %s: %w", m.name, err), b.out.Flush())
		}
	}
	if err := b.out.Flush(); err != nil {
		return err
	}
	if b.bad > 0 {
		return fmt.Errorf("%d figures are not what they must be", b.bad)
	}
	return nil
}

type measurement struct {
	name string
	run  func(context.Context) error
}

// named is the measurement of that name, or all.
func (b *bench) named(only string) []measurement {
	all := []measurement{
		{"insert", b.insert}, {"size", b.size}, {"merge", b.merge}, {"latency", b.latency}, {"burst", b.burst},
		{"thirty", b.thirty}, {"rejoin", b.rejoin}, {"idle", b.idleNodes},
	}
	return slices.DeleteFunc(all, func(m measurement) bool { return only != "" && m.name != only })
}

// show prints one line of the table.
func (b *bench) show(what, control, got, ratio, need string, holds bool) {
	verdict := "met"
	if !holds {
		verdict = "MISSED"
		b.bad++
	}
	fmt.Fprintf(b.out, "%s\t%s\t%s\t%s\t%s\t%s\n", what, control, got, ratio, need, verdict)
}

// note prints a line that is not judged.
func (b *bench) note(what, control, got, ratio string) {
	fmt.Fprintf(b.out, "%s\t%s\t%s\t%s\t\t\n", what, control, got, ratio)
}

// each runs a measurement for every round, in a folder of its own.
func (b *bench) each(do func(dir string) error) error {
	for range b.rounds {
		dir, err := os.MkdirTemp(b.dir, "")
		if err != nil {
			return err
		}
		if err := errors.Join(do(dir), os.RemoveAll(dir)); err != nil {
			return err
		}
	}
	return nil
}

func median[T cmp.Ordered](of []T) T { return slices.Sorted(slices.Values(of))[len(of)/2] }

func percentile(of []time.Duration, p int) time.Duration {
	s := slices.Sorted(slices.Values(of))
	return s[min(len(s)-1, len(s)*p/100)]
}

func brief(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
