package command

import (
	"context"

	"github.com/spf13/cobra"
)

func newStart(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "start SERVICE...", Short: "Start services that were stopped", Args: atLeast(1), ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, names []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return a.changeServices(cmd.Context(), "started", names, func(ctx context.Context) (*progressStream, error) {
				return client.Cluster.StartServices(ctx, servicesRequest(names))
			})
		},
	}
}
