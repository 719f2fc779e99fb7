package command

import (
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newMachineGenerations(a *app) *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use: "generations MACHINE", Short: "List the generations of a machine's NixOS", Args: exactly(1), ValidArgsFunction: a.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Upgrades(args[0]).ListGenerations(cmd.Context(), connect.NewRequest(&uncloudv1.ListGenerationsRequest{}))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.generationTable(answer.Msg.GetGenerations()) })
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func (a *app) generationTable(generations []*uncloudv1.Generation) {
	table := render.NewTable("GENERATION", "STATE", "NIXOS", "MADE", "SYSTEM")
	for _, g := range generations {
		number := ""
		if g.GetNumber() != 0 {
			number = strconv.Itoa(int(g.GetNumber()))
		}
		table.Row(a.ui.Out.Bold(number), generationState(g), g.GetNixosVersion(), moment(g.GetMadeAt()), strings.TrimPrefix(g.GetSystem(), "/nix/store/"))
	}
	table.Write(a.ui.Out)
}

func generationState(g *uncloudv1.Generation) string {
	var states []string
	for word, is := range map[string]bool{"runs": g.GetCurrent(), "booted": g.GetBooted(), "default": g.GetDefault()} {
		if is {
			states = append(states, word)
		}
	}
	return sortedList(states)
}
