package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"uncloud/internal/atomicfile"
)

// past is how far this machine was with its copy of the state when its agent
// ended. It is a file beside the database, so that who moves the store away
// moves it along. The store's own numbers cannot tell: a machine writes under a
// new site after each boot.
type past string

const (
	pastNone     past = ""         // it never had what the others had
	pastReady    past = "ready"    // it had: what it knows is enough to act on when cut off
	pastRestored past = "restored" // its copy is an old one
)

const (
	storeDir = "store"
	pastFile = "past"
)

// aloneAfter is how long a restored machine looks for others before it takes
// its copy for all that there is. Machines that live find each other within
// seconds.
const aloneAfter = 20 * time.Second

func readPast(dir string) (past, error) {
	text, err := os.ReadFile(filepath.Join(dir, pastFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return pastNone, nil
	case err != nil:
		return pastNone, fmt.Errorf("read how far the store is: %w", err)
	}
	return parsePast(text), nil
}

// parsePast reads what the file says. There is a file where the machine was a
// member once, so one that is spoilt is of a machine that has a copy of which
// nobody knows how old it is: it asks the others before it acts.
func parsePast(text []byte) past {
	if p := past(bytes.TrimSpace(text)); p == pastReady {
		return p
	}
	return pastRestored
}

func writePast(dir string, p past) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := atomicfile.Replace(filepath.Join(dir, pastFile), []byte(p), 0o600); err != nil {
		return fmt.Errorf("note how far the store is: %w", err)
	}
	return nil
}

// catchUp closes ready: at once where this machine was ready before, and else
// when it has what the others have.
func (m *member) catchUp(ctx context.Context) error {
	before, err := readPast(m.storeDir())
	if err != nil {
		return err
	}
	switch before {
	case pastReady:
	case pastRestored:
		err = m.askOthers(ctx)
	default:
		err = m.awaitAdmission(ctx)
	}
	if err != nil {
		return err
	}
	if before != pastReady {
		if err := writePast(m.storeDir(), pastReady); err != nil {
			return err
		}
	}
	close(m.ready)
	m.log.Info("caught up with the others")
	m.steerAgain()
	m.replicas.Poke() // now what the state lacks is really gone
	return nil
}

// awaitAdmission waits for what the others had when they let this machine in.
// Without that it may not act at all.
func (m *member) awaitAdmission(ctx context.Context) error {
	if m.id.ReadySite == "" {
		return nil // it made the cluster
	}
	at, err := toVersion(m.id.ReadySite, m.id.ReadyVersion)
	if err != nil {
		return err
	}
	if err := m.store.WaitFor(ctx, at); err != nil {
		return err
	}
	return m.sync.AwaitCaughtUp(ctx)
}

// askOthers waits until this machine has what those who live have: acting on
// an old copy would bring back what was removed since. Where nobody lives the
// copy is all that is left.
func (m *member) askOthers(ctx context.Context) error {
	if err := m.steerNetwork(ctx); err != nil { // they have to be known to be asked
		m.log.Warn("look for the others", "err", err)
	}
	if err := m.awaitNetwork(ctx, 0); err != nil {
		return err
	}
	for {
		try, cancel := context.WithTimeout(ctx, aloneAfter)
		err := m.sync.AwaitCaughtUp(try)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if len(m.gossip.Alive()) < 2 {
			m.log.Warn("nobody else answers: going on with the restored copy")
			return m.fleet.Abandon(ctx)
		}
	}
}

// reconcile begins at once where the copy of the state was this machine's own
// to the end. An old one is no ground to act on: it would start what was
// removed since.
func (m *member) reconcile(ctx context.Context) error {
	before, err := readPast(m.storeDir())
	if err != nil {
		return err
	}
	if before == pastRestored {
		if err := m.awaitReady(ctx); err != nil {
			return err
		}
	}
	return m.replicas.Run(ctx)
}
