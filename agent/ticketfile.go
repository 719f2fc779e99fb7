package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"uncloud/agent/internal/server"
	"uncloud/internal/faults"
)

// ticketPause is how often a machine that is no member looks for its ticket
// file, and asks again when nobody answered: the machine may be on before its
// network is, and the file may come after the machine is on.
const ticketPause = 5 * time.Second

// longestRefusal bounds the pause before a member that refused is asked again
// with the same ticket: its name may have become free, its disk have room.
const longestRefusal = 5 * time.Minute

// joinFromFile joins with the ticket that lies where the configuration says,
// now or later, whenever this machine belongs to no cluster.
func (a *Agent) joinFromFile(ctx context.Context) {
	if a.cfg.TicketFile == "" {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.alone:
		}
		a.tryTickets(ctx)
	}
}

// tryTickets ends when the machine is a member, by whatever way.
func (a *Agent) tryTickets(ctx context.Context) {
	f := ticketFile{path: a.cfg.TicketFile, now: time.Now, join: func(text string) error {
		return a.Join(ctx, server.JoinOptions{Ticket: text}, func(step string) { a.log.Info("joining", "step", step) })
	}}
	for {
		before := f.said
		done := f.try()
		if f.said != before {
			a.log.Log(ctx, f.level, "ticket file", "said", f.said, "path", f.path, "hint", f.hint, "err", f.cause)
			a.waitsFor(f.said)
			a.tellOfTicket(f.said, f.hint)
		}
		if done {
			a.tellOfTicket("this machine is a member of its cluster now", "")
		}
		if done || a.current() != nil {
			a.waitsFor("")
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
	now  func() time.Time

	refused    string    // the ticket that was refused last; the next one may be good
	until      time.Time // when it may be asked with again; zero is never
	pause      time.Duration
	said, hint string // why there is no member yet
	level      slog.Level
	cause      error
}

// try looks for a ticket and joins with it. It returns true when the machine
// has become a member. The file is removed then, since it is a secret.
func (f *ticketFile) try() bool {
	if err := onlyRoots(f.path); err != nil {
		f.say(faults.Of(err))
		return false
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		f.say(faults.New(faults.Invalid, "read the ticket file: %w", err).WithHint("lay it there anew: uc machine ticket > uncloud.ticket"))
		return false
	}
	if f.refused == string(text) && (f.until.IsZero() || f.now().Before(f.until)) {
		return false
	}
	if err := f.join(string(text)); err != nil {
		f.refuse(string(text), err)
		f.say(faults.Of(err))
		return false
	}
	if err := os.Remove(f.path); err != nil {
		f.say(faults.New(faults.Internal, "the machine joined, and its ticket file cannot be removed: %w", err).WithHint("it is a secret while it is valid: remove it"))
	}
	return true
}

// refuse decides when the ticket is worth another attempt: never where it is
// the ticket that is no good, soon where nobody answered or the hindrance is
// on this machine, and ever later where a member said no, or a clock, which may
// be set yet.
func (f *ticketFile) refuse(text string, err error) {
	if text != f.refused {
		f.pause = ticketPause
	}
	f.refused, f.until = text, f.now()
	switch faults.CodeOf(err) {
	case faults.TicketUsed, faults.TicketAltered, faults.TicketForeign:
		f.until = time.Time{}
	case faults.Unreachable, faults.NotReady:
		f.pause = ticketPause
	default:
		f.until = f.now().Add(f.pause)
		f.pause = min(2*f.pause, longestRefusal)
	}
}

func (f *ticketFile) say(fault *faults.Fault) {
	f.said, f.hint, f.cause = fault.Sentence, fault.Hint, fault.Err
	f.level = slog.LevelWarn
	if fault.Code == faults.NotMember {
		f.level = slog.LevelInfo
	}
}

// onlyRoots refuses a ticket that other users of the machine can read. On FAT
// no file has an owner, and the ticket has to be laid there from elsewhere.
func onlyRoots(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return faults.New(faults.NotMember, "no ticket yet: this machine waits for it at %s", path).
			WithHint("make one on a member: uc machine ticket > uncloud.ticket")
	}
	if err != nil || info.IsDir() {
		return nil // reading it says more
	}
	open := info.Mode().Perm() & 0o007
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Gid != 0 {
		open = info.Mode().Perm() & 0o077
	}
	if open == 0 || onFAT(path) {
		return nil
	}
	return faults.New(faults.Invalid, "the ticket file %s may be read by others than root (its mode is %04o), and whoever read it can join", path, info.Mode().Perm()).
		WithHint("if nobody else has: chmod 600 %s; otherwise make a new one on a member: uc machine ticket", path)
}

func onFAT(path string) bool {
	const exfat = 0x2011bab0
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && (st.Type == unix.MSDOS_SUPER_MAGIC || st.Type == exfat)
}
