package render

import (
	"fmt"
	"maps"
	"slices"
	"time"

	uncloudv1 "uncloud/api/uncloud/v1"
)

// Progress tells what a long-running call does: one line for each step that
// ended and, on a terminal, below them the steps that run. It belongs to one
// goroutine, except that the terminal's view redraws itself.
type Progress struct {
	ui      *UI
	view    *view // nil where output is no terminal
	begun   time.Time
	total   int
	done    int
	running []running
	left    map[string]int // steps of the plan that did not end, by service
	owner   map[stepKey]string
	touched []string // services in the order of their first step
}

type running struct {
	key     stepKey
	step    *uncloudv1.Step
	service string
	since   time.Time
	so      string // how far it is, in a few words
}

// stepKey is what a step's start and end have in common. A step that makes a
// replica has no name for it before, so there the sentence tells it apart.
// The service is no part of it: a service that the step removed has no name after.
type stepKey struct{ kind, subject, machine string }

func keyOf(s *uncloudv1.Step) stepKey {
	subject := s.GetReplica()
	if subject == "" {
		subject = s.GetText()
	}
	return stepKey{s.GetKind(), subject, s.GetMachine()}
}

// NewProgress starts the clock of a call. Close ends the view.
func (u *UI) NewProgress() *Progress {
	p := &Progress{ui: u, begun: u.Now(), left: map[string]int{}}
	if u.Out.Terminal() {
		p.view = newView(u.Out, p.begun, u.Now)
	}
	return p
}

// Close takes the steps that run off the terminal.
func (p *Progress) Close() {
	if p.view != nil {
		p.view.close()
	}
}

// Handle shows one message of the stream.
func (p *Progress) Handle(m *uncloudv1.Progress) {
	switch m.GetKind() {
	case "plan":
		p.Plan(m.GetPlan())
	case "step-start":
		p.start(m.GetStep())
	case "step-done":
		p.done++
		p.line("%s %s%s", p.ui.Out.Good("done  "), m.GetStep().GetText(), p.took(m.GetStep()))
	case "step-failed":
		p.failed(m)
	case "note":
		p.line("%s %s", p.ui.Out.Faint("note  "), m.GetText())
	}
	p.refresh()
}

// Plan tells what is to come, in place of what was told before.
func (p *Progress) Plan(plan *uncloudv1.Plan) {
	p.total = Steps(plan)
	p.left, p.owner = map[string]int{}, map[stepKey]string{}
	for _, service := range plan.GetServices() {
		p.left[service.GetService()] = len(service.GetSteps())
		for _, step := range service.GetSteps() {
			p.owner[keyOf(step)] = service.GetService()
		}
	}
}

// serviceOf is the name by which the plan knows the service of a step.
func (p *Progress) serviceOf(step *uncloudv1.Step) string {
	if name, ok := p.owner[keyOf(step)]; ok {
		return name
	}
	return step.GetService()
}

func (p *Progress) start(step *uncloudv1.Step) {
	name := p.serviceOf(step)
	p.running = append(p.running, running{key: keyOf(step), step: step, service: name, since: p.ui.Now()})
	if name != "" && !slices.Contains(p.touched, name) {
		p.touched = append(p.touched, name)
	}
}

func (p *Progress) failed(m *uncloudv1.Progress) {
	why := m.GetText()
	if why != "" {
		why = ": " + why
	}
	took := p.took(m.GetStep())
	p.left[p.serviceOf(m.GetStep())]++ // it is in hand until it is back
	p.line("%s %s%s%s", p.ui.Out.Bad("failed"), m.GetStep().GetText(), why, took)
	for _, text := range m.GetLogs() {
		p.line("       %s %s", p.ui.Out.Faint("|"), text)
	}
}

// SoFar says of a step that runs how far it is. Only a terminal shows it.
func (p *Progress) SoFar(step *uncloudv1.Step, words string) {
	for i := range p.running {
		if p.running[i].key == keyOf(step) {
			p.running[i].so = words
		}
	}
	if p.view != nil {
		p.view.set(p.running, p.done, p.total)
	}
}

// took ends a step that runs and says how long it took, if its start was told.
func (p *Progress) took(step *uncloudv1.Step) string {
	p.left[p.serviceOf(step)]--
	i := slices.IndexFunc(p.running, func(r running) bool { return r.key == keyOf(step) })
	if i < 0 {
		return ""
	}
	since := p.running[i].since
	p.running = slices.Delete(p.running, i, i+1)
	return p.ui.Out.Faint(" (" + Took(p.ui.Now().Sub(since)) + ")")
}

// InHand are the services of which steps have begun and not all have ended.
// Where there are none, any that is left may have begun since: these, then.
func (p *Progress) InHand() []string {
	var names []string
	for _, service := range p.touched {
		if p.left[service] > 0 || p.runs(service) {
			names = append(names, service)
		}
	}
	if len(names) > 0 {
		return names
	}
	for _, service := range slices.Sorted(maps.Keys(p.left)) {
		if p.left[service] > 0 {
			names = append(names, service)
		}
	}
	return names
}

func (p *Progress) runs(service string) bool {
	return slices.ContainsFunc(p.running, func(r running) bool { return r.service == service })
}

// Took is the time since the call began.
func (p *Progress) Took() string { return Took(p.ui.Now().Sub(p.begun)) }

// Done is how many steps were done.
func (p *Progress) Done() int { return p.done }

func (p *Progress) line(format string, args ...any) {
	if p.view != nil {
		p.view.print(fmt.Sprintf(format, args...) + "\n")
		return
	}
	p.ui.Out.Line(format, args...)
}

func (p *Progress) refresh() {
	if p.view != nil {
		p.view.show(p.running, p.done, p.total)
	}
}
