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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends the process at once
	os.Exit(command.Main(ctx, process()))
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
