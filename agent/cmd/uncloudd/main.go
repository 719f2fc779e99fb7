// Command uncloudd is the agent of a machine, and the few commands that must
// work on a machine where nothing else does.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
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
		fail(os.Stderr, err)
		os.Exit(1)
	}
}

// fail tells why a command failed and what to do next.
func fail(to io.Writer, err error) {
	f := faults.Of(err)
	fmt.Fprintln(to, "uncloudd: error:", f.Sentence)
	fmt.Fprintln(to, "uncloudd: hint:", cmp.Or(f.Hint, "see what the agent wrote: journalctl -u uncloud"))
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "uncloudd",
		Short:         "The agent of a machine",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSuchCommand,
		RunE:          showHelp,
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return faults.New(faults.Invalid, "%w", err).WithHint("%s --help", cmd.CommandPath())
	})
	var config string
	cmd.PersistentFlags().StringVar(&config, "config", agent.DefaultConfigFile, "configuration file")
	load := func() (agent.Config, error) { return agent.LoadConfig(config) }
	cmd.AddCommand(runCommand(load), joinCommand(load), firstBootCommand(load), statusCommand(load), hostCommand(load), resetCommand(load), restoreCommand(load), dialCommand(load), versionCommand())
	explainArguments(cmd.Commands())
	return cmd
}

func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return faults.New(faults.Invalid, "%s has no command %q", cmd.CommandPath(), args[0]).WithHint("%s --help", cmd.CommandPath())
}

// explainArguments has commands show how they are written when the number of
// their arguments is wrong.
func explainArguments(commands []*cobra.Command) {
	for _, cmd := range commands {
		explainArguments(cmd.Commands())
		if cmd.HasSubCommands() {
			cmd.Args, cmd.RunE = noSuchCommand, showHelp
			continue
		}
		check := cmd.Args
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if check(cmd, args) == nil {
				return nil
			}
			return faults.New(faults.Invalid, "%s does not take %d arguments", cmd.CommandPath(), len(args)).WithHint("%s", cmd.UseLine())
		}
	}
}

type loadConfig func() (agent.Config, error)
