package command

import (
	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newEvents(a *app) *cobra.Command {
	var output format
	var limit int32
	cmd := &cobra.Command{
		Use: "events", Short: "List what happened in the cluster", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Cluster.ListEvents(cmd.Context(), connect.NewRequest(&uncloudv1.ListEventsRequest{Limit: limit}))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.eventTable(answer.Msg.GetEvents()) })
		},
	}
	cmd.Flags().Int32VarP(&limit, "limit", "n", 50, "how many, the newest")
	addOutput(cmd, &output)
	return cmd
}

func (a *app) eventTable(events []*uncloudv1.Event) {
	table := render.NewTable("TIME", "MACHINE", "KIND", "SUBJECT", "TEXT")
	for _, e := range events {
		table.Row(moment(e.GetAt()), e.GetMachine(), e.GetKind(), e.GetSubject(), e.GetText())
	}
	table.Write(a.ui.Out)
}
