package compose

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"uncloud/internal/spec"
)

func (s *service) convertDeploy() {
	s.convertMode()
	if s.in.Deploy == nil {
		return
	}
	s.convertUpdate()
	if policy := s.in.Deploy.RestartPolicy; policy != nil && policy.Condition != "" && policy.Condition != "any" {
		s.refuse([]string{"deploy", "restart_policy", "condition"}, "remove it: a service's containers are always restarted",
			"deploy.restart_policy.condition %s is not supported", policy.Condition)
	}
	for i, text := range s.in.Deploy.Placement.Constraints {
		s.convertConstraint(i, text)
	}
}

// convertMode says how many replicas a replicated service has where the file
// does. Where it does not, the number stays as it is: uc scale is not undone by
// the next deploy.
func (s *service) convertMode() {
	replicas := s.in.Scale
	mode := "replicated"
	if d := s.in.Deploy; d != nil {
		if d.Replicas != nil {
			replicas = d.Replicas
		}
		if d.Mode != "" {
			mode = d.Mode
		}
	}
	switch mode {
	case "replicated":
		s.out.Mode = spec.Replicated
		switch {
		case replicas == nil:
		case *replicas == 0:
			s.refuse([]string{"deploy", "replicas"}, "give a number from 1, and stop the service with: uc stop", "replicas: 0 is not supported")
		default:
			s.out.Replicas = *replicas
		}
	case "global":
		s.out.Mode = spec.Global
		if replicas != nil {
			s.refuse([]string{"deploy", "replicas"}, "remove the number", "a global service has one replica a machine, not a number of them")
		}
	default:
		s.refuse([]string{"deploy", "mode"}, "use replicated or global", "deploy.mode %s is not supported", mode)
	}
}

func (s *service) convertUpdate() {
	in := s.in.Deploy.UpdateConfig
	if in == nil {
		return
	}
	at := func(key string) []string { return []string{"deploy", "update_config", key} }
	out := &s.out.Update
	switch order := spec.Order(in.Order); order {
	case "", spec.StartFirst, spec.StopFirst:
		out.Order = order
	default:
		s.refuse(at("order"), "use start-first or stop-first", "deploy.update_config.order %s is not supported", in.Order)
	}
	if in.FailureAction != "" && in.FailureAction != "rollback" {
		s.refuse(at("failure_action"), "remove it: a failed rollout returns to what ran before",
			"deploy.update_config.failure_action %s is not supported", in.FailureAction)
	}
	if in.Parallelism != nil {
		if *in.Parallelism == 0 || *in.Parallelism > 1<<16 {
			s.refuse(at("parallelism"), "write how many replicas may be replaced at once",
				"deploy.update_config.parallelism %d is not supported", *in.Parallelism)
		}
		out.Parallelism = int(*in.Parallelism)
	}
	out.Delay = spec.Duration(in.Delay)
	// 0s turns the wait off, so it differs from no monitor.
	if section(s.raw, "deploy", "update_config")["monitor"] != nil {
		monitor := spec.Duration(in.Monitor)
		out.Monitor = &monitor
	}
}

var constraint = regexp.MustCompile(`^\s*([\w.-]+?(?:\.[\w./-]+)?)\s*(==|!=)\s*(\S+)\s*$`)

// convertConstraint maps labels of machines, and the name of one.
func (s *service) convertConstraint(i int, text string) {
	at := []string{"deploy", "placement", "constraints", strconv.Itoa(i)}
	m := constraint.FindStringSubmatch(text)
	if m == nil {
		s.refuse(at, "write machine.labels.KEY==VALUE or machine.name==NAME", "constraint %q cannot be read", text)
		return
	}
	subject, operator, value := m[1], m[2], m[3]
	kind, rest, _ := strings.Cut(subject, ".")
	label, isLabel := strings.CutPrefix(rest, "labels.")
	isName := rest == "name" && kind == "machine" || rest == "hostname" && kind == "node"
	switch {
	case kind != "machine" && kind != "node":
	case isLabel && label != "":
		s.out.Placement.Constraints = append(s.out.Placement.Constraints, fmt.Sprintf("label.%s%s%s", label, operator, value))
		return
	case isName && operator == "==" && len(s.out.Placement.Machines) == 0:
		s.out.Placement.Machines = []string{value}
		return
	case isName && operator == "==":
		s.refuse(at, "name all machines in x-machines", "constraint %q: machines are named twice", text)
		return
	}
	s.refuse(at, "use machine.labels.KEY==VALUE, machine.labels.KEY!=VALUE or machine.name==NAME",
		"constraint %q is not supported", text)
}
