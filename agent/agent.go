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
	"sync"

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

// Agent is one machine. New wires it; Run touches the world.
type Agent struct {
	cfg  Config
	log  *slog.Logger
	born chan birth // an identity was made: become a member

	// joining lets one init, join or reset run at a time.
	joining sync.Mutex

	mu     sync.Mutex
	phase  string
	member *member
}

// New makes an agent.
func New(cfg Config, log *slog.Logger) *Agent {
	return &Agent{cfg: cfg, log: log, phase: phaseNew, born: make(chan birth, 1)}
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

// live is the member's life, and after a reset the next one's.
func (a *Agent) live(ctx context.Context, id Identity, known bool) error {
	b := birth{id: id, made: make(chan *member, 1)}
	if !known {
		go a.joinFromFile(ctx)
	}
	for {
		if !known {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case b = <-a.born:
			}
		}
		m, err := newMember(ctx, a.cfg, b.id, a.log)
		if err != nil {
			return err
		}
		a.become(m)
		b.made <- m
		err = m.run(ctx)
		a.become(nil)
		if ctx.Err() != nil || !m.left() {
			return err
		}
		if err := m.forget(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		close(m.gone)
		known = false
	}
}

func (a *Agent) become(m *member) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.member, a.phase = m, phaseNew
	if m != nil {
		a.phase = phaseJoining
	}
}

// Info tells who this machine is.
func (a *Agent) Info() *uncloudv1.InfoResponse {
	a.mu.Lock()
	m, phase := a.member, a.phase
	a.mu.Unlock()
	info := &uncloudv1.InfoResponse{Version: Version(), Phase: phase}
	if m != nil {
		m.describe(info)
	}
	return info
}

// Member is what the machine can do as a member.
func (a *Agent) Member() (*server.Member, error) {
	a.mu.Lock()
	m := a.member
	a.mu.Unlock()
	if m == nil {
		return nil, faults.New(faults.NotMember, "this machine belongs to no cluster yet").
			WithHint("begin one with: uc machine init, or join one with: uncloudd join TICKET-FILE")
	}
	return m.api()
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

// Reset forgets the cluster.
func (a *Agent) Reset(ctx context.Context) error {
	a.joining.Lock()
	defer a.joining.Unlock()
	m := a.current()
	if m == nil {
		return faults.New(faults.NotMember, "this machine belongs to no cluster").WithHint("join one with: uncloudd join TICKET-FILE")
	}
	if err := m.leave(ctx, true); err != nil {
		return fmt.Errorf("leave the cluster: %w", err)
	}
	select {
	case <-m.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
