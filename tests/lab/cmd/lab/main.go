// Command lab makes and drives real machines on this host: see ./dev lab.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `Usage: ./dev lab COMMAND [ARGS] [--name LAB]

  up [N] [--bare]           N machines m1..mN (3), one cluster unless --bare
  exec M -- CMD...          run a command in a machine; stdin, stdout and exit code pass through
  cp SRC DST                copy a file or directory; SRC or DST is M:PATH
  image DIR|BINARY NAME     make an image without a registry, on all machines (--on M: on one)
  cut M...                  these machines on one side of a partition, the rest on the other
  cut --pair A B            only these two cannot reach each other
  heal                      end all cuts
  kill M                    cut the power
  start M                   boot the same disk
  reboot M                  shut down in order, and boot
  add                       one more machine, not joined
  ls [-o json]              the machines, and what they are cut from
  path M PATH               where a file or socket of a running machine is on this host
  ready                     exit code 0 where this host can run a lab; otherwise what is missing
  down                      remove the lab and all that it left on this host

M is m1, m2, ... or "outside": a client on the same network that is no member.
`

// exitCode is what a command inside a machine ended with.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	// Interrupts reach a command in a machine by itself; for all else they end the work.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:])
	if code, ok := errors.AsType[exitCode](err); ok {
		os.Exit(int(code))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		fmt.Print(usage)
		return nil
	}
	verb, ok := verbs[args[0]]
	if !ok {
		return fmt.Errorf("there is no command %q; see ./dev lab help", args[0])
	}
	c, err := parse(args[0], verb.flags, args[1:])
	if err != nil {
		return err
	}
	if len(c.args) < verb.least || verb.most >= 0 && len(c.args) > verb.most {
		return fmt.Errorf("use: ./dev lab %s", verb.usage)
	}
	return verb.run(ctx, c)
}
