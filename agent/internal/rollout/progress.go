package rollout

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"uncloud/internal/plan"
)

// ProgressKind is what a Progress tells.
type ProgressKind string

const (
	ProgressPlan   ProgressKind = "plan"
	ProgressStart  ProgressKind = "step-start"
	ProgressDone   ProgressKind = "step-done"
	ProgressFailed ProgressKind = "step-failed"
	ProgressNote   ProgressKind = "note"
)

// Progress is one thing that happened.
type Progress struct {
	Kind ProgressKind
	Plan *plan.Plan // of ProgressPlan
	Step *plan.Step // of the step kinds
	Text string     // a note, or why a step failed
	Logs []string   // the last lines of a failed container
}

// reporter passes progress on, one at a time although steps run side by side.
type reporter struct {
	mu     sync.Mutex
	report func(Progress)
}

func newReporter(report func(Progress)) *reporter { return &reporter{report: report} }

func (r *reporter) send(p Progress) {
	if r == nil || r.report == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report(p)
}

func (r *reporter) note(format string, args ...any) {
	r.send(Progress{Kind: ProgressNote, Text: fmt.Sprintf(format, args...)})
}

// step reports a step around what it does.
func (r *reporter) step(s plan.Step, do func() error) error {
	r.send(Progress{Kind: ProgressStart, Step: &s})
	err := do()
	if err != nil {
		text := err.Error()
		if errors.Is(err, context.Canceled) {
			text = "cut off" // by the step that failed first, or by the person
		}
		r.send(Progress{Kind: ProgressFailed, Step: &s, Text: text, Logs: logsOf(err)})
		return err
	}
	r.send(Progress{Kind: ProgressDone, Step: &s})
	return nil
}
