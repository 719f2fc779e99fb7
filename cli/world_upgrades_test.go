package cli_test

import (
	"context"
	"strings"
	"time"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/fakeapi"
	"uncloud/internal/faults"
)

const (
	oldSystem = "0123456789abcdfghijklmnpqrsvwxyz-nixos-system-m1-26.05"
	newSystem = "zyxwvsrqpnmlkjihgfdcba9876543210-nixos-system-m1-26.11"
)

func (w *world) upgrades(a *fakeapi.API) {
	a.ListGenerations, a.Upgrade, a.WatchUpgrade, a.StopUpgrade = w.listGenerations, w.upgrade, w.watchUpgrade, w.stopUpgrade
}

func (w *world) listGenerations(machine string, _ *uncloudv1.ListGenerationsRequest) (*uncloudv1.ListGenerationsResponse, error) {
	name, err := w.reach(machine)
	if err != nil {
		return nil, err
	}
	if name != "m1" {
		return nil, notNixOS(name)
	}
	return &uncloudv1.ListGenerationsResponse{Machine: name, Generations: []*uncloudv1.Generation{
		{Number: 11, System: "/nix/store/" + newSystem, NixosVersion: "26.11", MadeAt: ago(48 * time.Hour)},
		{Number: 12, System: "/nix/store/" + oldSystem, NixosVersion: "26.05", MadeAt: ago(time.Hour), Current: true, Booted: true, Default: true},
	}}, nil
}

func notNixOS(machine string) error {
	return faults.New(faults.NotNixOS, "machine %s does not run NixOS, so it has no generations", machine).
		WithHint("upgrade its system with its own tools; its services need nothing but the agent")
}

// status is an upgrade of m1 and m2 with m1 in a stage.
func (w *world) status(stage, turn string) *uncloudv1.UpgradeStatus {
	return &uncloudv1.UpgradeStatus{
		Id: "upg_x", Stage: stage, StartedBy: "m1", StartedAt: ago(time.Minute), Flake: "github:me/machines",
		Turns: []*uncloudv1.UpgradeTurn{
			{Machine: "m1", MachineId: "mch_one", State: "up", Stage: turn, ToSystem: newSystem},
			{Machine: "m2", MachineId: "mch_two", State: "up"},
		},
	}
}

func (w *world) upgrade(ctx context.Context, r *uncloudv1.UpgradeRequest, tell func(*uncloudv1.UpgradeStatus) error) error {
	w.note("upgrade machines=%s all=%t flake=%s system=%s generation=%d rollback=%t restart=%t drain=%t", strings.Join(r.GetMachines(), ","), r.GetAll(),
		r.GetFlake(), r.GetSystem(), r.GetGeneration(), r.GetRollback(), r.GetRestart(), r.GetDrain())
	for _, name := range r.GetMachines() {
		if name != "m1" {
			return notNixOS(name)
		}
	}
	for _, stage := range []string{"", "staging", "switching", "watching"} {
		if err := tell(w.status("running", stage)); err != nil {
			return err
		}
	}
	switch {
	case w.is("upgrade-hangs"):
		w.happens("watching")
		<-ctx.Done()
		return ctx.Err()
	case w.is("upgrade-cut"): // its own turn: the agent ends
		w.tell("upgrade-goes-on", "")
		return faults.New(faults.Unreachable, "the connection is lost")
	}
	return w.upgradeEnds(tell)
}

func (w *world) upgradeEnds(tell func(*uncloudv1.UpgradeStatus) error) error {
	if w.is("upgrade-fails") {
		end := w.status("failed", "failed")
		end.Turns[0].Error = "github:me/machines does not build: attribute 'foo' missing"
		end.Turns[0].Lines = []string{"error:", "attribute 'foo' missing"}
		end.Error = "m1: " + end.Turns[0].GetError()
		return tell(end)
	}
	end := w.status("done", "done")
	end.Turns[1].Stage, end.Turns[1].ToSystem = "done", newSystem
	return tell(end)
}

func (w *world) watchUpgrade(_ context.Context, r *uncloudv1.WatchUpgradeRequest, tell func(*uncloudv1.UpgradeStatus) error) error {
	w.note("watch id=%s", r.GetId())
	return w.upgradeEnds(tell)
}

func (w *world) stopUpgrade(*uncloudv1.StopUpgradeRequest) (*uncloudv1.UpgradeStatus, error) {
	if w.is("no-upgrade") {
		return nil, faults.New(faults.NotFound, "no upgrade is under way").WithHint("see what the machines run: uc machine ls")
	}
	return w.status("stopped", "returning"), nil
}
