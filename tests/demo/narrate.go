package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"uncloud/tests/lab"
)

// tell says what happens next, or what was seen.
func tell(format string, args ...any) {
	fmt.Printf("\n==> "+format+"\n", args...)
}

// show runs a command in a machine as a person would, and shows it with its output.
func (s *story) show(ctx context.Context, m *lab.Machine, argv ...string) error {
	fmt.Fprintf(s.out, "    %s$ %s\n", m.Name, strings.Join(argv, " "))
	cmd := m.Command(ctx, argv...)
	w := &indenter{out: s.out}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("on %s: %s: %w", m.Name, strings.Join(argv, " "), err)
	}
	return nil
}

// indenter puts what commands say apart from what the demo says.
type indenter struct {
	out    io.Writer
	inLine bool
}

func (w *indenter) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		if !w.inLine {
			line = "    " + line
		}
		w.inLine = !strings.HasSuffix(line, "\n")
		if _, err := io.WriteString(w.out, line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// patience is how long the demo waits for what should take seconds, on a host
// that may be busy.
const patience = 2 * time.Minute

// await asks until seen returns nil; what is the sentence that then holds.
func await(ctx context.Context, what string, seen func(context.Context) error) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	last := errors.New("never asked")
	for {
		err := seen(ctx)
		if err == nil {
			fmt.Printf("    seen: %s (after %s)\n", what, time.Since(began).Round(10*time.Millisecond))
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not seen: %s: %w", what, last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// logTo makes the lab's own progress part of the narration.
func logTo(out *os.File) *slog.Logger { return slog.New(narrator{out}) }

type narrator struct{ out *os.File }

func (n narrator) Enabled(context.Context, slog.Level) bool { return true }
func (n narrator) WithAttrs([]slog.Attr) slog.Handler       { return n }
func (n narrator) WithGroup(string) slog.Handler            { return n }

func (n narrator) Handle(_ context.Context, r slog.Record) error {
	text := "    " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += fmt.Sprintf(" (%s %v)", a.Key, a.Value)
		return true
	})
	_, err := fmt.Fprintln(n.out, text)
	return err
}
