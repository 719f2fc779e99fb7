package health

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"uncloud/internal/spec"
)

// execLimit bounds commands in containers that run at once: each costs the
// engine some tenth of a second of a core.
const execLimit = 8

// Options are what a Prober needs of its surroundings.
type Options struct {
	Log *slog.Logger
	// Exec runs a command in a container and returns its exit code and what
	// it wrote. An error means that the engine could not run it at all.
	Exec func(ctx context.Context, container string, argv []string) (code int, output string, err error)
	// OnChange is told of each verdict that differs from the one before. It
	// must be quick. Calls for one replica come one after the other.
	OnChange func(Verdict)

	HTTP func(ctx context.Context, url string) error     // nil: a GET over the network
	TCP  func(ctx context.Context, address string) error // nil: a connection over the network
}

// Verdict is a replica's health from a moment on.
type Verdict struct {
	Replica     string
	ContainerID string    // it is of this container: another one may run by now
	StartedAt   time.Time // and of this run of it, as Watch was told
	Health      spec.Health
	At          time.Time
	Output      string // of the last failed probe
}

// Prober probes the containers of this machine, each in its own rhythm.
type Prober struct {
	options Options
	slots   chan struct{}
	wake    chan struct{}

	mu      sync.Mutex
	watches map[string]*watch // by replica
}

// watch is one replica under observation. Everything in it is guarded by
// Prober.mu.
type watch struct {
	replica string
	target  Target
	run     time.Time          // when the container was started, as Watch was told
	dropped bool               // forgotten, or watched anew
	cancel  context.CancelFunc // nil until somebody follows
	health  spec.Health
	output  string
}

// New makes a Prober that probes nothing yet.
func New(o Options) *Prober {
	if o.HTTP == nil {
		o.HTTP = getHTTP
	}
	if o.TCP == nil {
		o.TCP = dialTCP
	}
	return &Prober{options: o, slots: make(chan struct{}, execLimit), wake: make(chan struct{}, 1), watches: map[string]*watch{}}
}

// Run probes what is watched until ctx ends. It returns nil then.
func (p *Prober) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		p.begin(ctx, &running)
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
	}
}

// begin follows the watches that nobody follows yet.
func (p *Prober) begin(ctx context.Context, running *sync.WaitGroup) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.watches {
		if w.cancel != nil {
			continue
		}
		own, cancel := context.WithCancel(ctx)
		w.cancel = cancel
		running.Go(func() {
			defer cancel()
			p.follow(own, w)
		})
	}
}

// Watch probes a replica's container from now on. To ask again for what is
// watched already changes nothing. A new check for the same run of a container
// keeps the verdict; another container, or another run of it, begins anew.
func (p *Prober) Watch(replica string, t Target) {
	run := t.StartedAt
	if now := time.Now(); t.StartedAt.IsZero() {
		t.StartedAt = now
	} else { // an age from here on: setting the clock must not end a start period
		t.StartedAt = now.Add(-max(0, now.Sub(t.StartedAt)))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.watches[replica]
	sameRun := old.ofRun(t.ContainerID, run)
	if sameRun && old.target.same(t) {
		return
	}
	w := &watch{replica: replica, target: t, run: run, health: t.Known}
	if sameRun {
		w.health, w.output, w.run, w.target.StartedAt = old.health, old.output, old.run, old.target.StartedAt
	}
	old.drop()
	p.watches[replica] = w
	p.poke()
}

// ofRun tells whether the watch is of this run of this container. Who does not
// know when the container was started means the one that runs.
func (w *watch) ofRun(container string, started time.Time) bool {
	return w != nil && w.target.ContainerID == container && (started.IsZero() || started.Equal(w.run))
}

// Forget stops probing a replica. A verdict that is being told may still
// arrive; it names its container.
func (p *Prober) Forget(replica string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watches[replica].drop()
	delete(p.watches, replica)
}

func (w *watch) drop() {
	if w == nil {
		return
	}
	w.dropped = true
	if w.cancel != nil {
		w.cancel()
	}
}

func (p *Prober) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// follow probes one container until its ctx ends.
func (p *Prober) follow(ctx context.Context, w *watch) {
	check := w.target.Check
	h := Resume(check, w.health, w.target.StartedAt)
	for {
		verdict, next := Judge(check, h, time.Now())
		p.tell(w, verdict)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
		err := p.probe(ctx, w.target)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			p.remember(w, err)
		}
		if errors.Is(err, errNoAnswer) && h.Succeeded {
			h.Last = time.Now() // it was well, and nobody says otherwise
			continue
		}
		h = h.Add(check, err == nil, time.Now())
	}
}

func (p *Prober) remember(w *watch, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.output = bounded(err.Error())
}

// tell passes a verdict on if it is a new one.
func (p *Prober) tell(w *watch, verdict spec.Health) {
	p.mu.Lock()
	if w.dropped || w.health == verdict {
		p.mu.Unlock()
		return
	}
	w.health = verdict
	v := Verdict{Replica: w.replica, ContainerID: w.target.ContainerID, StartedAt: w.run, Health: verdict, At: time.Now(), Output: w.output}
	p.mu.Unlock()
	if verdict == spec.HealthUnhealthy {
		p.options.Log.Warn("replica is unhealthy", "replica", v.Replica, "container", v.ContainerID, "err", v.Output)
	} else {
		p.options.Log.Info("health of a replica changed", "health", verdict, "replica", v.Replica, "container", v.ContainerID)
	}
	p.options.OnChange(v)
}
