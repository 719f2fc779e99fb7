package command

import "github.com/spf13/cobra"

func newImage(a *app) *cobra.Command {
	return newGroup("image", "Look at images, and send them to machines without a registry", newImageLs(a), newImagePush(a))
}
