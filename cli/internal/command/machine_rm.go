package command

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newMachineRm(a *app) *cobra.Command {
	var yes, force bool
	cmd := &cobra.Command{
		Use: "rm MACHINE", Short: "Remove a machine from the cluster", Args: exactly(1), ValidArgsFunction: a.completeMachines,
		Long: "Remove a machine from the cluster: its replicas are placed elsewhere where they can be, and it forgets\n" +
			"the cluster. Its volumes stay on its disk, where no other machine reaches them: a machine that holds\n" +
			"volumes is refused without --force.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			client, err := a.connect(ctx)
			if err != nil {
				return err
			}
			if err := a.showReplicasOf(ctx, args[0]); err != nil {
				return err
			}
			if err := a.confirm(ctx, yes, "remove "+args[0]+" from the cluster?"); err != nil {
				return err
			}
			request := &uncloudv1.RemoveMachineRequest{Machine: args[0], Force: force}
			_, err = a.follow(ctx, func(ctx context.Context) (*progressStream, error) {
				return client.Cluster.RemoveMachine(ctx, connect.NewRequest(request))
			})
			if err != nil {
				return err
			}
			a.ui.Out.Line("%s %s", a.ui.Out.Good("removed"), args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also when the machine is down, so that its replicas are forgotten, or when it holds volumes")
	a.addYes(cmd, &yes)
	return cmd
}

// showReplicasOf tells what a machine runs, which is what its removal touches.
func (a *app) showReplicasOf(ctx context.Context, machine string) error {
	answer, err := a.client.Cluster.ListReplicas(ctx, connect.NewRequest(&uncloudv1.ListReplicasRequest{Machine: machine}))
	if err != nil {
		return err
	}
	replicas := answer.Msg.GetReplicas()
	if len(replicas) == 0 {
		a.ui.Out.Line("%s runs nothing", machine)
		return nil
	}
	a.ui.Out.Line("%s runs %s:", machine, render.Count(len(replicas), "replica"))
	a.replicaTable(replicas)
	return nil
}
