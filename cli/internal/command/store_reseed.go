package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

type storeReseed struct {
	*app
	from       string
	force, yes bool
}

func newStoreReseed(a *app) *cobra.Command {
	r := &storeReseed{app: a}
	cmd := &cobra.Command{
		Use: "reseed", Short: "Replace the connected machine's store by a copy of another machine's", Args: exactly(0),
		Long: "Replace the connected machine's store by a copy of another machine's: where uc store check finds problems, or\n" +
			"uc store status --all shows a digest that stays another than those of the others. The machine that has most\n" +
			"gives the copy, which is checked before it is taken. The machine then asks all others for what happened since,\n" +
			"and acts when it has it. Containers run on meanwhile; the old store is kept beside the new one.\n\n" +
			"It is refused where no other machine lives, and where the store holds changes that no other living machine\n" +
			"has. With --force those are dropped.\n\n" +
			"On a machine whose agent does not start: uncloudd restore FILE, with what uc store backup FILE wrote on another",
		Example: "  uc --connect ssh://root@pi-1 store reseed",
		RunE:    func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context()) },
	}
	cmd.Flags().StringVar(&r.from, "from", "", "`machine` that gives the copy, by name or id (the one that has most)")
	_ = cmd.RegisterFlagCompletionFunc("from", a.completeMachines) // fails only for a flag that is not there
	cmd.Flags().BoolVar(&r.force, "force", false, "drop changes that no other living machine has")
	a.addYes(cmd, &r.yes)
	return cmd
}

func (r *storeReseed) run(ctx context.Context) error {
	self, others, err := r.others(ctx)
	if err != nil {
		return err
	}
	donors, err := r.nothingLost(ctx, others)
	if err != nil {
		return err
	}
	donor, err := r.choose(self, donors)
	if err != nil {
		return err
	}
	if err := r.confirm(ctx, r.yes, fmt.Sprintf("drop the store of %s and take that of %s?", self, donor.machine.GetName())); err != nil {
		return err
	}
	site, err := r.take(ctx, donor.machine)
	if err != nil {
		return err
	}
	r.ui.Out.Line("%s: %s has the store of %s and goes on as site %s", r.ui.Out.Good("reseeded"), self, donor.machine.GetName(), site)
	return nil
}

// others are the name of the connected machine, and the other machines that live.
func (r *storeReseed) others(ctx context.Context) (self string, others []*uncloudv1.Machine, err error) {
	client, err := r.connect(ctx)
	if err != nil {
		return "", nil, err
	}
	info, err := client.Machine("").Info(ctx, connect.NewRequest(&uncloudv1.InfoRequest{}))
	if err != nil {
		return "", nil, err
	}
	living, err := r.living(ctx, nil)
	if err != nil {
		return "", nil, err
	}
	others = slices.DeleteFunc(living, func(m *uncloudv1.Machine) bool { return m.GetId() == info.Msg.GetMachineId() })
	if len(others) == 0 {
		return "", nil, faults.New(faults.MachineDown, "no other machine lives, so none can give a copy of the state").
			WithHint("go on with a backup: uc store restore FILE")
	}
	return info.Msg.GetName(), others, nil
}

// donor is a machine that could give its store.
type donor struct {
	machine *uncloudv1.Machine
	status  *uncloudv1.StoreStatusResponse
}

// ask is those of the machines that say how far their stores are.
func (r *storeReseed) ask(ctx context.Context, machines []*uncloudv1.Machine) ([]donor, error) {
	all := make([]donor, len(machines))
	err := r.each(ctx, machines, func(ctx context.Context, i int, m *uncloudv1.Machine) error {
		status, err := r.status(ctx, m.GetId())
		if err == nil {
			all[i] = donor{m, status}
		}
		return err
	})
	return slices.DeleteFunc(all, func(d donor) bool { return d.status == nil }), err
}

