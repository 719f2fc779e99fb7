package rollout

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"uncloud/agent/internal/schedule"
	"uncloud/agent/internal/stall"
	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// Version names a commit of a machine's store.
type Version struct {
	Site string
	Seq  uint64
}

// Tx is a transaction on the replicated state. State is the state at its
// beginning; whether it shows what the transaction wrote does not matter here.
type Tx interface {
	State() *spec.State
	Put(rows ...spec.Row) error
	Delete(table, key string) error
}

// Store is this machine's copy of the replicated state.
type Store interface {
	// State is the newest state; it includes every Update that returned.
	State() *spec.State
	// Update runs fn in a transaction and returns when it is durable. An error
	// of fn ends the transaction without a trace and is returned as it is.
	Update(ctx context.Context, fn func(Tx) error) (Version, error)
	// Subscribe wakes after commits, local and remote. Wakes may be merged.
	Subscribe() (wake <-chan struct{}, cancel func())
	// Ready tells whether the machine has caught up with the others.
	Ready() bool
}

// Members is who lives, by this machine's view. Gossip is it.
type Members interface {
	Alive() spec.Alive
	Subscribe() (wake <-chan struct{}, cancel func())
}

// Peers calls machines, this one included. Every call is about rows that the
// given version includes: the machine waits until it has it.
type Peers interface {
	// RunReplica runs a replica and returns when it is healthy, or why it is
	// not. An error says that the machine could not be asked.
	RunReplica(ctx context.Context, machine, replica string, v Version, skipHealth bool) (Verdict, error)
	// RetireReplica stops and removes a replica's container, if there is one.
	RetireReplica(ctx context.Context, machine, replica string, v Version) error
	// AwaitLoaded returns when names and ingress of the machine use a state that has v.
	AwaitLoaded(ctx context.Context, machine string, v Version) error
	// RemoveVolume removes a volume with its content from the machine that
	// its row named. No error when there is none.
	RemoveVolume(ctx context.Context, v spec.Volume) error
	// HasImages is which of these images the machine has.
	HasImages(ctx context.Context, machine string, images []string) ([]string, error)
}

// Verdict is how a replica that was asked to run turned out.
type Verdict struct {
	// Fault is what is wrong with the container; nil when it takes traffic.
	Fault error
	// Logs are the container's last lines when Fault is set.
	Logs []string
	// Version is the commit of the machine that says what runs; zero when unknown.
	Version Version
}

// Config is what a Driver is made of. Everything is required.
type Config struct {
	Self    string // machine id
	Store   Store
	Members Members
	Peers   Peers
	Random  io.Reader
	Now     func() time.Time
	Log     *slog.Logger
}

// Driver carries out plans. One machine has one.
type Driver struct {
	Config
	slots slots

	mu sync.Mutex
	// claiming is held while a rollout is claimed, so that Supervise does not
	// take a rollout of this process for one that an earlier process left.
	claiming sync.Mutex
	driving  map[string]bool // by rollout
	troubles map[string]trouble
	poke     chan struct{}
	turn     stall.Turn // of Supervise
	whole    time.Time  // since when every member lives; of Supervise alone
}

// New makes a Driver. It does nothing before it is asked to.
func New(c Config) (*Driver, error) {
	if c.Self == "" || c.Store == nil || c.Members == nil || c.Peers == nil || c.Random == nil || c.Now == nil || c.Log == nil {
		return nil, errors.New("rollout: the configuration is not complete")
	}
	return &Driver{Config: c, driving: map[string]bool{}, troubles: map[string]trouble{}, poke: make(chan struct{}, 1)}, nil
}

// Bounds of what a rollout waits for.
const (
	// perMachine bounds how many replicas a driver starts on one machine at a
	// time: enough to keep a disk and a pull busy, few enough for a Raspberry Pi.
	perMachine = 4
	// loadedWithin bounds how long a machine may take to say that names and
	// ingress follow. One that does not is passed over: it is no reason to stop.
	loadedWithin = 10 * time.Second
	// behindWithin is for one that was passed over before in the same rollout: a
	// full disk or a broken link would cost each step all of loadedWithin again.
	behindWithin = 500 * time.Millisecond
	// visibleWithin bounds how long a healthy verdict may take to arrive as a row.
	visibleWithin = 10 * time.Second
	// reachWithin bounds how often a call is repeated to a machine that lives
	// but does not answer, as while its agent restarts.
	reachWithin = 30 * time.Second
	// busyWithin is how long a machine may be called dead while a step on it is
	// under way. A small one stalls for two seconds when it unpacks an image.
	busyWithin = 5 * time.Second
	// runWithin bounds a start with its image pull. The machine has tighter
	// bounds of its own; this one only keeps a lost answer from blocking for ever.
	runWithin = 30 * time.Minute
	// returnWithin bounds the way back. What it did not reach is made to fit later.
	returnWithin = 10 * time.Minute
	// goneWithin is added to the stop grace when waiting for containers to end.
	goneWithin = 20 * time.Second
	// askWithin bounds the question which images a machine has.
	askWithin = 5 * time.Second
)

// view is the state and who lives, now.
func (d *Driver) view(images plan.Images) plan.View { return d.viewOf(d.Store.State(), images) }

func (d *Driver) viewOf(s *spec.State, images plan.Images) plan.View {
	return plan.View{State: s, Alive: d.Members.Alive(), Scheduler: schedule.Scheduler{}, Images: images}
}

func (d *Driver) ready() error {
	if d.Store.Ready() {
		return nil
	}
	return faults.New(faults.NotReady, "this machine still catches up with the others").
		WithHint("try again in a moment, or ask another machine")
}

// slots bounds the calls to each machine.
type slots struct {
	mu sync.Mutex
	of map[string]chan struct{}
}

// take waits for a slot of the machine; free gives it back.
func (s *slots) take(ctx context.Context, machine string) (free func(), err error) {
	s.mu.Lock()
	if s.of == nil {
		s.of = map[string]chan struct{}{}
	}
	ch := s.of[machine]
	if ch == nil {
		ch = make(chan struct{}, perMachine)
		s.of[machine] = ch
	}
	s.mu.Unlock()
	select {
	case ch <- struct{}{}:
		return func() { <-ch }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
