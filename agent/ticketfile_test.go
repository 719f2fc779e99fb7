package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uncloud/internal/faults"
)

func TestATicketFileIsTriedUntilItIsDecided(t *testing.T) {
	var asked []string
	var answer error
	f := ticketFile{path: filepath.Join(t.TempDir(), "uncloud.ticket"), join: func(text string) error {
		asked = append(asked, text)
		return answer
	}}
	try := func(done bool, said string) {
		t.Helper()
		if got := f.try(); got != done || !strings.Contains(f.said, said) {
			t.Errorf("got %v, %q; want %v, %q", got, f.said, done, said)
		}
	}
	lay := func(text string) { must(t, os.WriteFile(f.path, []byte(text), 0o600)) }

	try(false, "no ticket yet")
	lay("one")
	answer = faults.New(faults.Unreachable, "nobody answers")
	try(false, "nobody answers")
	try(false, "nobody answers") // the network may come
	answer = faults.New(faults.TicketUsed, "used up")
	try(false, "used up")
	try(false, "used up") // decided: not asked again
	lay("two")
	answer = nil
	try(true, "")
	if want := []string{"one", "one", "one", "two"}; !slices.Equal(asked, want) {
		t.Errorf("asked with %q, want %q", asked, want)
	}
	if _, err := os.Stat(f.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ticket is still there: %v", err)
	}
}

func TestATicketFileThatCannotBeReadIsSaid(t *testing.T) {
	f := ticketFile{path: t.TempDir(), join: func(string) error { t.Error("joined with a folder"); return nil }}
	if f.try() || !strings.Contains(f.said, "read the ticket file") {
		t.Errorf("%q", f.said)
	}
}
