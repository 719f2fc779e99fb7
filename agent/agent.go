// Package agent is the composition root: the only place that knows every
// organ, and where each is told of the others.
//
// An Agent is one machine. Until it has an identity it only answers on its
// local socket (init, join). With one it is a member: see member.go for the
// organs, steer.go for how they follow the state, and api.go for what the API
// asks of them.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"uncloud/agent/internal/server"
	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/build"
	"uncloud/internal/faults"
)

// Version of the agent.
func Version() string { return build.Version() }

// Phases of a machine, as Info tells them.
const (
	phaseNew     = "new"     // no member; waits for init or join
	phaseJoining = "joining" // has an identity and catches up with the others
	phaseReady   = "ready"   // a member that takes every command
)

// replaceWithin bounds how long a member may take to end, and the next one to
// begin: its last calls have some seconds, and the rest is quick.
const replaceWithin = time.Minute

// Agent is one machine. New wires it; Run touches the world.
type Agent struct {
	cfg  Config
	log  *slog.Logger
	born chan birth // an identity was made: become a member
	// alone is told whenever this machine belongs to no cluster from now on.
	alone chan struct{}
	// oneLife is a member's, from its birth until it ends.
	oneLife func(context.Context, birth) (*member, error)
	// forget takes from the machine what a member that left had there.
	forget func(context.Context, *member) error

	// joining lets one init, join or reset run at a time.
	joining sync.Mutex

	mu     sync.Mutex
	phase  string
	member *member
	waits  string // why it is no member yet, where it wants to be one
}

// New makes an agent.
func New(cfg Config, log *slog.Logger) *Agent {
	a := &Agent{cfg: cfg, log: log, phase: phaseNew, born: make(chan birth, 1), alone: make(chan struct{}, 1)}
	a.oneLife = a.beMember
	a.forget = func(ctx context.Context, m *member) error { return m.forget(ctx) }
	return a
}

// Run is the agent's life. It returns nil when ctx ends, and an error when the
// machine cannot go on: the service manager then starts the agent anew.
func (a *Agent) Run(ctx context.Context) error {
	id, known, err := loadIdentity(a.cfg.StateDir)
	if err != nil {
		return err
	}
	l, err := listenSocket(a.cfg.Socket)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(a.cfg.StateDir, scratchDir)); err != nil {
		return fmt.Errorf("remove what was cut off: %w", err)
	}
	api := server.New(a, a.log.With("subsystem", "api"))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return api.Serve(ctx, l, api.Local()) })
	group.Go(func() error { return a.live(ctx, id, known) })
	group.Go(func() error { return a.watchdog(ctx) })
	group.Go(func() error { return rest(ctx) })
	notify("READY=1")
	a.log.Info("agent started", "version", Version(), "member", known)
	err = group.Wait()
	notify("STOPPING=1")
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// live is the member's life, and after a reset or a restore the next one's.
func (a *Agent) live(ctx context.Context, id Identity, known bool) error {
	b := birth{id: id, made: make(chan *member, 1)}
	go a.joinFromFile(ctx)
	go a.watchNetwork(ctx)
	go a.tellCluster(ctx)
	for {
		if !known {
			a.isAlone()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case b = <-a.born:
			}
		}
		m, err := a.oneLife(ctx, b)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if r := m.restoring.Load(); r != nil && !m.left() {
			r.failed <- restoreInto(ctx, m.storeDir(), r.backup)
			b, known = birth{id: b.id, made: r.made}, true
			continue
		}
		if !m.left() {
			return errEnded
		}
		if err := a.forget(context.WithoutCancel(ctx), m); err != nil {
			return err
		}
		a.forgot(m)
		known = false
	}
}

// forgot tells those who wait that a member left and is forgotten. A restore
// may be among them: a reset through another machine does not wait for it.
func (a *Agent) forgot(m *member) {
	a.become(nil, phaseNew)
	if r := m.restoring.Load(); r != nil {
		r.failed <- errLeft()
		close(r.made)
	}
	close(m.gone)
}

// errLeft is what a person is told whose restore a reset has overtaken.
func errLeft() error {
	return faults.New(faults.NotMember, "this machine left its cluster before the backup was in place").
		WithHint("begin a cluster and let it take in the services of the backup: uc machine init && uc store restore --adopt FILE")
}

// errEnded would be a bug: the agent is started anew rather than left without
// a member.
var errEnded = errors.New("the member ended, though nobody asked it to")

func (a *Agent) beMember(ctx context.Context, b birth) (*member, error) {
	m, err := newMember(ctx, a.cfg, b.id, a.log)
	if err != nil {
		return nil, err
	}
	a.become(m, phaseJoining)
	b.made <- m
	err = m.run(ctx)
	if m.restoring.Load() != nil {
		a.become(nil, phaseJoining)
	} else {
		a.become(nil, phaseNew)
	}
	return m, err
}

func (a *Agent) isAlone() {
	select {
	case a.alone <- struct{}{}:
	default: // it is about to be heard
	}
}

func (a *Agent) become(m *member, phase string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.member, a.phase = m, phase
}

// Info tells who this machine is.
func (a *Agent) Info() *uncloudv1.InfoResponse {
	a.mu.Lock()
	m, phase, waits := a.member, a.phase, a.waits
	a.mu.Unlock()
	info := &uncloudv1.InfoResponse{Version: Version(), Phase: phase}
	if m != nil {
		m.describe(info)
		return info
	}
	for _, n := range aloneNotes(a.cfg, waits) {
		info.Health = append(info.Health, n.Message())
	}
	return info
}

// Member is what the machine can do as a member.
func (a *Agent) Member() (*server.Member, error) {
	m, err := a.joined()
	if err != nil {
		return nil, err
	}
	return m.api()
}

// Arriving is Member while the machine still catches up.
func (a *Agent) Arriving() (*server.Member, error) {
	m, err := a.joined()
	if err != nil {
		return nil, err
	}
	return m.asMember(), nil
}

// joined is the member, or the fault that there is none.
func (a *Agent) joined() (*member, error) {
	a.mu.Lock()
	m, phase, waits := a.member, a.phase, a.waits
	a.mu.Unlock()
	switch {
	case m != nil:
		return m, nil
	case phase == phaseJoining:
		return nil, faults.New(faults.NotReady, "this machine changes to another copy of the state").WithHint("try again in a moment")
	}
	return nil, notMember(a.cfg, waits)
}

func (a *Agent) current() *member {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.member
}

// alreadyMember is the refusal of a second init or join.
func alreadyMember(m *member) error {
	return faults.New(faults.IsMember, "this machine belongs to cluster %s already", m.id.ClusterID).
		WithHint("see it with: uc machine ls; to leave it: uncloudd reset")
}

// Reset forgets the cluster. Untold is why the others may not know of it.
func (a *Agent) Reset(ctx context.Context) (untold, err error) {
	a.joining.Lock()
	defer a.joining.Unlock()
	m := a.current()
	if m == nil {
		return nil, faults.New(faults.NotMember, "this machine belongs to no cluster").WithHint("join one with: uncloudd join TICKET-FILE")
	}
	if err := m.leave(ctx, true); err != nil {
		return nil, fmt.Errorf("leave the cluster: %w", err)
	}
	select {
	case <-m.gone:
		return m.untold, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
