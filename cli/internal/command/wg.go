package command

import (
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newWG(a *app) *cobra.Command {
	return newGroup("wg", "Look at the WireGuard mesh", newWGShow(a))
}

func newWGShow(a *app) *cobra.Command {
	var output format
	var machine string
	cmd := &cobra.Command{
		Use: "show", Short: "Show a machine's WireGuard link and its peers", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Machine(machine).WireGuard(cmd.Context(), connect.NewRequest(&uncloudv1.WireGuardRequest{}))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.wireGuard(answer.Msg) })
		},
	}
	a.addMachine(cmd, &machine, "machine to look at by `name` or id (the connected one)")
	addOutput(cmd, &output)
	return cmd
}

func (a *app) wireGuard(w *uncloudv1.WireGuardResponse) {
	render.Fields(a.ui.Out, "interface", w.GetInterface()+" ("+w.GetKind()+")", "public key", w.GetPublicKey(), "port", fmt.Sprint(w.GetPort()))
	a.ui.Out.Line("")
	table := render.NewTable("PEER", "STATE", "ENDPOINT", "HANDSHAKE", "RTT", "RECEIVED", "SENT", "ALLOWED IPS")
	for _, p := range w.GetPeers() {
		table.Row(a.ui.Out.Bold(orWord(p.GetMachine(), p.GetPublicKey())), a.ui.Out.State(p.GetState()), p.GetEndpoint(),
			a.ui.Since(when(p.GetLastHandshake())), render.Milliseconds(p.GetRttMs()), render.Size(p.GetReceived()), render.Size(p.GetSent()),
			strings.Join(p.GetAllowedIps(), ","))
	}
	table.Write(a.ui.Out)
}
