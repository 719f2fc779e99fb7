package command

import (
	"context"

	"github.com/spf13/cobra"
)

func newStop(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "stop SERVICE...", Short: "Stop services, and keep them to be started again", Args: atLeast(1), ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, names []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return a.changeServices(cmd.Context(), "stopped", names, func(ctx context.Context) (*progressStream, error) {
				return client.Cluster.StopServices(ctx, servicesRequest(names))
			})
		},
	}
}
