package command

import (
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
)

func newMachineRollback(a *app) *cobra.Command {
	request := &uncloudv1.UpgradeRequest{Rollback: true}
	var output format
	cmd := &cobra.Command{
		Use: "rollback MACHINE...", Short: "Take machines back to the generation of NixOS before", Args: atLeast(1), ValidArgsFunction: a.completeMachines,
		Long: "Take machines back to the generation of NixOS before the one that runs, one machine after another. The\n" +
			"other machines confirm each, as in an upgrade: one that is worse then stays on what it runs now.",
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Machines = args
			return a.upgrade(cmd.Context(), output, request)
		},
	}
	cmd.Flags().BoolVar(&request.Restart, "reboot", false, "boot it, instead of switching to it: needed for another kernel")
	cmd.Flags().BoolVar(&request.Drain, "drain", false, "move replicas away first")
	addOutput(cmd, &output)
	return cmd
}
