package command

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newPs(a *app) *cobra.Command {
	var output format
	var request uncloudv1.ListReplicasRequest
	cmd := &cobra.Command{
		Use: "ps [SERVICE]", Short: "List replicas: what runs where", Args: atMost(1), ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				request.Service = args[0]
			}
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Cluster.ListReplicas(cmd.Context(), connect.NewRequest(&request))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.replicaTable(answer.Msg.GetReplicas()) })
		},
	}
	cmd.Flags().StringVar(&request.Project, "project", "", "only replicas of this project (`name`)")
	a.addMachine(cmd, &request.Machine, "only replicas on this machine (`name` or id)")
	addOutput(cmd, &output)
	return cmd
}

func (a *app) replicaTable(replicas []*uncloudv1.Replica) {
	table := render.NewTable("SERVICE", "REPLICA", "MACHINE", "STATE", "HEALTH", "SINCE", "ADDRESS", "IMAGE")
	for _, r := range replicas {
		table.Row(a.ui.Out.Bold(qualified(r.GetProject(), r.GetService())), r.GetName(), r.GetMachine(), a.replicaState(r),
			a.ui.Out.State(r.GetHealth()), a.ui.Since(when(r.GetSince())), r.GetAddress(), r.GetImage())
	}
	table.Write(a.ui.Out)
	for _, r := range replicas {
		if r.GetError() != "" {
			a.ui.Warn("%s: %s", r.GetName(), r.GetError())
		}
	}
}

// replicaState is one word: exited:1 has the exit code, draining means that it
// still runs but takes no new traffic.
func (a *app) replicaState(r *uncloudv1.Replica) string {
	switch {
	case r.GetState() == "exited":
		return a.ui.Out.Bad(fmt.Sprintf("exited:%d", r.GetExitCode()))
	case r.GetState() == "running" && r.GetWanted() == "draining":
		return a.ui.Out.State("draining")
	}
	return a.ui.Out.State(r.GetState())
}
