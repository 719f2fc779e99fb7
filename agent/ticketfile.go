package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"uncloud/agent/internal/server"
	"uncloud/internal/faults"
)

// ticketPause is how often a machine that is no member looks for its ticket
// file, and asks again when nobody answered: the machine may be on before its
// network is, and the file may come after the machine is on.
const ticketPause = 5 * time.Second

// joinFromFile joins with the ticket that lies where the configuration says,
// now or later. It ends when the machine is a member, by whatever way.
func (a *Agent) joinFromFile(ctx context.Context) {
	if a.cfg.TicketFile == "" {
		return
	}
	f := ticketFile{path: a.cfg.TicketFile, join: func(text string) error {
		return a.Join(ctx, server.JoinOptions{Ticket: text}, func(step string) { a.log.Info("joining", "step", step) })
	}}
	for {
		before := f.said
		done := f.try()
		if f.said != before {
			a.log.Log(ctx, f.level, "ticket file", "said", f.said, "path", f.path, "hint", f.hint, "err", f.cause)
		}
		if done || a.current() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(ticketPause):
		}
	}
}

// ticketFile is a ticket that waits to be used.
type ticketFile struct {
	path string
	join func(text string) error

	refused    string // a ticket that is no good: the next one may be
	said, hint string // why there is no member yet
	level      slog.Level
	cause      error
}

// try looks for a ticket and joins with it. It returns true when the machine
// has become a member. The file is removed then, since it is a secret.
func (f *ticketFile) try() bool {
	text, err := os.ReadFile(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.say(faults.New(faults.NotMember, "no ticket yet: this machine waits for it"))
		return false
	case err != nil:
		f.say(faults.New(faults.Invalid, "read the ticket file: %w", err))
		return false
	case f.refused == string(text):
		return false
	}
	if err := f.join(string(text)); err != nil {
		if decided(err) {
			f.refused = string(text)
		}
		f.say(faults.Of(err))
		return false
	}
	if err := os.Remove(f.path); err != nil {
		f.say(faults.New(faults.Internal, "the machine joined, and its ticket file cannot be removed: %w", err).WithHint("it is a secret while it is valid: remove it"))
	}
	return true
}

func (f *ticketFile) say(fault *faults.Fault) {
	f.said, f.hint, f.cause = fault.Sentence, fault.Hint, fault.Err
}
