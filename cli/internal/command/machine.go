package command

import (
	"context"
	"slices"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

func newMachine(a *app) *cobra.Command {
	return newGroup("machine", "Make a cluster, and look after its machines",
		newMachineInit(a), newMachineTicket(a), newMachineLs(a), newMachineInspect(a),
		newMachineRename(a), newMachineLabel(a), newMachineCA(a), newMachineGenerations(a), newMachineUpgrade(a), newMachineRollback(a), newMachineRm(a))
}

// machines are the members with these names or ids, or all of them for none.
func (a *app) machines(ctx context.Context, names []string) ([]*uncloudv1.Machine, error) {
	client, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := client.Cluster.ListMachines(ctx, connect.NewRequest(&uncloudv1.ListMachinesRequest{}))
	if err != nil {
		return nil, err
	}
	all := answer.Msg.GetMachines()
	if len(names) == 0 {
		return all, nil
	}
	var chosen []*uncloudv1.Machine
	for _, name := range names {
		i := slices.IndexFunc(all, func(m *uncloudv1.Machine) bool { return m.GetName() == name || m.GetId() == name })
		if i < 0 {
			return nil, faults.New(faults.NotFound, "there is no machine %s", name).WithHint("uc machine ls")
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// living are the machines to ask: those that are named, or every one that is
// up. A machine that is named and down is asked too, and its failure told; one
// that was not named and is down is told about and left out.
func (a *app) living(ctx context.Context, names []string) ([]*uncloudv1.Machine, error) {
	machines, err := a.machines(ctx, names)
	if err != nil || len(names) > 0 {
		return machines, err
	}
	var up []*uncloudv1.Machine
	for _, m := range machines {
		if m.GetState() != "up" {
			a.ui.Note("%s is %s: left out", m.GetName(), m.GetState())
			continue
		}
		up = append(up, m)
	}
	return up, nil
}
