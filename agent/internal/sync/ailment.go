package statesync

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// ailment is work that fails again and again for one cause, such as a full
// disk. It is told when that begins and when it is over.
type ailment struct{ lasts atomic.Bool }

func (a *ailment) note(ctx context.Context, log *slog.Logger, what string, err error) {
	switch {
	case err != nil && ctx.Err() != nil: // the end of Run, and no news
	case err != nil && !a.lasts.Swap(true):
		log.Warn("part of replication fails and is tried again", "action", what, "err", err)
	case err == nil && a.lasts.Load() && a.lasts.Swap(false):
		log.Info("part of replication works again", "action", what)
	}
}
