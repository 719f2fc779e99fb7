package render

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"charm.land/lipgloss/v2"
)

const (
	redrawEvery = 100 * time.Millisecond
	// viewRows is the most steps that are shown at once: the view has to fit
	// on the terminal, because what scrolled off cannot be redrawn.
	viewRows = 8
)

var spinner = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

// view is the redrawn part at the bottom of a terminal. What is printed above
// it stays, in the terminal's own scroll-back. It reads no keys and changes no
// mode of the terminal, so a kill at any moment leaves nothing to repair.
type view struct {
	out   Stream
	begun time.Time
	now   func() time.Time
	stop  chan struct{}
	ended chan struct{}

	mu    sync.Mutex
	drawn int // lines on the terminal now
	frame int
	steps []running
	done  int
	total int
}

func newView(out Stream, begun time.Time, now func() time.Time) *view {
	v := &view{out: out, begun: begun, now: now, stop: make(chan struct{}), ended: make(chan struct{})}
	go v.redraw()
	return v
}

func (v *view) redraw() {
	defer close(v.ended)
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		select {
		case <-v.stop:
			return
		case <-tick.C:
			v.mu.Lock()
			v.frame++
			v.draw("")
			v.mu.Unlock()
		}
	}
}

func (v *view) close() {
	close(v.stop)
	<-v.ended
	fmt.Fprint(v.out, v.erase())
}

// print writes lines that stay, above the view, and draws it anew.
func (v *view) print(lines string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.draw(lines)
}

// set changes what the next redraw shows.
func (v *view) set(steps []running, done, total int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.steps, v.done, v.total = slices.Clone(steps), done, total
}

func (v *view) show(steps []running, done, total int) {
	v.set(steps, done, total)
	v.print("")
}

// draw replaces the view in one write, so that it does not flicker.
func (v *view) draw(above string) {
	var b strings.Builder
	b.WriteString(v.erase())
	b.WriteString(above)
	lines := v.lines(v.now())
	fit := lipgloss.NewStyle().Inline(true).MaxWidth(max(v.out.Width()-1, 1))
	for _, text := range lines {
		b.WriteString(fit.Render(text) + "\n")
	}
	v.drawn = len(lines)
	fmt.Fprint(v.out, b.String())
}

// erase moves to the first line of the view and clears from there on.
func (v *view) erase() string {
	if v.drawn == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\r\x1b[J", v.drawn)
}

func (v *view) lines(now time.Time) []string {
	var lines []string
	for _, r := range v.steps[:min(len(v.steps), viewRows)] {
		mark := v.out.Warn(spinner[v.frame%len(spinner)])
		lines = append(lines, fmt.Sprintf("%s      %s %s", mark, r.step.GetText(), v.out.Faint(strings.TrimSpace(r.so+" "+Took(now.Sub(r.since))))))
	}
	if hidden := len(v.steps) - viewRows; hidden > 0 {
		lines = append(lines, v.out.Faint(fmt.Sprintf("       and %d more", hidden)))
	}
	return append(lines, v.out.Faint(v.status(now)))
}

func (v *view) status(now time.Time) string {
	if v.total == 0 {
		return Took(now.Sub(v.begun))
	}
	return fmt.Sprintf("%d of %s, %s", v.done, Count(v.total, "step"), Took(now.Sub(v.begun)))
}
