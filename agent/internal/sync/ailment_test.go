package statesync

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// What fails again and again is told once, and so is that it does no more.
func TestAnAilmentIsToldOnce(t *testing.T) {
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	ended, end := context.WithCancel(t.Context())
	end()
	var a ailment
	a.note(t.Context(), log, "merge", nil)
	a.note(ended, log, "merge", errors.New("the process ends"))
	for _, err := range []error{errors.New("merge 3 rows: disk full"), errors.New("merge 5 rows: disk full"), nil, nil, errors.New("disk full")} {
		a.note(t.Context(), log, "merge", err)
	}
	var levels []string
	for line := range strings.Lines(out.String()) {
		levels = append(levels, strings.Fields(line)[1])
	}
	if got := strings.Join(levels, " "); got != "level=WARN level=INFO level=WARN" {
		t.Error(out.String())
	}
}
