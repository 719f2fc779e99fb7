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
		Long: "Remove services with their replicas. Volumes stay unless --volumes is given: what is in them is then lost.",
		RunE: func(cmd *cobra.Command, names []string) error {
			ctx := cmd.Context()
			client, err := a.connect(ctx)
			if err != nil {
				return err
			}
			// Each name is looked up before the question, so that the answer is
			// about what there is, and a wrong name removes nothing.
			for _, name := range names {
				if _, err := client.Cluster.InspectService(ctx, connect.NewRequest(&uncloudv1.InspectServiceRequest{Service: name})); err != nil {
					return err
				}
			}
			if err := a.confirm(ctx, yes, removal(names, volumes)); err != nil {
				return err
			}
			request := servicesRequest(names)
			request.Msg.Volumes = volumes
			return a.changeServices(ctx, "removed", names, func(ctx context.Context) (*progressStream, error) {
				return client.Cluster.RemoveServices(ctx, request)
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
