package command

import (
	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
)

func newMachineRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rename MACHINE NAME", Short: "Give a machine another name", Args: exactly(2), ValidArgsFunction: a.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			request := &uncloudv1.RenameMachineRequest{Machine: args[0], Name: args[1]}
			answer, err := client.Cluster.RenameMachine(cmd.Context(), connect.NewRequest(request))
			if err != nil {
				return err
			}
			a.ui.Out.Line("%s is now %s", args[0], answer.Msg.GetName())
			return nil
		},
	}
}
