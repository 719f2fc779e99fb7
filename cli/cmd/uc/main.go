// Command uc drives a cluster from a machine of it or from anywhere that
// reaches one by SSH.
package main

import (
	"os"
	"time"

	"uncloud/cli/internal/command"
	"uncloud/internal/build"
)

func main() { os.Exit(command.Main(command.UntilInterrupted(), process())) }

func process() command.Process {
	return command.Process{
		Args:  os.Args[1:],
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Getenv: os.Getenv, Environ: os.Environ,
		Now:     time.Now,
		Version: build.Version(),
	}
}
