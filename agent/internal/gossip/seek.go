package gossip

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"uncloud/internal/spec"
)

// seeker remembers which machines there should be and for how long each has
// been absent.
type seeker struct {
	self    string
	changed chan struct{} // holds a token after setSeeds

	mu    sync.Mutex
	seeds map[string]netip.AddrPort
	since map[string]time.Time // absent since
}

func newSeeker(self string) *seeker {
	return &seeker{self: self, changed: make(chan struct{}, 1), since: map[string]time.Time{}}
}

func (s *seeker) setSeeds(seeds map[string]netip.AddrPort) {
	s.mu.Lock()
	same := maps.Equal(s.seeds, seeds)
	s.seeds = maps.Clone(seeds)
	s.mu.Unlock()
	if same {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// target is one absent machine to try.
type target struct {
	machine string
	addr    netip.AddrPort
}

// round chooses whom to try now, and how long to wait until the next round;
// no target means to wait for a change. shuffle orders n targets randomly.
func (s *seeker) round(alive spec.Alive, now time.Time, shuffle func(n int, swap func(i, j int))) ([]target, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var absent []target
	pause := seekIdleInterval
	for machine, addr := range s.seeds {
		if machine == s.self || alive[machine] {
			delete(s.since, machine)
			continue
		}
		since, known := s.since[machine]
		if !known {
			since = now
			s.since[machine] = now
		}
		if now.Sub(since) < seekPatience {
			pause = seekInterval
		}
		absent = append(absent, target{machine, addr})
	}
	maps.DeleteFunc(s.since, func(machine string, _ time.Time) bool {
		_, is := s.seeds[machine]
		return !is
	})
	shuffle(len(absent), func(i, j int) { absent[i], absent[j] = absent[j], absent[i] })
	return absent[:min(len(absent), seekWidth)], pause
}

// Run is described at Member.
func (g *Gossip) Run(ctx context.Context) error {
	if _, err := g.running(); err != nil {
		return err
	}
	changes, cancel := g.Subscribe()
	defer cancel()
	for {
		targets, pause := g.seeker.round(g.Alive(), time.Now(), rand.Shuffle)
		var timer <-chan time.Time
		if len(targets) > 0 {
			g.seek(ctx, targets)
			timer = time.After(jitter(pause))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer:
		case <-changes:
			// A machine that has just died will not answer this instant:
			// the news alone starts no round, it only starts the clock.
			if !sleep(ctx, jitter(seekInterval)) {
				return nil
			}
		case <-g.seeker.changed:
		}
	}
}

// seek tries all targets at once and returns when each has answered or failed.
func (g *Gossip) seek(ctx context.Context, targets []target) {
	var wg sync.WaitGroup
	for _, t := range targets {
		wg.Go(func() { g.seekOne(ctx, t) })
	}
	wg.Wait()
}

func (g *Gossip) seekOne(ctx context.Context, t target) {
	s, err := g.running()
	if err != nil {
		return
	}
	// Serf's own Join would hold a lock over the whole attempt, so that one
	// machine that is down delays all others.
	address := []string{t.machine + "/" + t.addr.String()}
	for range 2 {
		if _, err := s.Memberlist().Join(address); err != nil {
			g.logger.Debug("machine is absent", "machine", t.machine, "address", t.addr, "err", err)
			return
		}
		if !sleep(ctx, seekConfirm) || g.Alive()[t.machine] {
			return
		}
	}
}

// sleep waits for d, or returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jitter is d, a quarter more or less, so that the machines of a healed
// cluster do not all call at once.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2)
}
