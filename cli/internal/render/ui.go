package render

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"uncloud/internal/faults"
)

// UI is the two streams of a command and the clock that ages are told by.
type UI struct {
	Out Stream
	Err Stream
	Now func() time.Time
}

// New looks at what the streams are. getenv is asked for NO_COLOR and TERM.
func New(out, err *os.File, getenv func(string) string, now func() time.Time) *UI {
	colour := getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
	return &UI{Out: newStream(out, colour), Err: newStream(err, colour), Now: now}
}

// Stream is one output. Its width is 0 where it is no terminal.
type Stream struct {
	io.Writer
	Style
	file *os.File
}

func newStream(f *os.File, colour bool) Stream {
	s := Stream{Writer: f}
	if term.IsTerminal(int(f.Fd())) {
		s.file = f
		s.Style = Style{colour: colour}
	}
	return s
}

// Terminal tells whether a person watches the stream.
func (s Stream) Terminal() bool { return s.file != nil }

// Width is the terminal's columns, 80 where it does not tell.
func (s Stream) Width() int {
	if s.file == nil {
		return 0
	}
	if width, _, err := term.GetSize(int(s.file.Fd())); err == nil && width > 0 {
		return width
	}
	return 80
}

// Line writes one line. That a stream is closed is noticed by whoever reads it.
func (s Stream) Line(format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

// Note says something that is no part of the answer.
func (u *UI) Note(format string, args ...any) {
	u.Err.Line("%s %s", u.Err.Faint("uc: note:"), fmt.Sprintf(format, args...))
}

// Warn says something that should be looked at.
func (u *UI) Warn(format string, args ...any) {
	u.Err.Line("%s %s", u.Err.Warn("uc: warning:"), fmt.Sprintf(format, args...))
}

// Hint says what may be done about what was told before; nothing for an empty one.
func (u *UI) Hint(hint string) {
	if hint != "" {
		u.Err.Line("%s %s", u.Err.Faint("uc: hint:"), hint)
	}
}

// Fail tells why a command failed and what to do next. Errors that were joined
// are told one by one, a hint that they share only once.
func (u *UI) Fail(err error) {
	hints := map[string]bool{}
	for _, err := range parts(err) {
		f := faults.Of(err)
		u.Err.Line("%s %s", u.Err.Bad("uc: error:"), f.Sentence)
		if hint := cmp.Or(f.Hint, generalHint(f.Code)); !hints[hint] {
			u.Hint(hint)
			hints[hint] = true
		}
	}
}

// generalHint is what to do about a fault that does not say it: look at what
// the machines did. What was interrupted needs none: that was the person.
func generalHint(code faults.Code) string {
	switch code {
	case faults.Interrupted:
		return ""
	case faults.Invalid, faults.NotFound, faults.Conflict:
		return "see how commands are written: uc --help"
	}
	return "see what happened: uc events; more is told on the machine: journalctl -u uncloud"
}

func parts(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // only the outermost: what wraps a join says more than its parts
	if !ok {
		return []error{err}
	}
	var all []error
	for _, part := range joined.Unwrap() {
		all = append(all, parts(part)...)
	}
	return all
}

// Since is the age of a time: "3m", or "-" for none.
func (u *UI) Since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return Age(u.Now().Sub(t))
}
