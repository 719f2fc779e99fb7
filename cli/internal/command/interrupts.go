package command

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// UntilInterrupted is a context that ends at the first Ctrl-C or SIGTERM. The
// second ends the process, with ExitInterrupted. It is for the main function,
// and lasts as long as the process.
//
// Both signals are read here: a context of package signal loses one that comes
// before it was told to stop.
func UntilInterrupted() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(ExitInterrupted)
	}()
	return ctx
}
