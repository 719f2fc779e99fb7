package render

import (
	"strings"

	uncloudv1 "uncloud/api/uncloud/v1"
)

// Steps is how many steps a plan has.
func Steps(plan *uncloudv1.Plan) int {
	n := 0
	for _, service := range plan.GetServices() {
		n += len(service.GetSteps())
	}
	return n
}

// Plan writes what would be done, to what, and why.
func (u *UI) Plan(plan *uncloudv1.Plan) {
	for _, warning := range plan.GetWarnings() {
		u.Warn("%s", warning)
	}
	for _, service := range plan.GetServices() {
		u.servicePlan(service)
	}
	u.Out.Line("%s", summary(plan))
}

func (u *UI) servicePlan(plan *uncloudv1.ServicePlan) {
	mark, word := changeWords(plan.GetChange())
	u.Out.Line("%s %s %s", u.mark(mark), u.Out.Bold(plan.GetService()), u.Out.Faint(word))
	for _, difference := range plan.GetDifferences() {
		u.Out.Line("    %s", difference)
	}
	for _, step := range plan.GetSteps() {
		mark := stepMark(step.GetKind())
		if plan.GetChange() == "remove" {
			mark = "-" // its volumes, too
		}
		u.Out.Line("  %s %s%s", u.mark(mark), step.GetText(), u.because(step))
	}
}

func (u *UI) because(step *uncloudv1.Step) string {
	if step.GetReason() == "" {
		return ""
	}
	return u.Out.Faint(" (" + step.GetReason() + ")")
}

// changeWords are the mark and the word of a ServicePlan's change.
func changeWords(change string) (mark, word string) {
	switch change {
	case "create":
		return "+", "new"
	case "update":
		return "~", "changed"
	case "remove":
		return "-", "removed"
	}
	return "=", "as it is"
}

func stepMark(kind string) string {
	switch kind {
	case "create", "volume", "start":
		return "+"
	case "remove", "prune", "stop", "forget":
		return "-"
	}
	return "~"
}

func (u *UI) mark(mark string) string {
	switch mark {
	case "+":
		return u.Out.Good(mark)
	case "-":
		return u.Out.Bad(mark)
	case "~":
		return u.Out.Warn(mark)
	}
	return u.Out.Faint(mark)
}

// summary counts the steps by kind, in the order in which kinds first appear.
func summary(plan *uncloudv1.Plan) string {
	var kinds []string
	count := map[string]int{}
	for _, service := range plan.GetServices() {
		for _, step := range service.GetSteps() {
			if count[step.GetKind()] == 0 {
				kinds = append(kinds, step.GetKind())
			}
			count[step.GetKind()]++
		}
	}
	if len(kinds) == 0 {
		return "plan: nothing to do"
	}
	var parts []string
	for _, kind := range kinds {
		parts = append(parts, Count(count[kind], kind+" step"))
	}
	return "plan: " + strings.Join(parts, ", ")
}
