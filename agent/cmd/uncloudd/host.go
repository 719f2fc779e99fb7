package main

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"uncloud/agent"
)

// hostCommand is what changes the system under the agent, apart from it.
func hostCommand(load loadConfig) *cobra.Command {
	group := &cobra.Command{Use: "host", Short: "What changes the generation of this machine", Args: cobra.NoArgs, Hidden: true}
	group.AddCommand(&cobra.Command{
		Use: "run", Short: "Carry out what the agent ordered (systemd does)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A configuration that is wrong is no reason to leave an upgrade half done.
			level := new(slog.LevelVar)
			if cfg, err := load(); err == nil {
				level.UnmarshalText([]byte(cfg.LogLevel)) //nolint:errcheck,gosec // then it is info
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTime}))
			return agent.RunHost(cmd.Context(), os.Stderr, log)
		},
	})
	return group
}
