package command

import (
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newMachineInspect(a *app) *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use: "inspect MACHINE", Short: "Show a machine", Args: exactly(1), ValidArgsFunction: a.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Cluster.InspectMachine(cmd.Context(), connect.NewRequest(&uncloudv1.InspectMachineRequest{Machine: args[0]}))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.machine(answer.Msg) })
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func (a *app) machine(m *uncloudv1.Machine) {
	out := a.ui.Out
	render.Fields(out,
		"machine", out.Bold(m.GetName()), "id", m.GetId(), "state", out.State(m.GetState()), "roles", strings.Join(m.GetRoles(), ", "),
		"labels", render.Labels(m.GetLabels()), "schedulable", fmt.Sprint(m.GetSchedulable()),
		"address", m.GetAddress(), "subnet", m.GetSubnet(), "management", m.GetManagementAddress(),
		"endpoints", strings.Join(m.GetEndpoints(), ", "), "public key", m.GetPublicKey(), "round trip", render.Milliseconds(m.GetRttMs()),
		"system", strings.TrimSpace(m.GetOs()+" "+m.GetArch()), "generation", m.GetGeneration(), "version", m.GetVersion(),
		"joined", moment(m.GetJoinedAt()))
	a.healthNotes(m.GetName(), m.GetHealth())
}
