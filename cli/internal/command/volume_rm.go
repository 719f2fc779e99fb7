package command

import (
	"context"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	cli "uncloud/cli/internal/connect"
	"uncloud/cli/internal/render"
	"uncloud/internal/faults"
)

func newVolumeRm(a *app) *cobra.Command {
	var yes bool
	var machine string
	cmd := &cobra.Command{
		Use: "rm VOLUME...", Short: "Remove volumes and all that is in them", Args: atLeast(1), ValidArgsFunction: a.completeVolumes,
		Long: "Remove volumes, given as NAME or PROJECT/NAME, and all that is in them. One that a service mounts is\n" +
			"refused. Where a machine is down the volume is forgotten, and what is in it stays on that machine's disk.",
		RunE: func(cmd *cobra.Command, refs []string) error {
			ctx := cmd.Context()
			client, err := a.connect(ctx)
			if err != nil {
				return err
			}
			answer, err := client.Cluster.ListVolumes(ctx, connect.NewRequest(&uncloudv1.ListVolumesRequest{}))
			if err != nil {
				return err
			}
			volumes, err := volumesByRef(answer.Msg.GetVolumes(), refs, machine)
			if err != nil {
				return err
			}
			a.volumeTable(volumes)
			if err := a.confirm(ctx, yes, "remove "+render.Count(len(volumes), "volume")+" and all that is in them?"); err != nil {
				return err
			}
			request := &uncloudv1.RemoveVolumesRequest{}
			for _, v := range volumes {
				request.Volumes = append(request.Volumes, v.GetId())
			}
			_, err = a.follow(ctx, func(ctx context.Context) (*progressStream, error) {
				return client.Cluster.RemoveVolumes(ctx, connect.NewRequest(request))
			})
			if err != nil {
				return err
			}
			a.ui.Out.Line("%s %s", a.ui.Out.Good("removed"), strings.Join(refs, ", "))
			return nil
		},
	}
	cmd.Flags().StringVarP(&machine, "machine", "m", "", "only the volumes on this machine (`name`)")
	a.addYes(cmd, &yes)
	return cmd
}

// volumesByRef are the volumes that are meant: a name may have one on each of
// several machines, but means one project.
func volumesByRef(all []*uncloudv1.Volume, refs []string, machine string) (found []*uncloudv1.Volume, err error) {
	for _, ref := range refs {
		project := ""
		for _, v := range all {
			if ref != v.GetName() && ref != qualified(v.GetProject(), v.GetName()) || machine != "" && machine != v.GetMachine() {
				continue
			}
			if project != "" && project != v.GetProject() {
				return nil, faults.New(faults.Invalid, "both %s and %s have a volume %s", project, v.GetProject(), ref).
					WithHint("write it as PROJECT/NAME")
			}
			if project = v.GetProject(); !slices.Contains(found, v) {
				found = append(found, v)
			}
		}
		switch {
		case project == "" && machine != "":
			return nil, faults.New(faults.NotFound, "there is no volume %s on %s", ref, machine).WithHint("see what there is: uc volume ls")
		case project == "":
			return nil, faults.New(faults.NotFound, "there is no volume %s", ref).WithHint("see what there is: uc volume ls")
		}
	}
	return found, nil
}

func (a *app) completeVolumes(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return a.completeFrom(func(ctx context.Context, client *cli.Client) (names []string) {
		answer, err := client.Cluster.ListVolumes(ctx, connect.NewRequest(&uncloudv1.ListVolumesRequest{}))
		if err != nil {
			return nil
		}
		for _, v := range answer.Msg.GetVolumes() {
			if name := qualified(v.GetProject(), v.GetName()); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		return names
	})(cmd, args, typed)
}
