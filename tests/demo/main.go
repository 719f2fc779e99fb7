// Command demo is the product in one sitting: three real machines on this
// host become a cluster, run a Compose application, lose one another, and
// heal. It narrates each step and exits 0 only if every step held. Run it as
// ./dev demo.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"uncloud/tests/lab"
)

func main() {
	keep := flag.Bool("keep", false, "leave the machines up at the end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo: it did not hold:", err)
		os.Exit(1)
	}
}

// labName keeps the demo apart from labs that people work in.
const labName = "demo"

func run(ctx context.Context, keep bool) (err error) {
	began := time.Now()
	opts := lab.Options{Name: labName, Log: logTo(os.Stdout)}
	l, err := lab.Open(opts)
	if err != nil {
		return err
	}
	if l.Exists() {
		tell("taking down what an earlier demo left up")
		if err := l.Down(ctx); err != nil {
			return err
		}
	}
	defer func() {
		if keep && err == nil {
			tell("the machines stay up; look around:  ./dev lab exec m1 --name %s -- uc ps", labName)
			tell("and when done:  ./dev lab down --name %s", labName)
			return
		}
		err = errors.Join(err, l.Down(context.WithoutCancel(ctx)))
	}()
	s := &story{out: os.Stdout, opts: opts}
	if err := s.tell(ctx); err != nil {
		return err
	}
	tell("everything held, in %s", time.Since(began).Round(time.Second))
	return nil
}
