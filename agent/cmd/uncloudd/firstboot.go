package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"uncloud/agent"
)

func firstBootCommand(load loadConfig) *cobra.Command {
	var directory string
	var volumes []string
	cmd := &cobra.Command{
		Use: "first-boot", Short: "Read uncloud.txt and tell this machine who it is (systemd does, at boot)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			cfg, err := load()
			if err != nil {
				// The agent says so too, and does not start. Keys and network
				// must come all the same: somebody has to mend it.
				fmt.Fprintln(out, "uncloud:", err)
			}
			agent.FirstBoot(cmd.Context(), directory, volumes, cfg, out)
			return nil
		},
	}
	cmd.Flags().StringVar(&directory, "directory", agent.DefaultFirstBootDir, "where what was read is kept")
	cmd.Flags().StringArrayVar(&volumes, "volume", nil, "label of a volume, or a folder, on which the file is looked for; in this order")
	return cmd
}
