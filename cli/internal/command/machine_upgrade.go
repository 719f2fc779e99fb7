package command

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
)

// upgradeFlags are the command line of machine upgrade.
type upgradeFlags struct {
	request     uncloudv1.UpgradeRequest
	skipDown    bool
	watch, stop bool
	output      format
}

func newMachineUpgrade(a *app) *cobra.Command {
	f := &upgradeFlags{}
	cmd := &cobra.Command{
		Use: "upgrade MACHINE...|--all", Short: "Take machines to another generation of NixOS, one after another", ValidArgsFunction: a.completeMachines,
		Long: "Take machines to another generation of NixOS, one after another. Each builds or fetches its system, runs\n" +
			"it, and keeps it when at least half of the other machines confirm that it is as well as before; otherwise\n" +
			"it returns to what it ran, by itself, and the machines after it are left alone. Without --flake, --system\n" +
			"or --generation each goes to the flake that it is configured to follow.\n\n" +
			"The machines do this by themselves: Ctrl-C ends only the watching, and the same command, or --watch,\n" +
			"watches on.",
		Example: "  uc machine upgrade --all --flake github:you/machines\n" +
			"  uc machine upgrade pi-1 --flake github:you/machines#pi --reboot --drain\n  uc machine upgrade --stop",
		RunE: func(cmd *cobra.Command, args []string) error {
			f.request.Machines = args
			if err := f.check(); err != nil {
				return err
			}
			switch {
			case f.stop:
				return a.stopUpgrade(cmd.Context(), f.output)
			case f.watch:
				return a.watchUpgrade(cmd.Context(), f.output)
			}
			if f.skipDown {
				if err := a.leaveOutDown(cmd.Context(), &f.request); err != nil {
					return err
				}
			}
			return a.upgrade(cmd.Context(), f.output, &f.request)
		},
	}
	f.add(cmd)
	return cmd
}

func (f *upgradeFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.request.All, "all", false, "every machine that runs NixOS, the connected one as the last")
	cmd.Flags().StringVar(&f.request.Flake, "flake", "", "`reference` of a flake; its nixosConfigurations has each machine by its host name, or #NAME says which")
	cmd.Flags().StringVar(&f.request.System, "system", "", "`path` of a system in the Nix store, which each machine has or can fetch")
	cmd.Flags().Int32Var(&f.request.Generation, "generation", 0, "`number` of a generation that the machine has: uc machine generations")
	cmd.Flags().BoolVar(&f.request.Restart, "reboot", false, "boot the generation, instead of switching to it: needed for another kernel")
	cmd.Flags().BoolVar(&f.request.Drain, "drain", false, "move replicas away first; those with volumes on the machine stay")
	cmd.Flags().BoolVar(&f.skipDown, "skip-down", false, "with --all: leave out machines that are down, instead of upgrading none")
	cmd.Flags().BoolVar(&f.watch, "watch", false, "watch the upgrade that is under way, or tell how the last one ended")
	cmd.Flags().BoolVar(&f.stop, "stop", false, "end the upgrade that is under way; the machine whose turn it is returns")
	addOutput(cmd, &f.output)
}

func (f *upgradeFlags) check() error {
	named := len(f.request.Machines) > 0 || f.request.All
	switch {
	case f.watch || f.stop:
		if named || f.watch && f.stop {
			return usage("--watch and --stop stand alone").hint("uc machine upgrade --watch")
		}
	case !named:
		return usage("no machine is named").hint("uc machine upgrade MACHINE..., or: uc machine upgrade --all")
	case len(f.request.Machines) > 0 && f.request.All:
		return usage("either machines are named or --all is given").hint("uc machine upgrade --all")
	case f.skipDown && !f.request.All:
		return usage("--skip-down is for --all: who is named is wanted").hint("uc machine upgrade --all --skip-down")
	}
	return nil
}

// leaveOutDown turns a request for all machines into one for those of them that
// are up, the connected one as the last, and tells who is left out.
func (a *app) leaveOutDown(ctx context.Context, request *uncloudv1.UpgradeRequest) error {
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	answer, err := client.Cluster.ListMachines(ctx, connect.NewRequest(&uncloudv1.ListMachinesRequest{}))
	if err != nil {
		return err
	}
	var up, connected []string
	for _, m := range answer.Msg.GetMachines() {
		switch {
		case m.GetGeneration() == "" && m.GetNixosVersion() == "": // not NixOS
		case m.GetState() != "up":
			a.ui.Note("%s is %s: left out", m.GetName(), m.GetState())
		case m.GetId() == answer.Msg.GetAnsweredBy():
			connected = append(connected, m.GetName())
		default:
			up = append(up, m.GetName())
		}
	}
	if machines := append(up, connected...); len(machines) > 0 { // else the refusal of all says why
		request.All, request.Machines = false, machines
	}
	return nil
}

// upgrade begins an upgrade, or finds it under way, and watches it.
func (a *app) upgrade(ctx context.Context, output format, request *uncloudv1.UpgradeRequest) error {
	return a.followUpgrade(ctx, output, func(ctx context.Context) (*upgradeStream, error) {
		return a.client.Upgrades("").Upgrade(ctx, connect.NewRequest(request))
	})
}

func (a *app) watchUpgrade(ctx context.Context, output format) error {
	return a.followUpgrade(ctx, output, func(ctx context.Context) (*upgradeStream, error) {
		return a.client.Upgrades("").WatchUpgrade(ctx, connect.NewRequest(&uncloudv1.WatchUpgradeRequest{}))
	})
}

func (a *app) stopUpgrade(ctx context.Context, output format) error {
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	answer, err := client.Upgrades("").StopUpgrade(ctx, connect.NewRequest(&uncloudv1.StopUpgradeRequest{}))
	if err != nil {
		return err
	}
	return a.show(output, answer.Msg, func() {
		a.ui.Out.Line("%s the upgrade of %s", a.ui.Out.Good("ended"), turnNames(answer.Msg))
	})
}
