package reconcile

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"uncloud/agent/internal/runtime"
	"uncloud/agent/internal/stall"
	"uncloud/internal/spec"
)

// Store is the replicated state as this machine has it.
type Store interface {
	// State is the newest state; it includes every Record that returned.
	State() *spec.State
	// Ready tells whether the machine has caught up with the others.
	Ready() bool
	// Subscribe wakes after commits, local and remote. Wakes may be merged.
	Subscribe() (wake <-chan struct{}, cancel func())
}

// Recorder writes what runs. It returns when that is durable and in the state.
// gone are replicas whose rows are to be deleted.
type Recorder interface {
	Record(ctx context.Context, rows []spec.Container, gone []string) error
}

// Health probes containers and reports with Reconciler.Verdict. Neither method
// blocks.
type Health interface {
	// Watch begins to probe, in place of an earlier target of the replica.
	Watch(replica string, t Target)
	Forget(replica string)
}

// Target is one run of a container to probe.
type Target struct {
	Container string // the engine's id
	StartedAt time.Time
	Address   netip.Addr
	Check     spec.HealthCheck
}

// DefaultResync is how long the loop trusts what it knows. Everything that
// happens to a running container wakes it; this is for what a person does to
// one that does not run. It costs a cold start of the engine's service, some
// tenth of a second of CPU time, so it is long.
const DefaultResync = time.Minute

// Config is what a Reconciler is made of. Everything without a default is required.
type Config struct {
	Machine  string // id of this machine
	Cluster  string // id of its cluster
	Engine   runtime.Engine
	Store    Store
	Recorder Recorder
	Health   Health
	// Network makes sure that the network of the containers is there with this
	// subnet, and its bridge: without it none of them can start. It is asked
	// before the first container is made and whenever the subnet changes.
	Network func(ctx context.Context, subnet netip.Prefix) error
	Log     *slog.Logger
	Resync  time.Duration    // default DefaultResync
	Now     func() time.Time // default time.Now
	Random  func() float64   // in [0,1); default math/rand
}

// Reconciler keeps this machine's containers as the state wants them.
type Reconciler struct {
	cfg     Config
	wake    chan struct{} // of one: bursts merge
	stopped chan struct{} // closed when Run has returned

	mu    sync.Mutex
	inbox inbox

	turn stall.Turn
}

// inbox is what others told the loop since it last looked.
type inbox struct {
	verdicts []Verdict
	waiters  []*waiter
	left     []*waiter // that wait no more
	done     []outcome
	network  bool     // the network of the containers is there
	pokes    []string // replicas whose holds to lift
	images   []string // names of images that arrived
	relist   bool
}

// New makes a Reconciler. It touches nothing until Run.
func New(c Config) *Reconciler {
	if c.Resync == 0 {
		c.Resync = DefaultResync
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Reconciler{cfg: c, wake: make(chan struct{}, 1), stopped: make(chan struct{})}
}

// Run reconciles until ctx ends, and returns when nothing is under way any
// more. Containers run on. It runs once.
func (r *Reconciler) Run(ctx context.Context) error {
	defer close(r.stopped)
	changed, cancel := r.cfg.Store.Subscribe()
	defer cancel()
	l := newLoop(r)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return r.cfg.Engine.Watch(ctx, func() { r.tell(func(in *inbox) { in.relist = true }) })
	})
	group.Go(func() error { return r.loop(ctx, l, changed) })
	err := group.Wait()
	l.tasks.Wait()
	return err
}

func (r *Reconciler) loop(ctx context.Context, l *loop, changed <-chan struct{}) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-changed:
		case <-timer.C:
		}
		r.turn.Begin()
		next := l.step(ctx)
		r.turn.End()
		timer.Reset(max(next.Sub(r.cfg.Now()), 0))
	}
}

// tell puts something in the inbox and wakes the loop.
func (r *Reconciler) tell(f func(*inbox)) {
	r.mu.Lock()
	f(&r.inbox)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Reconciler) receive() inbox {
	r.mu.Lock()
	defer r.mu.Unlock()
	in := r.inbox
	r.inbox = inbox{}
	return in
}

// Stalled is for how long the loop has been at one look, 0 while it waits. A
// look takes at most listPatience and a commit of the store.
func (r *Reconciler) Stalled() time.Duration { return r.turn.Took() }

// Verdict takes the news of a health check. It does not block.
func (r *Reconciler) Verdict(v Verdict) {
	r.tell(func(in *inbox) { in.verdicts = append(in.verdicts, v) })
}

// Poke looks at everything again. What is held back for these replicas is
// repeated at once.
func (r *Reconciler) Poke(replicas ...string) {
	r.tell(func(in *inbox) { in.pokes, in.relist = append(in.pokes, replicas...), true })
}

// NetworkReady says that the network of the containers is there now, and looks
// at everything again: what failed for want of it is repeated at once.
func (r *Reconciler) NetworkReady() {
	r.tell(func(in *inbox) { in.network, in.relist = true, true })
}

// ImageArrived repeats at once what is held back for replicas of this image.
func (r *Reconciler) ImageArrived(name string) {
	r.tell(func(in *inbox) { in.images = append(in.images, name) })
}
