package agent

import (
	"context"
	"time"
)

// The agent starts before the machine is in a network, so that what it runs on
// its own waits for nothing. For a while everyone else then seems dead.
const (
	// othersWithin is how long a machine in a network takes at most to find
	// those who live: a first packet that is lost is sent again after 5 s.
	othersWithin = 10 * time.Second
	// networkWithin is how long a network may take to come: a slow Wi-Fi and a
	// slow router. After that this machine is a partition of its own.
	networkWithin = 2 * time.Minute
	// networkLook is the safety net of a wait that news of others ends.
	networkLook = 5 * time.Second
)

// solitude tells whether a machine that sees nobody had the chance to.
type solitude struct {
	began     time.Time
	networked time.Time // since when it is in a network; zero: it is not
}

// over is asked again and again; within is how long to look around in a network.
func (s *solitude) over(met, inNetwork bool, within time.Duration, now time.Time) bool {
	switch {
	case !inNetwork:
		s.networked = time.Time{}
	case s.networked.IsZero():
		s.networked = now
	}
	found := inNetwork && now.Sub(s.networked) >= within
	return met || found || now.Sub(s.began) >= networkWithin
}

// awaitNetwork returns when another machine lives, or this one had the chance
// to find out: it has been in a network for within, or has none.
func (m *member) awaitNetwork(ctx context.Context, within time.Duration) error {
	lives, cancel := m.gossip.Subscribe()
	defer cancel()
	tick := time.NewTicker(networkLook)
	defer tick.Stop()
	s := solitude{began: time.Now()}
	for !s.over(m.met(), m.inNetwork(), within, time.Now()) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-lives:
		case <-tick.C:
		}
	}
	return nil
}

// met tells whether another machine lives, or none is known.
func (m *member) met() bool {
	return len(m.gossip.Alive()) > 1 || len(m.membersOf(m.store.State()).Machines) < 2
}

// inNetwork tells whether this machine has an address that others might reach.
func (m *member) inNetwork() bool {
	endpoints, err := m.mesh.LocalEndpoints(m.cfg.ListenPort)
	return err != nil || len(endpoints) > 0 // what cannot be asked is not waited for
}

// onceMet is do, begun when this machine knows who lives. What is done without
// a person acts on who is down: it would move everything here, or take a new
// generation that nobody confirms.
func (m *member) onceMet(do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := m.awaitNetwork(ctx, othersWithin); err != nil {
			return err
		}
		return do(ctx)
	}
}
