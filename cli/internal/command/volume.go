package command

import (
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newVolume(a *app) *cobra.Command {
	return newGroup("volume", "Look at volumes and remove them", newVolumeLs(a), newVolumeRm(a))
}

func newVolumeLs(a *app) *cobra.Command {
	var output format
	var project string
	cmd := &cobra.Command{
		Use: "ls", Short: "List volumes and the machines that hold them", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Cluster.ListVolumes(cmd.Context(), connect.NewRequest(&uncloudv1.ListVolumesRequest{Project: project}))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.volumeTable(answer.Msg.GetVolumes()) })
		},
	}
	cmd.Flags().StringVar(&project, "project", "", "only volumes of this project (`name`)")
	addOutput(cmd, &output)
	return cmd
}

func (a *app) volumeTable(volumes []*uncloudv1.Volume) {
	table := render.NewTable("VOLUME", "PROJECT", "MACHINE", "DRIVER", "USED BY", "CREATED")
	for _, v := range volumes {
		table.Row(a.ui.Out.Bold(v.GetName()), v.GetProject(), v.GetMachine(), v.GetDriver(),
			strings.Join(v.GetUsedBy(), ","), a.ui.Since(when(v.GetCreatedAt())))
	}
	table.Write(a.ui.Out)
}
