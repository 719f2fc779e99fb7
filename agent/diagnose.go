package agent

import (
	"context"
	"time"

	"uncloud/agent/internal/firewall"
	"uncloud/agent/internal/server"
)

// diagnoseEvery is how often the kernel is asked whether any rule of this
// machine has changed. Only if one has are the rules read, by a program.
const diagnoseEvery = 10 * time.Second

// diagnose tells of rules of the machine's owner that drop what the cluster
// needs. No rule of ours can overrule them, so they are a person's to change.
func (m *member) diagnose(ctx context.Context) error {
	wall := hostWall{generation: firewall.Generation, read: func(ctx context.Context) ([]firewall.Note, error) {
		return m.firewall.Diagnose(ctx, m.policy(m.store.State()))
	}}
	tick := time.NewTicker(diagnoseEvery)
	defer tick.Stop()
	for {
		if notes, news, err := wall.look(ctx); err != nil && ctx.Err() == nil {
			m.log.Debug("diagnose the machine's own firewall", "err", err)
		} else if news {
			m.troubles.set("host firewall", notes...)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// hostWall is the machine's own firewall, and how much of it was seen.
type hostWall struct {
	generation func() (uint32, error)
	read       func(context.Context) ([]firewall.Note, error)

	looked bool
	seen   uint32 // generation that was read
}

// look gives what is wrong, unless nothing has changed since it was told. The
// generation is asked for first: what changes while the rules are read is news
// to the next look.
func (h *hostWall) look(ctx context.Context) (notes []server.Note, news bool, err error) {
	now, err := h.generation()
	if err != nil || h.looked && now == h.seen {
		return nil, false, err
	}
	found, err := h.read(ctx)
	if err != nil {
		return nil, false, err
	}
	h.looked, h.seen = true, now
	for _, n := range found {
		notes = append(notes, server.Note{Code: n.Code, Text: n.Text, Hint: n.Hint})
	}
	return notes, true, nil
}
