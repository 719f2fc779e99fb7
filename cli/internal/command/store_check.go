package command

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
	"uncloud/internal/faults"
)

func newStoreCheck(a *app) *cobra.Command {
	var output format
	var machine string
	cmd := &cobra.Command{
		Use: "check", Short: "Read the whole store of a machine and say what is wrong with it", Args: exactly(0),
		Long: "Read the whole store of a machine and say what is wrong with it. Changes on that machine wait meanwhile.\n" +
			"The exit code is 1 where there are problems.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Machine(machine).CheckStore(cmd.Context(), connect.NewRequest(&uncloudv1.CheckStoreRequest{}))
			if err != nil {
				return err
			}
			if err := a.show(output, answer.Msg, func() { a.storeCheck(answer.Msg) }); err != nil {
				return err
			}
			if n := len(answer.Msg.GetProblems()); n > 0 {
				return faults.New(faults.Internal, "the store has %s", render.Count(n, "problem")).
					WithHint("on that machine, take the store of another one: uc store reseed; where there is none, a sound backup: uc store restore FILE")
			}
			return nil
		},
	}
	a.addMachine(cmd, &machine, "machine to look at by `name` or id (the connected one)")
	addOutput(cmd, &output)
	return cmd
}

func (a *app) storeCheck(r *uncloudv1.CheckStoreResponse) {
	render.Fields(a.ui.Out, "rows", fmt.Sprint(r.GetRows()), "removed", fmt.Sprint(r.GetTombstones()), "problems", fmt.Sprint(len(r.GetProblems())))
	for _, problem := range r.GetProblems() {
		a.ui.Out.Line("%s", problem)
	}
}
