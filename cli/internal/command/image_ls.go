package command

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newImageLs(a *app) *cobra.Command {
	var output format
	var machines []string
	cmd := &cobra.Command{
		Use: "ls [NAME]", Short: "List the images that machines have", Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := strings.Join(args, "")
			answer, err := a.images(cmd.Context(), name, machines)
			if err != nil {
				return err
			}
			return a.show(output, answer, func() { a.imageTable(answer.GetImages()) })
		},
	}
	a.addMachines(cmd, &machines, "only images of this machine (`name` or id); repeat for several")
	addOutput(cmd, &output)
	return cmd
}

// images are those of each living machine, sorted by name and machine.
func (a *app) images(ctx context.Context, name string, names []string) (*uncloudv1.ListImagesResponse, error) {
	machines, err := a.living(ctx, names)
	if err != nil {
		return nil, err
	}
	found := make([][]*uncloudv1.Image, len(machines))
	err = a.each(ctx, machines, func(ctx context.Context, i int, m *uncloudv1.Machine) error {
		answer, err := a.client.Machine(m.GetId()).ListImages(ctx, connect.NewRequest(&uncloudv1.ListImagesRequest{Name: name}))
		if err != nil {
			return err
		}
		for _, image := range answer.Msg.GetImages() {
			image.Machine = m.GetName()
		}
		found[i] = answer.Msg.GetImages()
		return nil
	})
	all := slices.Concat(found...)
	slices.SortStableFunc(all, func(a, b *uncloudv1.Image) int {
		return cmp.Or(strings.Compare(strings.Join(a.GetNames(), ","), strings.Join(b.GetNames(), ",")), strings.Compare(a.GetMachine(), b.GetMachine()))
	})
	return &uncloudv1.ListImagesResponse{Images: all}, err
}

func (a *app) imageTable(images []*uncloudv1.Image) {
	table := render.NewTable("NAME", "ID", "PLATFORM", "SIZE", "CONTAINERS", "CREATED", "MACHINE")
	for _, i := range images {
		table.Row(a.ui.Out.Bold(strings.Join(i.GetNames(), ",")), shortID(i.GetId()), i.GetPlatform(), render.Size(i.GetSize()),
			fmt.Sprint(i.GetContainers()), a.ui.Since(when(i.GetCreatedAt())), i.GetMachine())
	}
	table.Write(a.ui.Out)
}

// shortID is what people compare: 12 digits of a hash.
func shortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}
