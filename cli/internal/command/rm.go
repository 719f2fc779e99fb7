package command

import (
	"context"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
)

func newRm(a *app) *cobra.Command {
	var yes, volumes bool
	cmd := &cobra.Command{
		Use: "rm SERVICE...", Short: "Remove services", Args: atLeast(1), ValidArgsFunction: a.completeServices,
		Long: "Remove services with their replicas: shows what goes, asks, and removes that and nothing else.\n" +
			"Volumes stay unless --volumes is given: what is in them is then lost.",
		RunE: func(cmd *cobra.Command, names []string) error {
			ctx := cmd.Context()
			client, err := a.connect(ctx)
			if err != nil {
				return err
			}
			request := &uncloudv1.ServicesRequest{Services: names, Volumes: volumes}
			planned, err := client.Cluster.PlanRemoval(ctx, connect.NewRequest(request))
			if err != nil {
				return err
			}
			a.ui.Plan(planned.Msg)
			if request.Agreed, err = a.agree(ctx, yes, planned.Msg, removal(names, volumes)); err != nil {
				return err
			}
			return a.changeServices(ctx, "removed", names, func(ctx context.Context) (*progressStream, error) {
				return client.Cluster.RemoveServices(ctx, connect.NewRequest(request))
			})
		},
	}
	cmd.Flags().BoolVar(&volumes, "volumes", false, "remove their volumes too, with all that is in them")
	a.addYes(cmd, &yes)
	return cmd
}

func removal(names []string, volumes bool) string {
	question := "remove " + strings.Join(names, ", ")
	if volumes {
		question += " and all that is in their volumes"
	}
	return question + "?"
}
