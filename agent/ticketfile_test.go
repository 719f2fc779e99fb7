package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uncloud/internal/faults"
)

// patient is a ticket file at a time that the test sets.
type patient struct {
	ticketFile
	t      *testing.T
	at     time.Time
	asked  []string
	answer error
}

func newPatient(t *testing.T) *patient {
	p := &patient{t: t, at: time.Unix(1e9, 0)}
	p.ticketFile = ticketFile{
		path: filepath.Join(t.TempDir(), "uncloud.ticket"), now: func() time.Time { return p.at },
		join: func(text string) error {
			p.asked = append(p.asked, text)
			return p.answer
		},
	}
	return p
}

func (p *patient) tries(done bool, said string) {
	p.t.Helper()
	if got := p.try(); got != done || !strings.Contains(p.said, said) {
		p.t.Errorf("got %v, %q; want %v, %q", got, p.said, done, said)
	}
}

func (p *patient) lay(text string, mode os.FileMode) {
	p.t.Helper()
	must(p.t, os.WriteFile(p.path, []byte(text), 0o600))
	must(p.t, os.Chmod(p.path, mode))
}

func TestATicketFileIsTriedUntilItIsDecided(t *testing.T) {
	f := newPatient(t)
	f.tries(false, "no ticket yet")
	if f.level != slog.LevelInfo {
		t.Errorf("waiting is said as %s", f.level)
	}
	f.lay("one", 0o600)
	f.answer = faults.New(faults.Unreachable, "nobody answers")
	f.tries(false, "nobody answers")
	f.tries(false, "nobody answers") // the network may come
	f.answer = faults.New(faults.TicketUsed, "used up")
	f.tries(false, "used up")
	f.at = f.at.Add(time.Hour)
	f.tries(false, "used up") // decided: not asked again
	f.lay("two", 0o600)
	f.answer = nil
	f.tries(true, "")
	if want := []string{"one", "one", "one", "two"}; !slices.Equal(f.asked, want) {
		t.Errorf("asked with %q, want %q", f.asked, want)
	}
	if _, err := os.Stat(f.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ticket is still there: %v", err)
	}
}

// TestWhatMayPassIsTriedAgain and ever more rarely: the ticket is as good as before.
func TestWhatMayPassIsTriedAgain(t *testing.T) {
	for _, hindrance := range []*faults.Fault{
		faults.New(faults.Conflict, "a machine named pi is a member already"), faults.New(faults.Conflict, "UDP port 51820 cannot be opened"),
		faults.New(faults.DiskFull, "no space left"), faults.New(faults.Internal, "a bug"), faults.New(faults.Invalid, "too many labels"),
	} {
		f := newPatient(t)
		f.lay("one", 0o600)
		f.answer = hindrance
		for range 720 {
			f.tries(false, hindrance.Sentence)
			f.at = f.at.Add(ticketPause)
		}
		if n := len(f.asked); n < 10 || n > 20 {
			t.Errorf("%s: asked %d times in an hour", hindrance, n)
		}
		f.answer = nil
		f.at = f.at.Add(longestRefusal)
		f.tries(true, "")
	}
}

func TestATicketThatOthersCanReadIsRefused(t *testing.T) {
	f := newPatient(t)
	group := os.Getgid()
	for mode, refused := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: group != 0, 0o644: true, 0o604: true, 0o602: true} {
		f.lay("one", mode)
		f.asked, f.answer, f.refused = nil, faults.New(faults.Unreachable, "nobody answers"), ""
		if refused {
			f.tries(false, "may be read by others than root")
			if f.hint == "" || f.level != slog.LevelWarn {
				t.Errorf("%04o: hint %q at level %s", mode, f.hint, f.level)
			}
		} else {
			f.tries(false, "nobody answers")
		}
		if (len(f.asked) == 0) != refused {
			t.Errorf("%04o: asked %q", mode, f.asked)
		}
	}
	f.lay("one", 0o600)
	f.answer = nil
	f.tries(true, "")
}

func TestATicketFileThatCannotBeReadIsSaid(t *testing.T) {
	f := newPatient(t)
	f.path = t.TempDir()
	f.tries(false, "read the ticket file")
	if len(f.asked) > 0 {
		t.Error("joined with a folder")
	}
}

// TestAMachineLooksForItsTicketWheneverItIsAlone: at its start, and after it
// left a cluster. Why it is no member is told to whoever asks.
func TestAMachineLooksForItsTicketWheneverItIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "uncloud.ticket")
		a := New(Config{TicketFile: path, StateDir: t.TempDir()}, quiet())
		go a.joinFromFile(t.Context())
		told := func(want string) {
			t.Helper()
			time.Sleep(2 * ticketPause)
			synctest.Wait()
			_, err := a.Member()
			if f := faults.Of(err); f.Code != faults.NotMember || !strings.Contains(f.Sentence, want) || want == "" && strings.Contains(f.Sentence, ";") {
				t.Errorf("told %q, want %q", f.Sentence, want)
			}
		}
		told("")
		a.isAlone()
		told("no ticket yet")
		must(t, os.WriteFile(path, []byte("nonsense"), 0o600))
		told("this is not a ticket")
		if notes := a.Info().GetHealth(); len(notes) != 1 || notes[0].GetCode() != "join" {
			t.Errorf("%v", notes)
		}

		a.become(&member{}, phaseJoining)
		time.Sleep(2 * ticketPause)
		synctest.Wait()
		must(t, os.Remove(path))
		a.become(nil, phaseNew)
		told("")
		a.isAlone()
		told("no ticket yet")
	})
}

// TestAFlashedMachineSaysOnItsConsoleWhyItIsNoMember, and no other does.
func TestAFlashedMachineSaysOnItsConsoleWhyItIsNoMember(t *testing.T) {
	dir := t.TempDir()
	console := filepath.Join(dir, "console")
	must(t, os.WriteFile(console, nil, 0o600))
	was := consoleFile
	consoleFile = console
	t.Cleanup(func() { consoleFile = was })
	New(Config{TicketFile: "/etc/ticket", firstBoot: dir}, quiet()).tellOfTicket("not for it", "")
	New(Config{TicketFile: filepath.Join(dir, "ticket"), firstBoot: dir}, quiet()).tellOfTicket("the ticket is used up", "make a new one")
	if got, err := os.ReadFile(console); err != nil || string(got) != "\r\nuncloud: the ticket is used up (make a new one)\r\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// Whether a ticket has expired is told by a clock, which may be set yet.
func TestAnExpiredTicketIsTriedAgain(t *testing.T) {
	f := newPatient(t)
	f.lay("one", 0o600)
	f.answer = faults.New(faults.TicketExpired, "expired")
	f.tries(false, "expired")
	f.at = f.at.Add(2 * ticketPause)
	f.answer = nil
	f.tries(true, "")
}
