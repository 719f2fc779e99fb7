package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// DefaultName is the lab that is meant when no name is given.
const DefaultName = "lab"

// maxMachines keeps the host part of an address clear of the outside's.
const maxMachines = 200

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,23}$`)

// Options say what lab to make. The zero value is a cluster of three called "lab".
type Options struct {
	Name     string       // default DefaultName
	Machines int          // default 3
	Bare     bool         // machines only, no cluster
	Bin      string       // directory with uc and uncloudd; default Bin()
	Log      *slog.Logger // progress, a line a step; default none
}

// Lab is a number of machines on one underlay.
type Lab struct {
	Name string
	log  *slog.Logger
	dir  string // disks
	bin  string // product binaries, seen at /opt/uncloud/bin
}

// Open gives a handle on a lab, whether it exists or not. It touches nothing.
func Open(opts Options) (*Lab, error) {
	name := opts.Name
	if name == "" {
		name = DefaultName
	}
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("%q is no name for a lab: use up to 24 of a-z, 0-9 and -", name)
	}
	bin := opts.Bin
	if bin == "" {
		bin = Bin()
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Lab{Name: name, log: log, dir: filepath.Join(stateDir(), name), bin: bin}, nil
}

// Up makes a lab and boots its machines m1..mN. Unless opts.Bare, it makes
// them one cluster and returns when every machine says that all are up. What
// an earlier lab of this name left behind is removed first; a lab of this name
// with a running machine is an error. If Up fails, nothing of it stays.
func Up(ctx context.Context, opts Options) (*Lab, error) {
	if opts.Machines == 0 {
		opts.Machines = 3
	}
	if opts.Machines < 1 || opts.Machines > maxMachines {
		return nil, fmt.Errorf("a lab has 1 to %d machines, not %d", maxMachines, opts.Machines)
	}
	l, err := Open(opts)
	if err != nil {
		return nil, err
	}
	if err := Ready(); err != nil {
		return nil, err
	}
	unlock, err := l.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := l.clear(ctx); err != nil {
		return nil, err
	}
	if err := l.up(ctx, opts); err != nil {
		return nil, errors.Join(err, l.clean(context.WithoutCancel(ctx)))
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context, opts Options) error {
	if err := l.prepare(ctx); err != nil {
		return err
	}
	began := time.Now()
	var group errgroup.Group
	for n := 1; n <= opts.Machines; n++ {
		group.Go(func() error { return l.machine(n).create(ctx) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	l.log.Info("machines are up", "machines", opts.Machines, "took", time.Since(began).Round(time.Millisecond))
	if opts.Bare {
		return nil
	}
	return l.cluster(ctx)
}

// clear makes room for a new lab: it refuses to throw away one that runs.
func (l *Lab) clear(ctx context.Context) error {
	machines, err := l.Machines()
	if err != nil {
		return err
	}
	for _, m := range machines {
		if m.Running() {
			return fmt.Errorf("lab %s is up; take it down first: ./dev lab down --name %s", l.Name, l.Name)
		}
	}
	return l.clean(ctx)
}

// prepare makes what all machines share: the root tree, the underlay, the outside.
func (l *Lab) prepare(ctx context.Context) error {
	tree, err := ensureTree(ctx, l.log)
	if err != nil {
		return err
	}
	for _, dir := range []string{l.dir, l.bin} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// A disk is a difference to one tree, so the lab keeps to the one it began with.
	if err := os.Symlink(tree, l.tree()); err != nil {
		return err
	}
	if err := l.makeKey(); err != nil {
		return err
	}
	if err := l.makeUnderlay(ctx); err != nil {
		return err
	}
	return l.Outside().create(ctx)
}

// Add makes and boots one more machine, which belongs to no cluster.
func (l *Lab) Add(ctx context.Context) (*Machine, error) {
	if err := l.mustExist(); err != nil {
		return nil, err
	}
	unlock, err := l.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	machines, err := l.Machines()
	if err != nil {
		return nil, err
	}
	n := 1
	if len(machines) > 0 {
		n = machines[len(machines)-1].n + 1
	}
	if n > maxMachines {
		return nil, fmt.Errorf("lab %s is full: %d machines", l.Name, maxMachines)
	}
	m := l.machine(n)
	if err := m.create(ctx); err != nil {
		return nil, errors.Join(err, m.destroy(context.WithoutCancel(ctx)))
	}
	return m, nil
}

// Down removes the lab: machines, disks, network, cgroups. No error when there is none.
func (l *Lab) Down(ctx context.Context) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(l.clean(ctx), os.Remove(l.lockPath()))
}

// clean removes all traces of the lab, whatever state they are in.
func (l *Lab) clean(ctx context.Context) error {
	machines, err := l.Machines()
	if err != nil {
		return err
	}
	var group errgroup.Group
	for _, m := range append(machines, l.Outside()) {
		group.Go(func() error { return m.destroy(ctx) })
	}
	err = errors.Join(group.Wait(), l.removeUnderlay(ctx), removeCgroup(l.cgroup()), os.RemoveAll(l.dir))
	_ = os.Remove(filepath.Dir(l.dir)) // stays while there are other labs
	return err
}

// Machines lists the machines of the lab by number, running or not.
func (l *Lab) Machines() ([]*Machine, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var machines []*Machine
	for _, entry := range entries {
		digits, ok := strings.CutPrefix(entry.Name(), "m")
		if n, err := strconv.Atoi(digits); ok && err == nil {
			machines = append(machines, l.machine(n))
		}
	}
	slices.SortFunc(machines, func(a, b *Machine) int { return a.n - b.n })
	return machines, nil
}

// Machine finds a machine by name: "m2".
func (l *Lab) Machine(name string) (*Machine, error) {
	if err := l.mustExist(); err != nil {
		return nil, err
	}
	if name == outsideName {
		return l.Outside(), nil
	}
	machines, err := l.Machines()
	if err != nil {
		return nil, err
	}
	names := make([]string, len(machines))
	for i, m := range machines {
		if m.Name == name {
			return m, nil
		}
		names[i] = m.Name
	}
	return nil, fmt.Errorf("lab %s has no machine %q; it has %s", l.Name, name, strings.Join(names, ", "))
}

// M is machine number n, counted from 1, for callers who know that it is there.
func (l *Lab) M(n int) *Machine { return l.machine(n) }

// Outside is a client on the underlay that belongs to no cluster: 192.0.2.254,
// the default gateway of all machines. It also has 198.51.100.1, an address
// "on the internet" that answers only those who arrive with an underlay address.
func (l *Lab) Outside() *Machine { return &Machine{Name: outsideName, lab: l, n: outsideNumber} }

func (l *Lab) machine(n int) *Machine { return &Machine{Name: fmt.Sprintf("m%d", n), lab: l, n: n} }

// tree is a link to the read-only root that all machines of the lab share.
func (l *Lab) tree() string { return filepath.Join(l.dir, "tree") }

// Exists tells whether there is a lab of this name, running or not.
func (l *Lab) Exists() bool {
	_, err := os.Stat(l.dir)
	return err == nil
}

func (l *Lab) mustExist() error {
	if l.Exists() {
		return nil
	}
	return fmt.Errorf("there is no lab %s; make one: ./dev lab up --name %s", l.Name, l.Name)
}
