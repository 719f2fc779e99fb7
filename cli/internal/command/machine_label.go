package command

import (
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newMachineLabel(a *app) *cobra.Command {
	var request uncloudv1.LabelMachineRequest
	var output format
	cmd := &cobra.Command{
		Use: "label MACHINE [KEY=VALUE...] [KEY-...]", Short: "Change labels and roles of a machine",
		Long: "Change labels and roles of a machine. KEY=VALUE sets a label and KEY- removes it; placement\n" +
			"constraints of services refer to labels. Roles are ingress (serves host names) and worker (runs replicas).",
		Example: "  uc machine label vps-fra zone=eu disk-\n  uc machine label vps-fra --add-role ingress",
		Args:    atLeast(1), ValidArgsFunction: a.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Machine = args[0]
			if err := readLabels(&request, args[1:]); err != nil {
				return err
			}
			if len(args) == 1 && len(request.AddRoles)+len(request.RemoveRoles) == 0 {
				return usage("nothing to change on %s", args[0]).hint("uc machine label %s KEY=VALUE", args[0])
			}
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Cluster.LabelMachine(cmd.Context(), connect.NewRequest(&request))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.labels(answer.Msg) })
		},
	}
	cmd.Flags().StringSliceVar(&request.AddRoles, "add-role", nil, "`role` to give; repeat for several")
	cmd.Flags().StringSliceVar(&request.RemoveRoles, "remove-role", nil, "`role` to take; repeat for several")
	addOutput(cmd, &output)
	return cmd
}

func readLabels(request *uncloudv1.LabelMachineRequest, args []string) error {
	request.Set = map[string]string{}
	for _, arg := range args {
		key, value, set := strings.Cut(arg, "=")
		remove, ok := strings.CutSuffix(arg, "-")
		switch {
		case set && key != "":
			request.Set[key] = value
		case !set && ok && remove != "":
			request.Remove = append(request.Remove, remove)
		default:
			return usage("%q is no change of a label", arg).hint("KEY=VALUE sets a label, KEY- removes it")
		}
	}
	return nil
}

func (a *app) labels(m *uncloudv1.Machine) {
	render.Fields(a.ui.Out, "machine", m.GetName(), "roles", strings.Join(m.GetRoles(), ", "), "labels", orWord(render.Labels(m.GetLabels()), "none"))
}
