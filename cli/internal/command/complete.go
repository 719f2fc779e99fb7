package command

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	cli "uncloud/cli/internal/connect"
)

// completionWait bounds how long a press of the tab key may take.
const completionWait = 2 * time.Second

const noFiles = cobra.ShellCompDirectiveNoFileComp

// completeFrom makes a completion of names that a machine knows. A shell shows
// no errors while it completes, so there are then just no names.
func (a *app) completeFrom(names func(context.Context, *cli.Client) []string) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
		defer cancel()
		client, err := a.connect(ctx)
		if err != nil {
			return nil, noFiles
		}
		return names(ctx, client), noFiles
	}
}

func (a *app) completeServices(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return a.completeFrom(func(ctx context.Context, client *cli.Client) []string {
		answer, err := client.Cluster.ListServices(ctx, connect.NewRequest(&uncloudv1.ListServicesRequest{}))
		if err != nil {
			return nil
		}
		return shortest(answer.Msg.GetServices())
	})(cmd, args, typed)
}

// shortest are the names of services, with the project where it takes that to
// tell them apart.
func shortest(services []*uncloudv1.Service) []string {
	count := map[string]int{}
	for _, s := range services {
		count[s.GetName()]++
	}
	var names []string
	for _, s := range services {
		if count[s.GetName()] > 1 {
			names = append(names, qualified(s.GetProject(), s.GetName()))
		} else {
			names = append(names, s.GetName())
		}
	}
	return names
}

func (a *app) completeMachines(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return a.completeFrom(func(ctx context.Context, client *cli.Client) []string {
		answer, err := client.Cluster.ListMachines(ctx, connect.NewRequest(&uncloudv1.ListMachinesRequest{}))
		if err != nil {
			return nil
		}
		var names []string
		for _, m := range answer.Msg.GetMachines() {
			names = append(names, m.GetName())
		}
		return names
	})(cmd, args, typed)
}

func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	path, err := a.choice.Path()
	if err != nil {
		return nil, noFiles
	}
	config, err := cli.LoadConfig(path)
	if err != nil {
		return nil, noFiles
	}
	return config.Names(), noFiles
}

// addMachine gives a command the flag -m.
func (a *app) addMachine(cmd *cobra.Command, machine *string, help string) {
	cmd.Flags().StringVarP(machine, "machine", "m", "", help)
	_ = cmd.RegisterFlagCompletionFunc("machine", a.completeMachines) // fails only for a flag that is not there
}

// addMachines is addMachine for a flag that may be repeated.
func (a *app) addMachines(cmd *cobra.Command, machines *[]string, help string) {
	cmd.Flags().StringSliceVarP(machines, "machine", "m", nil, help)
	_ = cmd.RegisterFlagCompletionFunc("machine", a.completeMachines) // fails only for a flag that is not there
}
