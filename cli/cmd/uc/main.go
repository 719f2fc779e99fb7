// Command uc drives a cluster from a machine of it or from anywhere that
// reaches one by SSH.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"uncloud/cli/internal/command"
	"uncloud/internal/build"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go interrupts(cancel)
	os.Exit(command.Main(ctx, process()))
}

// interrupts ends the command at the first Ctrl-C, and the process at the
// second. Both are read here: a context of package signal loses one that comes
// before it was told to stop.
func interrupts(cancel context.CancelFunc) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	<-signals
	cancel()
	<-signals
	os.Exit(command.ExitInterrupted)
}

func process() command.Process {
	return command.Process{
		Args:  os.Args[1:],
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Getenv: os.Getenv, Environ: os.Environ,
		Now:     time.Now,
		Version: build.Version(),
	}
}
