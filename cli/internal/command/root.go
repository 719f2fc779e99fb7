package command

import (
	"strings"

	"github.com/spf13/cobra"
)

// Groups of the help page.
const (
	groupServices = "services"
	groupCluster  = "cluster"
	groupTool     = "tool"
)

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "uc",
		Short: "Run Compose services on machines of your own",
		Long: "Run Compose services on machines of your own. Any machine of a cluster takes any command.\n\n" +
			"A command goes to the first of: --connect, --context, x-context of the Compose file,\n" +
			"the current context, the agent of this machine.",
		SilenceErrors: true, SilenceUsage: true,
		Args: noSuchCommand, RunE: showHelp,
	}
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w", err).hint("%s --help", cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.choice.Connect, "connect", a.Getenv("UNCLOUD_CONNECT"), "`address` of a machine: ssh://user@host[:port] or unix:///path (UNCLOUD_CONNECT)")
	flags.StringVarP(&a.choice.Context, "context", "c", a.Getenv("UNCLOUD_CONTEXT"), "cluster to use, by `name` of its context (UNCLOUD_CONTEXT)")
	flags.StringVar(&a.choice.ConfigPath, "config", a.Getenv("UNCLOUD_CONFIG"), "`file` of contexts instead of ~/.config/uncloud/config.yaml (UNCLOUD_CONFIG)")
	for _, name := range []string{"connect", "context", "config"} {
		root.PersistentFlags().Lookup(name).DefValue = "" // the help is the same wherever it is read
	}
	root.AddGroup(
		&cobra.Group{ID: groupServices, Title: "Services:"},
		&cobra.Group{ID: groupCluster, Title: "Cluster:"},
		&cobra.Group{ID: groupTool, Title: "This program:"},
	)
	root.SetHelpCommandGroupID(groupTool)
	root.SetCompletionCommandGroupID(groupTool)
	add(root, groupServices, newDeploy(a), newLs(a), newPs(a), newInspect(a), newLogs(a), newExec(a), newScale(a),
		newStart(a), newStop(a), newRm(a), newRollback(a), newImage(a), newVolume(a))
	add(root, groupCluster, newMachine(a), newWG(a), newStore(a), newEvents(a))
	add(root, groupTool, newCtx(a), newVersion(a))
	_ = root.RegisterFlagCompletionFunc("context", a.completeContexts) // fails only for a flag that is not there
	return root
}

func add(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, command := range commands {
		command.GroupID = group
		root.AddCommand(command)
	}
}

// newGroup is a command that only holds others.
func newGroup(use, short string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{Use: use, Short: short, Args: noSuchCommand, RunE: showHelp}
	group.AddCommand(commands...)
	return group
}

func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	wrong := usage("%s has no command %q", cmd.CommandPath(), args[0])
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return wrong.hint("did you mean: %s %s", cmd.CommandPath(), strings.Join(near, ", "))
	}
	return wrong.hint("%s --help", cmd.CommandPath())
}

// exactly, atLeast and atMost check the number of arguments, and show how the
// command is written.
func exactly(n int) cobra.PositionalArgs { return arguments(cobra.ExactArgs(n)) }
func atLeast(n int) cobra.PositionalArgs { return arguments(cobra.MinimumNArgs(n)) }
func atMost(n int) cobra.PositionalArgs  { return arguments(cobra.MaximumNArgs(n)) }

func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usage("%s does not take %d arguments", cmd.CommandPath(), len(args)).hint("%s", cmd.UseLine())
		}
		return nil
	}
}
