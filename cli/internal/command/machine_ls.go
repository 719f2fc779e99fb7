package command

import (
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newMachineLs(a *app) *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use: "ls", Short: "List machines, as the connected one sees them", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Cluster.ListMachines(cmd.Context(), connect.NewRequest(&uncloudv1.ListMachinesRequest{}))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.machineTable(answer.Msg.GetMachines()) })
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func (a *app) machineTable(machines []*uncloudv1.Machine) {
	table := render.NewTable("NAME", "STATE", "ADDRESS", "ROLES", "OS GENERATION", "VERSION")
	for _, m := range machines {
		table.Row(a.ui.Out.Bold(m.GetName()), a.ui.Out.State(m.GetState()), m.GetAddress(), strings.Join(m.GetRoles(), ","),
			m.GetGeneration(), m.GetVersion())
	}
	table.Write(a.ui.Out)
	for _, m := range machines {
		a.healthNotes(m.GetName(), m.GetHealth())
	}
}
