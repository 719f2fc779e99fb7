package fleet

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"uncloud/agent/internal/hostos"
	"uncloud/internal/spec"
)

// Version names a commit of a machine's store.
type Version struct {
	Site string
	Seq  uint64
}

// Tx is a transaction on the replicated state.
type Tx interface {
	State() *spec.State
	Put(rows ...spec.Row)
	Delete(table, key string)
}

// Store is this machine's copy of the replicated state.
type Store interface {
	State() *spec.State
	// Update runs fn in a transaction and returns when it is durable.
	Update(ctx context.Context, fn func(Tx) error) error
	// Subscribe wakes after commits, local and remote. Wakes may be merged.
	Subscribe() (wake <-chan struct{}, cancel func())
	// Ready tells whether the machine has caught up with the others.
	Ready() bool
	// Head is the newest commit of this machine.
	Head() Version
	// WaitFor returns when the store has the version.
	WaitFor(ctx context.Context, v Version) error
}

// Members is who lives, by this machine's view.
type Members interface {
	Alive() spec.Alive
	Subscribe() (wake <-chan struct{}, cancel func())
}

// Host is this machine's system; *hostos.Client is it.
type Host interface {
	Is() bool // NixOS
	Generations() ([]hostos.Info, error)
	Attempt() (hostos.Attempt, error)
	Order(o hostos.Order) error
	Ordered(id string) (o hostos.Order, known bool, err error)
	// Watch sends on wake when the attempt changes, until ctx ends.
	Watch(ctx context.Context, wake chan<- struct{}) error
}

// Witness asks another machine to confirm the turn of this one. The answer is
// that machine's newest commit.
type Witness func(ctx context.Context, machine, upgrade string, v Version) (Version, error)

// Policy is what this machine's owner decided about upgrades.
type Policy struct {
	// Flake is followed by an upgrade that names nothing; Name is this machine's
	// configuration in a flake.
	Flake, Name string
	// Within is how long a new generation waits to be confirmed.
	Within time.Duration
	// NoRestart refuses upgrades that restart the machine.
	NoRestart bool
	// Drain moves replicas away also where the upgrade does not ask for it.
	Drain bool
}

// DefaultWithin is Policy.Within where nothing was decided: a Raspberry Pi has
// booted by then, and has pulled nothing, because its images are there.
const DefaultWithin = 5 * time.Minute

// Config is what a Fleet is made of. Everything is required.
type Config struct {
	Self    string // machine id
	Store   Store
	Members Members
	Host    Host
	Witness Witness
	// Ensure asks the engine for a replica of this machine: nil when it runs and
	// is healthy now, whatever the rows say that an earlier boot wrote.
	Ensure func(ctx context.Context, replica string) error
	Policy Policy
	NewID  func() (string, error)
	// Event is a row that tells what happened here.
	Event func(kind, subject, text string) spec.Event
	Now   func() time.Time
	Log   *slog.Logger
}

// Fleet is one machine's part in upgrades.
type Fleet struct {
	Config
	// wellSince is since when all that was asked has been well; of Run alone.
	wellSince time.Time
	// down is since when machines whose turn it is are not seen; of Run alone.
	down map[string]time.Time
}

// New makes a Fleet. Run begins.
func New(c Config) (*Fleet, error) {
	if c.Self == "" || c.Store == nil || c.Members == nil || c.Host == nil || c.Witness == nil || c.Ensure == nil || c.NewID == nil || c.Event == nil || c.Now == nil || c.Log == nil {
		return nil, errors.New("fleet: the configuration is not complete")
	}
	if c.Policy.Within == 0 {
		c.Policy.Within = DefaultWithin
	}
	return &Fleet{Config: c, down: map[string]time.Time{}}, nil
}

const (
	// lookBusy is how often a turn under way is looked at without a wake: some
	// of what it waits for is only time.
	lookBusy = 5 * time.Second
	// lookIdle is the safety net when there is no upgrade.
	lookIdle = time.Minute
)

// Run takes this machine's turns, until ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	rows, cancel := f.Store.Subscribe()
	defer cancel()
	members, stop := f.Members.Subscribe()
	defer stop()
	journal := make(chan struct{}, 1)
	if f.Host.Is() {
		go f.watch(ctx, journal)
	}
	for {
		next := lookIdle
		if f.Store.Ready() {
			busy, err := f.look(ctx)
			if err != nil && ctx.Err() == nil {
				f.Log.Warn("take the turn of an upgrade", "err", err)
			}
			if busy {
				next = lookBusy
			}
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			return nil
		case <-rows:
		case <-members:
		case <-journal:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// watch follows the host's journal. Without it the looks of a turn under way
// see it a little later.
func (f *Fleet) watch(ctx context.Context, wake chan<- struct{}) {
	if err := f.Host.Watch(ctx, wake); err != nil && ctx.Err() == nil {
		f.Log.Warn("the host's journal is not watched", "err", err)
	}
}

// look does what is to be done now. busy tells that an upgrade is under way.
func (f *Fleet) look(ctx context.Context) (busy bool, err error) {
	state := f.Store.State()
	_, running := state.CurrentUpgrade()
	err = f.takeTurn(ctx)
	if running {
		err = errors.Join(err, f.oversee(ctx))
	}
	turn, ok := state.Turns[f.Self]
	return running || ok && !turn.Stage.Ended(), err
}
