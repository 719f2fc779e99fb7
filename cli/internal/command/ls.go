package command

import (
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newLs(a *app) *cobra.Command {
	var output format
	var project string
	cmd := &cobra.Command{
		Use: "ls", Short: "List services", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Cluster.ListServices(cmd.Context(), connect.NewRequest(&uncloudv1.ListServicesRequest{Project: project}))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.serviceTable(answer.Msg.GetServices()) })
		},
	}
	cmd.Flags().StringVar(&project, "project", "", "only services of this project (`name`)")
	addOutput(cmd, &output)
	return cmd
}

func (a *app) serviceTable(services []*uncloudv1.Service) {
	table := render.NewTable("SERVICE", "MODE", "HEALTHY", "STATE", "IMAGE", "ENDPOINTS")
	for _, s := range services {
		table.Row(a.ui.Out.Bold(qualified(s.GetProject(), s.GetName())), s.GetMode(), a.healthy(s), a.ui.Out.State(s.GetWanted()),
			s.GetImage(), strings.Join(s.GetEndpoints(), ","))
	}
	table.Write(a.ui.Out)
	for _, s := range services {
		a.healthNotes(qualified(s.GetProject(), s.GetName()), s.GetHealth())
	}
}

// healthy is "2/3": how many replicas are healthy of how many there should be.
func (a *app) healthy(s *uncloudv1.Service) string {
	text := fmt.Sprintf("%d/%d", s.GetReplicasHealthy(), s.GetReplicas())
	if s.GetReplicasHealthy() < s.GetReplicas() && s.GetWanted() != "stopped" {
		return a.ui.Out.Warn(text)
	}
	return text
}

// healthNotes tells what something suffers from.
func (a *app) healthNotes(subject string, notes []*uncloudv1.HealthNote) {
	for _, note := range notes {
		a.ui.Warn("%s: %s (%s)", subject, note.GetText(), note.GetCode())
		a.ui.Hint(note.GetHint())
	}
}
