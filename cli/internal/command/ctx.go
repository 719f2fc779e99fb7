package command

import (
	"strings"

	"github.com/spf13/cobra"

	"uncloud/cli/internal/connect"
	"uncloud/cli/internal/render"
	"uncloud/internal/faults"
)

func newCtx(a *app) *cobra.Command {
	group := newGroup("ctx", "Choose among clusters",
		newCtxLs(a), newCtxUse(a), newCtxShow(a), newCtxAdd(a), newCtxRm(a))
	group.Long = "Choose among clusters. A context is a cluster and the ways to reach it, which are tried in order.\n" +
		"They are kept in ~/.config/uncloud/config.yaml:\n\n" +
		"  current_context: home\n  contexts:\n    home:\n      connections:\n        - ssh: root@pi-1\n        - ssh: admin@vps.example.com:2222\n          ssh_key_file: ~/.ssh/vps\n        - unix: /run/uncloud/uncloud.sock"
	return group
}

// contextView is a context as uc ctx ls and show write it.
type contextView struct {
	Name        string   `json:"name"`
	Current     bool     `json:"current"`
	Connections []string `json:"connections"`
}

func (a *app) contexts() (*connect.Config, string, error) {
	path, err := a.choice.Path()
	if err != nil {
		return nil, "", err
	}
	config, err := connect.LoadConfig(path)
	return config, path, err
}

func viewOf(config *connect.Config, name string) contextView {
	v := contextView{Name: name, Current: name == config.CurrentContext, Connections: []string{}}
	for _, c := range config.Contexts[name].Connections {
		if c.Unix != "" {
			v.Connections = append(v.Connections, "unix://"+c.Unix)
		} else {
			v.Connections = append(v.Connections, "ssh://"+c.SSH)
		}
	}
	return v
}

func newCtxLs(a *app) *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use: "ls", Short: "List contexts", Args: exactly(0),
		RunE: func(*cobra.Command, []string) error {
			config, _, err := a.contexts()
			if err != nil {
				return err
			}
			views := []contextView{}
			for _, name := range config.Names() {
				views = append(views, viewOf(config, name))
			}
			if output == jsonFormat {
				return render.Value(a.ui.Out, map[string]any{"contexts": views})
			}
			table := render.NewTable("NAME", "CURRENT", "CONNECTIONS")
			for _, v := range views {
				table.Row(a.ui.Out.Bold(v.Name), yesNo(v.Current), strings.Join(v.Connections, ","))
			}
			table.Write(a.ui.Out)
			return nil
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func newCtxUse(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Args: exactly(1), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			config, path, err := a.contexts()
			if err != nil {
				return err
			}
			if _, err := config.Targets(args[0]); err != nil {
				return err
			}
			config.CurrentContext = args[0]
			return config.Save(path)
		},
	}
}

func newCtxShow(a *app) *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use: "show [NAME]", Short: "Show a context, or the one that commands use now", Args: atMost(1), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			config, _, err := a.contexts()
			if err != nil {
				return err
			}
			name := orWord(a.choice.Context, config.CurrentContext)
			if len(args) == 1 {
				name = args[0]
			}
			if name == "" {
				return faults.New(faults.NotFound, "no context is in use: commands go to the agent of this machine").WithHint("uc ctx add NAME ssh://user@host")
			}
			if _, err := config.Targets(name); err != nil {
				return err
			}
			view := viewOf(config, name)
			if output == jsonFormat {
				return render.Value(a.ui.Out, view)
			}
			render.Fields(a.ui.Out, "context", view.Name, "current", yesNo(view.Current), "connections", strings.Join(view.Connections, ", "))
			return nil
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func newCtxAdd(a *app) *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use: "add NAME ADDRESS...", Short: "Add connections to a context, which is made if there is none",
		Example: "  uc ctx add home ssh://root@pi-1 ssh://root@pi-2", Args: atLeast(2),
		RunE: func(_ *cobra.Command, args []string) error {
			config, path, err := a.contexts()
			if err != nil {
				return err
			}
			entry := config.Contexts[args[0]]
			for _, address := range args[1:] {
				target, err := connect.ParseTarget(address)
				if err != nil {
					return err
				}
				target.KeyFile = key
				entry.Connections = append(entry.Connections, connect.ConnectionTo(target))
			}
			if config.Contexts == nil {
				config.Contexts = map[string]connect.Context{}
				config.CurrentContext = args[0]
			}
			config.Contexts[args[0]] = entry
			return config.Save(path)
		},
	}
	cmd.Flags().StringVarP(&key, "ssh-key", "i", "", "private key `file` for ssh")
	return cmd
}

func newCtxRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Forget a context; the cluster stays as it is", Args: exactly(1), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			config, path, err := a.contexts()
			if err != nil {
				return err
			}
			if _, there := config.Contexts[args[0]]; !there {
				_, err := config.Targets(args[0])
				return err
			}
			delete(config.Contexts, args[0])
			if config.CurrentContext == args[0] {
				config.CurrentContext = ""
			}
			return config.Save(path)
		},
	}
}
