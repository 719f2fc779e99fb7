package command

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
	"uncloud/internal/faults"
)

// asked is how many machines are asked at once.
const asked = 16

func newStore(a *app) *cobra.Command {
	return newGroup("store", "Look after the replicated store", newStoreStatus(a), newStoreCheck(a), newStoreBackup(a), newStoreRestore(a), newStoreReseed(a))
}

func newStoreStatus(a *app) *cobra.Command {
	var output format
	var machine string
	var all bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show how far a machine's store is, or compare those of all machines", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all && machine != "" {
				return usage("--all and --machine exclude each other").hint("uc store status --all")
			}
			if all {
				return a.compareStores(cmd.Context(), output)
			}
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Machine(machine).StoreStatus(cmd.Context(), connect.NewRequest(&uncloudv1.StoreStatusRequest{}))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.storeStatus(answer.Msg) })
		},
	}
	a.addMachine(cmd, &machine, "machine to look at by `name` or id (the connected one)")
	cmd.Flags().BoolVar(&all, "all", false, "compare the stores of all living machines: equal digests are equal states")
	addOutput(cmd, &output)
	return cmd
}

func (a *app) storeStatus(s *uncloudv1.StoreStatusResponse) {
	render.Fields(a.ui.Out, "site", s.GetSite(), "digest", s.GetDigest(), "size", render.Size(s.GetSize()),
		"tombstones", fmt.Sprint(s.GetTombstones()), "quarantined", fmt.Sprint(s.GetQuarantined()),
		"spoilt", fmt.Sprint(s.GetSpoilt()), "repaired", fmt.Sprint(s.GetRepaired()))
	if len(s.GetSites()) > 0 {
		a.ui.Out.Line("")
		sites := render.NewTable("SITE", "HEAD", "MISSING")
		for _, site := range s.GetSites() {
			sites.Row(site.GetSite(), fmt.Sprint(site.GetHead()), fmt.Sprint(site.GetMissing()))
		}
		sites.Write(a.ui.Out)
	}
	if len(s.GetPeers()) > 0 {
		a.ui.Out.Line("")
		peers := render.NewTable("PEER", "CONNECTED", "QUEUED", "MISSING", "LAST SYNC", "ERROR")
		for _, p := range s.GetPeers() {
			peers.Row(p.GetMachine(), yesNo(p.GetConnected()), render.Size(p.GetQueued()), fmt.Sprint(p.GetMissing()),
				a.ui.Since(when(p.GetLastSync())), cmp.Or(p.GetError(), "-"))
		}
		peers.Write(a.ui.Out)
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// machineStatus is one machine's answer in uc store status --all -o json.
type machineStatus struct {
	Machine string          `json:"machine"`
	Status  json.RawMessage `json:"status"`
	status  *uncloudv1.StoreStatusResponse
}

// compareStores asks all living machines. One that does not answer is told
// about and left out.
func (a *app) compareStores(ctx context.Context, output format) error {
	machines, err := a.living(ctx, nil)
	if err != nil {
		return err
	}
	answers := make([]*machineStatus, len(machines))
	err = a.each(ctx, machines, func(ctx context.Context, i int, m *uncloudv1.Machine) error {
		answer, err := a.client.Machine(m.GetId()).StoreStatus(ctx, connect.NewRequest(&uncloudv1.StoreStatusRequest{}))
		if err != nil {
			return err
		}
		status, err := render.Message(answer.Msg)
		answers[i] = &machineStatus{Machine: m.GetName(), Status: status, status: answer.Msg}
		return err
	})
	if err != nil {
		return err
	}
	var there []*machineStatus
	for _, answer := range answers {
		if answer != nil {
			there = append(there, answer)
		}
	}
	if output == jsonFormat {
		return render.Value(a.ui.Out, map[string]any{"machines": there})
	}
	a.storeTable(there)
	return nil
}

func (a *app) storeTable(answers []*machineStatus) {
	table := render.NewTable("MACHINE", "DIGEST", "SIZE", "MISSING", "QUARANTINED", "REPAIRED")
	for _, m := range answers {
		var missing uint64
		for _, site := range m.status.GetSites() {
			missing += site.GetMissing()
		}
		table.Row(a.ui.Out.Bold(m.Machine), m.status.GetDigest(), render.Size(m.status.GetSize()), fmt.Sprint(missing),
			fmt.Sprint(m.status.GetQuarantined()), fmt.Sprint(m.status.GetRepaired()))
	}
	table.Write(a.ui.Out)
}

// each asks machines at once and says of each that fails why, in the order of
// the machines. It fails only when all did, or when it was interrupted.
func (a *app) each(ctx context.Context, machines []*uncloudv1.Machine, ask func(context.Context, int, *uncloudv1.Machine) error) error {
	var mu sync.Mutex
	failed := map[int]error{}
	var group errgroup.Group
	group.SetLimit(asked)
	for i, m := range machines {
		group.Go(func() error {
			if err := ask(ctx, i, m); err != nil {
				mu.Lock()
				failed[i] = err
				mu.Unlock()
			}
			return nil
		})
	}
	_ = group.Wait() // failures are kept by machine
	if ctx.Err() != nil {
		return faults.New(faults.Interrupted, "interrupted").Because(ctx.Err())
	}
	if len(machines) > 0 && len(failed) == len(machines) {
		return failed[0]
	}
	for i, m := range machines {
		if err := failed[i]; err != nil {
			a.ui.Warn("%s: %s", m.GetName(), faults.Of(err).Sentence)
		}
	}
	return nil
}