func (r *storeReseed) status(ctx context.Context, machine string) (*uncloudv1.StoreStatusResponse, error) {
	answer, err := r.client.Machine(machine).StoreStatus(ctx, connect.NewRequest(&uncloudv1.StoreStatusRequest{}))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

const (
	// onTheirWay is how long changes of the connected machine may take to reach
	// the others: one that lives writes some now and then.
	onTheirWay = 3 * time.Second
	askAgain   = 500 * time.Millisecond
)

// nothingLost makes sure that the others have all that the connected machine
// has, or that what they lack may be dropped. It returns those who answer.
func (r *storeReseed) nothingLost(ctx context.Context, others []*uncloudv1.Machine) ([]donor, error) {
	own, err := r.status(ctx, "")
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(onTheirWay); ; {
		donors, err := r.ask(ctx, others)
		if err != nil {
			return nil, err
		}
		only := unshared(own, donors)
		switch {
		case len(only) == 0:
			return donors, nil
		case r.force:
			r.ui.Warn("dropping changes that no other living machine has: %s", strings.Join(only, ", "))
			return donors, nil
		case time.Now().After(deadline):
			return nil, faults.New(faults.Conflict, "the store holds changes that no other living machine has: %s", strings.Join(only, ", ")).
				WithHint("try again when they have them, which uc store status --all shows; or drop them: uc store reseed --force")
		}
		select {
		case <-ctx.Done():
			return nil, faults.New(faults.Interrupted, "nothing was changed").Because(ctx.Err())
		case <-time.After(askAgain):
		}
	}
}

// unshared is what of a store may be nowhere else, by the sites that made it. Of
// a machine with gaps nobody knows here where they are, so it counts for no
// change of that site.
func unshared(own *uncloudv1.StoreStatusResponse, donors []donor) []string {
	whole := map[string]uint64{}
	for _, d := range donors {
		for _, site := range d.status.GetSites() {
			if site.GetMissing() == 0 {
				whole[site.GetSite()] = max(whole[site.GetSite()], site.GetHead())
			}
		}
	}
	var only []string
	for _, site := range own.GetSites() {
		if there := whole[site.GetSite()]; site.GetHead() > there {
			only = append(only, fmt.Sprintf("up to %d of site %s", site.GetHead()-there, site.GetSite()))
		}
	}
	return only
}

// choose is the machine that gives its store: the one that was named, or else
// the one that lacks least. Of several it is one with the digest that most have.
func (r *storeReseed) choose(self string, donors []donor) (donor, error) {
	if r.from != "" {
		i := slices.IndexFunc(donors, func(d donor) bool { return d.machine.GetName() == r.from || d.machine.GetId() == r.from })
		if i < 0 {
			return donor{}, faults.New(faults.NotFound, "there is no living machine %s beside %s", r.from, self).WithHint("uc machine ls")
		}
		return donors[i], nil
	}
	same := map[string]int{}
	for _, d := range donors {
		same[d.status.GetDigest()]++
	}
	return slices.MinFunc(donors, func(a, b donor) int {
		return cmp.Or(cmp.Compare(lacks(a.status), lacks(b.status)), cmp.Compare(same[b.status.GetDigest()], same[a.status.GetDigest()]),
			cmp.Compare(a.machine.GetName(), b.machine.GetName()))
	}), nil
}

// lacks is how many changes a machine knows of and does not have.
func lacks(s *uncloudv1.StoreStatusResponse) (n uint64) {
	for _, site := range s.GetSites() {
		n += site.GetMissing()
	}
	for _, p := range s.GetPeers() {
		n += p.GetMissing()
	}
	return n
}

// take fetches the store of a machine, and puts it in place of the connected
// machine's own.
func (r *storeReseed) take(ctx context.Context, from *uncloudv1.Machine) (site string, err error) {
	dir, err := os.MkdirTemp("", "uc-reseed-")
	if err != nil {
		return "", faults.New(faults.Invalid, "there is no place for the copy: %w", err).WithHint("look for space: df -h /tmp; or name another folder: TMPDIR=DIR uc store reseed")
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "store.db")
	if _, err := r.backup(ctx, from.GetId(), path); err != nil {
		return "", err
	}
	f, about, err := openBackup(path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // read only
	answer, err := (&storeRestore{app: r.app}).send(ctx, f, about)
	return answer.GetSite(), err
}
