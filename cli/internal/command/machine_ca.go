package command

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
)

func newMachineCA(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ca MACHINE", Short: "Print the certificate that a machine's private https names are signed with",
		Long: "Print the root certificate of a machine's own authority, as PEM. It signs the https names of the machine's\n" +
			"ingress that no public authority certifies, such as shop.internal. Each machine has its own: clients that\n" +
			"may come to any of them need the certificates of all.",
		Example: "  uc machine ca home > home.pem && curl --cacert home.pem https://shop.internal",
		Args:    exactly(1), ValidArgsFunction: a.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Machine(args[0]).Authority(cmd.Context(), connect.NewRequest(&uncloudv1.AuthorityRequest{}))
			if err != nil {
				return err
			}
			fmt.Fprint(a.ui.Out, answer.Msg.GetPem())
			return nil
		},
	}
}
