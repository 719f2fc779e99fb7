package compose

import (
	"regexp"
	"slices"

	"uncloud/internal/spec"
)

var (
	httpCheck = regexp.MustCompile(`^:\d{1,5}(/\S*)?$`)
	tcpCheck  = regexp.MustCompile(`^:\d{1,5}$`)
)

// convertHealth joins healthcheck, which has the timings and may have a
// command, with x-healthcheck, which asks over the network instead.
func (s *service) convertHealth() {
	check := s.networkCheck()
	in := s.in.HealthCheck
	if in == nil {
		s.out.Health = check
		return
	}
	off := in.Disable || len(in.Test) > 0 && in.Test[0] == "NONE"
	switch {
	case off && check == nil:
		return
	case (off || len(in.Test) > 0) && check != nil:
		s.refuse([]string{"x-healthcheck"}, "keep one of them", "healthcheck and x-healthcheck exclude each other")
		return
	case check == nil:
		if check = s.commandCheck(in.Test); check == nil {
			return
		}
	}
	check.Interval = s.duration(in.Interval, "healthcheck", "interval")
	check.Timeout = s.duration(in.Timeout, "healthcheck", "timeout")
	check.StartEvery = s.duration(in.StartInterval, "healthcheck", "start_interval")
	if in.StartPeriod != nil {
		check.StartPeriod = spec.Duration(*in.StartPeriod)
	}
	if in.Retries != nil {
		check.Retries = int(min(*in.Retries, 1<<16))
		if check.Retries == 0 {
			s.refuse([]string{"healthcheck", "retries"}, "write 1 or more; disable: true ends the check", "healthcheck.retries must be more than 0")
		}
	}
	s.out.Health = check
}

func (s *service) commandCheck(test []string) *spec.HealthCheck {
	switch {
	case len(test) < 2:
		s.refuse([]string{"healthcheck"}, `write test: ["CMD", PROGRAM], or x-healthcheck: {http: ":PORT/"}`,
			"healthcheck has no test")
		return nil
	case test[0] == "CMD-SHELL":
		return &spec.HealthCheck{Exec: []string{"/bin/sh", "-c", test[1]}}
	}
	return &spec.HealthCheck{Exec: slices.Clone(test[1:])}
}

// networkCheck is x-healthcheck without timings, or nil.
func (s *service) networkCheck() *spec.HealthCheck {
	value, given := s.in.Extensions["x-healthcheck"]
	if !given {
		return nil
	}
	m, _ := value.(map[string]any)
	http, _ := m["http"].(string)
	tcp, _ := m["tcp"].(string)
	switch {
	case http != "" && tcp == "" && httpCheck.MatchString(http):
		return &spec.HealthCheck{HTTP: http}
	case tcp != "" && http == "" && tcpCheck.MatchString(tcp):
		return &spec.HealthCheck{TCP: tcp}
	}
	s.refuse([]string{"x-healthcheck"}, `write {http: ":8080/path"} or {tcp: ":5432"}`, "x-healthcheck cannot be read")
	return nil
}
