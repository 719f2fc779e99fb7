package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// keeper is Run's own state: nobody else sees it.
type keeper struct {
	nft    string
	log    *slog.Logger
	report func(Status)

	can     Capabilities
	probed  bool
	session *session
	want    *Ruleset     // what should be in force; nil: nothing
	loaded  string       // hash of what is
	at      time.Time    // of the last load
	leads   translations // that all flows follow
	guard   *monitor     // only where the table cannot be owned
	retry   <-chan time.Time
}

// set loads want. A failed attempt leaves what was wanted before.
func (k *keeper) set(ctx context.Context, want *Ruleset) error {
	if want != nil && k.loaded == want.Hash && k.session != nil {
		return nil
	}
	if want == nil {
		return k.unload(ctx)
	}
	before := k.want
	k.want = want
	err := k.load(ctx)
	if err != nil && before != nil {
		k.want = before
	}
	return err
}

// load replaces the table with the wanted one, by a child that may have to be
// started first.
func (k *keeper) load(ctx context.Context) error {
	start := time.Now()
	if err := k.transact(ctx, func() string { return k.can.replace(*k.want) }); err != nil {
		return fmt.Errorf("load firewall rules: %w", err)
	}
	k.loaded, k.at = k.want.Hash, time.Now()
	k.report(Status{Hash: k.loaded, Can: k.can})
	k.log.Debug("firewall rules loaded", "digest", k.loaded, "took", time.Since(start))
	for _, s := range k.want.Skipped {
		k.log.Warn("port is not published", "address", s.Publish.String(), "err", s.Reason)
	}
	k.follow(k.want.leads)
	return k.watch()
}

// follow ends flows that the new rules lead elsewhere. That it cannot is no
// reason to be without the rules: flows end by themselves when they are quiet.
func (k *keeper) follow(leads translations) {
	if leads.equal(k.leads) {
		return
	}
	if err := leads.forgetStale(); err != nil {
		k.log.Warn("old flows may go to where published ports led before", "err", err)
		return
	}
	k.leads = leads
}

func (k *keeper) unload(ctx context.Context) error {
	k.want = nil
	k.stopWatching()
	if err := k.transact(ctx, func() string { return k.can.remove() }); err != nil {
		return fmt.Errorf("remove firewall rules: %w", err)
	}
	k.loaded = ""
	k.report(Status{Can: k.can})
	return nil
}

// transact runs one transaction, in a new child when there is none, when it
// has died, or when it has done enough.
func (k *keeper) transact(ctx context.Context, line func() string) error {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	if k.session != nil && k.session.count >= maxTransactions {
		k.drop()
	}
	for attempt := 0; ; attempt++ {
		if err := k.open(ctx); err != nil {
			return err
		}
		err := k.session.transact(ctx, line())
		if !errors.Is(err, errSessionEnded) && ctx.Err() == nil {
			return err
		}
		k.drop()
		if ctx.Err() != nil || attempt > 0 {
			return err
		}
	}
}

func (k *keeper) open(ctx context.Context) error {
	if k.session != nil {
		return nil
	}
	if !k.probed {
		k.can, k.probed = probe(ctx, k.nft), ctx.Err() == nil
		k.log.Info("firewall starts", "persistent", k.can.Persistent, "destroy", k.can.Destroy)
	}
	s, err := openSession(k.nft)
	k.session = s
	return err
}

// drop ends the child. Its table stays, but belongs to nobody until the next
// child has adopted it.
func (k *keeper) drop() {
	if k.session != nil {
		k.session.close()
		k.session, k.loaded = nil, ""
	}
}

func (k *keeper) stop() {
	k.stopWatching()
	k.drop()
}

// died is closed when the child has ended, though the rules are wanted.
func (k *keeper) died() <-chan struct{} {
	if k.session == nil || k.want == nil || k.retry != nil {
		return nil
	}
	return k.session.ended
}

// removed fires when somebody may have removed a table that nobody can own.
func (k *keeper) removed() <-chan struct{} {
	if k.guard == nil {
		return nil
	}
	return k.guard.removed
}

// adopt takes over the table of a child that died. The table is in force
// meanwhile, so a child that keeps dying need not be replaced at once.
func (k *keeper) adopt(ctx context.Context) {
	if pause := retryAfter - time.Since(k.at); pause > 0 {
		k.drop()
		k.retry = time.After(pause)
		return
	}
	k.restore(ctx, "the process that owned them died")
}

// restore loads the wanted rules again, and tries on after a pause.
func (k *keeper) restore(ctx context.Context, why string) {
	k.retry = nil
	if k.want == nil {
		return
	}
	k.log.Warn("firewall rules are loaded again", "err", why)
	k.drop()
	if err := k.load(ctx); err != nil && ctx.Err() == nil {
		k.log.Error("firewall rules are not in force", "err", err)
		k.retry = time.After(retryAfter)
	}
}

// check loads the rules again if the table is not there. Our own changes, too,
// remove a table for a moment, so an event alone says nothing.
func (k *keeper) check(ctx context.Context) {
	tables, err := run(ctx, k.nft, "list", "tables", "inet")
	if err == nil && !hasTable(tables) {
		k.restore(ctx, "another process removed them")
		return
	}
	if k.guard.over() {
		k.stopWatching()
		if err := k.watch(); err != nil {
			k.log.Warn("nobody watches the firewall rules", "err", err)
		}
	}
}

// watch starts the guard where the table cannot be owned.
func (k *keeper) watch() error {
	if k.can.Persistent || k.guard != nil {
		return nil
	}
	g, err := startMonitor(k.nft)
	k.guard = g
	return err
}

func (k *keeper) stopWatching() {
	if k.guard != nil {
		k.guard.stop()
		k.guard = nil
	}
}
