// Command bench measures what the product promises as figures. Each figure
// stands beside a control or a bound, and the exit code says whether it held.
// Run it as ./dev bench deploy or ./dev bench agent.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"uncloud/tests/lab"
)

const usage = `Usage: ./dev bench deploy|agent

  deploy   uc deploy of 12 replicas on 3 machines, over the same creates and starts sent straight to Podman
  agent    memory, CPU and disk writes of idle agents in a cluster of 3, over 5 minutes (--for DURATION)
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "deploy":
		return withCluster(ctx, benchDeploy)
	case "agent":
		period, err := idlePeriod(args)
		if err != nil {
			return err
		}
		return withCluster(ctx, func(ctx context.Context, l *lab.Lab) error { return benchAgent(ctx, l, period) })
	}
	fmt.Print(usage)
	if verb != "" {
		return fmt.Errorf("there is no benchmark %q", verb)
	}
	return nil
}

// withCluster runs a benchmark on a new cluster of three.
func withCluster(ctx context.Context, measure func(context.Context, *lab.Lab) error) (err error) {
	opts := lab.Options{Name: "bench", Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	l, err := lab.Open(opts)
	if err != nil {
		return err
	}
	if err := l.Down(ctx); err != nil {
		return err
	}
	if l, err = lab.Up(ctx, opts); err != nil {
		return err
	}
	defer func() {
		if down := l.Down(context.WithoutCancel(ctx)); err == nil {
			err = down
		}
	}()
	return measure(ctx, l)
}
