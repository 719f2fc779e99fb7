package command

import (
	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
)

func newMachineInit(a *app) *cobra.Command {
	var request uncloudv1.InitRequest
	var output format
	cmd := &cobra.Command{
		Use: "init", Short: "Make a new cluster with the connected machine as its first",
		Long: "Make a new cluster with the connected machine as its first: the machine this runs on, or the one\n" +
			"that --connect names. Others join it with a ticket: uc machine ticket --help",
		Example: "  sudo uc machine init --name home\n  uc --connect ssh://root@203.0.113.7 machine init --endpoint 203.0.113.7:51820",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Machine("").Init(cmd.Context(), connect.NewRequest(&request))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.founded(answer.Msg) })
		},
	}
	cmd.Flags().StringVarP(&request.Name, "name", "n", "", "`name` of the machine (its host name)")
	cmd.Flags().StringVar(&request.Network, "network", "", "network of machines and containers as `CIDR` (10.210.0.0/16); it cannot be changed later")
	cmd.Flags().StringVar(&request.Domain, "domain", "", "`domain` under which services get host names by default")
	cmd.Flags().StringSliceVar(&request.Endpoints, "endpoint", nil, "`address` and port where other machines reach this one's WireGuard; repeat for several")
	addOutput(cmd, &output)
	return cmd
}

func (a *app) founded(info *uncloudv1.InfoResponse) {
	a.ui.Out.Line("%s %s: %s is its first machine, at %s", a.ui.Out.Good("made cluster"), info.GetClusterId(), info.GetName(), info.GetAddress())
	a.ui.Note("to add a machine:  uc machine ticket > uncloud.ticket  and there  uncloudd join uncloud.ticket")
	a.ui.Note("to run something:  uc deploy  where a compose.yaml is")
}
