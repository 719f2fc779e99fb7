// Command uncloudd is the agent of a machine, and the few commands that must
// work on a machine where nothing else does.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"uncloud/agent"
	"uncloud/internal/faults"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "uncloudd: error:", err)
		if f, ok := errors.AsType[*faults.Fault](err); ok && f.Hint != "" {
			fmt.Fprintln(os.Stderr, "uncloudd: hint:", f.Hint)
		}
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "uncloudd",
		Short:         "The agent of a machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	var config string
	cmd.PersistentFlags().StringVar(&config, "config", agent.DefaultConfigFile, "configuration file")
	load := func() (agent.Config, error) { return agent.LoadConfig(config) }
	cmd.AddCommand(runCommand(load), joinCommand(load), firstBootCommand(load), statusCommand(load), hostCommand(load), resetCommand(load), restoreCommand(load), dialCommand(load), versionCommand())
	return cmd
}

type loadConfig func() (agent.Config, error)
