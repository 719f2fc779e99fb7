package command

import (
	"context"
	"strconv"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
)

func newScale(a *app) *cobra.Command {
	var change revisionChange
	cmd := &cobra.Command{
		Use: "scale SERVICE REPLICAS", Short: "Change how many replicas a service has", Args: exactly(2), ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			replicas, err := strconv.ParseInt(args[1], 10, 32)
			if err != nil || replicas < 0 {
				return usage("%q is no number of replicas", args[1]).hint("uc scale %s 3", args[0])
			}
			change.question = "scale " + args[0] + "?"
			change.finished = "scaled " + args[0]
			change.again = "uc scale " + args[0] + " " + args[1]
			return a.changeRevision(cmd.Context(), change, func(ctx context.Context, dryRun bool, agreed string) (*progressStream, error) {
				request := &uncloudv1.ScaleRequest{Service: args[0], Replicas: int32(replicas), DryRun: dryRun, Agreed: agreed}
				return a.client.Cluster.Scale(ctx, connect.NewRequest(request))
			})
		},
	}
	change.add(a, cmd)
	return cmd
}
