package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"uncloud/agent/internal/firstboot"
	"uncloud/agent/internal/join"
	"uncloud/agent/internal/server"
	"uncloud/internal/faults"
)

// firstBootPatience is for how long a machine that was never told anything
// waits for a stick to appear, and any machine for one that it has found. Every boot of a machine that nobody ever tells
// anything takes that much longer, and a slow stick needs about 3 s.
const firstBootPatience = 5 * time.Second

// FirstBoot reads uncloud.txt from the first of the volumes that has one, and
// applies what is in the directory. A volume is a label, or a folder by its
// path. It has no error: what goes wrong is told to out, a sentence a line,
// and the machine boots on.
func FirstBoot(ctx context.Context, directory string, volumes []string, cfg Config, out io.Writer) {
	system := firstboot.System{SetHostname: func(name string) error { return unix.Sethostname([]byte(name)) }, SetCountry: setCountry}
	firstboot.Run(ctx, firstboot.Options{
		Directory: directory, Volumes: volumes, Mount: firstboot.MountVolume, Patience: firstBootPatience,
		Coming:      func() bool { return firstboot.DriveComing("") },
		Credentials: os.Getenv("CREDENTIALS_DIRECTORY"),
		Member: func() (bool, error) {
			_, known, err := loadIdentity(cfg.StateDir)
			return known, err
		},
		Checks: firstboot.Checks{Ticket: func(text string) error { _, err := join.Parse(text); return err }, Zone: system.HasZone},
		Disk:   firstboot.OS{}, System: system,
		Say: func(sentence string) { fmt.Fprintln(out, "uncloud:", sentence) },
	})
}

// setCountry tells the kernel whose rules of the air hold. A machine without
// Wi-Fi has nobody to tell.
func setCountry(ctx context.Context, country string) error {
	if _, err := os.Stat("/sys/module/cfg80211"); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	said, err := exec.CommandContext(ctx, "iw", "reg", "set", country).CombinedOutput() //nolint:gosec // two letters
	if text := strings.TrimSpace(string(said)); err != nil && text != "" {
		return fmt.Errorf("iw: %s", text)
	}
	return err
}

// firstBootNotes are what the last boot could not do with uncloud.txt. They
// are read where they are asked for: whoever mends the file and runs the
// command anew has none.
func firstBootNotes(cfg Config) []server.Note {
	var out []server.Note
	note := func(text string) { out = append(out, server.Note{Code: "first-boot", Text: text}) }
	if cfg.untold != nil {
		note(cfg.untold.Error())
	}
	if cfg.firstBoot == "" {
		return out
	}
	text, err := os.ReadFile(filepath.Join(cfg.firstBoot, firstboot.TroublesFile))
	if err != nil {
		return out // none, or none that anybody could read
	}
	for _, sentence := range strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' }) {
		note(sentence)
	}
	return out
}

// aloneNotes are what a machine suffers from that is no member.
func aloneNotes(cfg Config, waits string) []server.Note {
	notes := firstBootNotes(cfg)
	if waits != "" {
		notes = append(notes, server.Note{Code: "join", Text: waits})
	}
	return notes
}

// notMember is why this machine cannot do what members do.
func notMember(cfg Config, waits string) error {
	sentence := "this machine belongs to no cluster yet"
	for _, n := range aloneNotes(cfg, waits) {
		sentence += "; " + n.Text
	}
	return faults.New(faults.NotMember, "%s", sentence).
		WithHint("begin one with: uc machine init, or join one with: uncloudd join TICKET-FILE")
}

// waitsFor keeps why this machine is no member yet; empty when it is one.
func (a *Agent) waitsFor(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waits = why
}

// consoleFile is what whoever stands before the machine sees.
var consoleFile = "/dev/console"

// tellOfTicket says on the console of a flashed machine what becomes of its
// ticket.
func (a *Agent) tellOfTicket(said, hint string) {
	if a.cfg.firstBoot != "" && a.cfg.TicketFile == filepath.Join(a.cfg.firstBoot, firstboot.TicketFile) {
		tellConsole(said, hint)
	}
}

// tellConsole says something on the console. Whoever flashed a machine may have
// no other way to look inside: without a network nobody else can. A machine
// without a console has no such person.
func tellConsole(said, hint string) {
	f, err := os.OpenFile(consoleFile, os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	if hint != "" {
		said += " (" + hint + ")"
	}
	fmt.Fprintf(f, "\r\nuncloud: %s\r\n", said) //nolint:errcheck // see above
	f.Close()                                   //nolint:errcheck,gosec // see above
}
