package compose

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"uncloud/internal/spec"
)

func (s *service) convertContainer() {
	in := &s.in
	s.out.Container = spec.ContainerSpec{
		Image:       in.Image,
		PullPolicy:  s.pullPolicy(),
		Entrypoint:  s.command("entrypoint", in.Entrypoint),
		Command:     s.command("command", in.Command),
		Env:         s.environment(),
		User:        in.User,
		WorkingDir:  in.WorkingDir,
		Hostname:    in.Hostname,
		Init:        in.Init != nil && *in.Init,
		Privileged:  in.Privileged,
		ReadOnly:    in.ReadOnly,
		TTY:         in.Tty,
		Stdin:       in.StdinOpen,
		CapAdd:      in.CapAdd,
		CapDrop:     in.CapDrop,
		GroupAdd:    in.GroupAdd,
		Sysctls:     in.Sysctls,
		Ulimits:     ulimits(in.Ulimits),
		Labels:      s.labels(),
		ExtraHosts:  extraHosts(in.ExtraHosts),
		StopSignal:  in.StopSignal,
		StopGrace:   s.duration(in.StopGracePeriod, "stop_grace_period"),
		ShmSize:     int64(in.ShmSize),
		Devices:     devices(in.Devices),
		SecurityOpt: in.SecurityOpt,
	}
	s.checkImage()
	s.checkRestart()
}

// checkImage refuses what has to be built first, and reports what could be.
func (s *service) checkImage() {
	build := s.in.Build
	switch {
	case build == nil:
	case s.in.Image == "":
		todo := newBuild(s.name, s.name+":1", build)
		s.refuse([]string{"build"}, fmt.Sprintf("add `image: %s`, then: %s", todo.Image, todo.Command(s.sources.show(build.Context))),
			"build without image is not supported")
	default:
		s.project.Builds = append(s.project.Builds, newBuild(s.name, s.in.Image, build))
	}
}

func (s *service) pullPolicy() string {
	switch s.in.PullPolicy {
	case "", types.PullPolicyAlways, types.PullPolicyNever, types.PullPolicyMissing:
		return s.in.PullPolicy
	}
	s.refuse([]string{"pull_policy"}, "use always, missing or never", "pull_policy %s is not supported", s.in.PullPolicy)
	return ""
}

func (s *service) checkRestart() {
	policy, _, _ := strings.Cut(s.in.Restart, ":")
	switch policy {
	case "", types.RestartPolicyAlways, types.RestartPolicyUnlessStopped:
	default:
		s.refuse([]string{"restart"}, "remove it: a service's containers are always restarted; uc stop ends them",
			"restart %s is not supported", s.in.Restart)
	}
}

// command refuses an empty list: it asks to clear what the image says, and a
// spec cannot tell that from leaving it alone.
func (s *service) command(key string, argv types.ShellCommand) []string {
	if argv != nil && len(argv) == 0 {
		s.refuse([]string{key}, "name the program to run", "%s: an empty list is not supported", key)
	}
	return argv
}

// environment is the variables with a value. One without, which the caller's
// environment does not have either, stays unset as in Compose.
func (s *service) environment() map[string]string {
	if len(s.in.Environment) == 0 {
		return nil
	}
	env := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(s.in.Environment)) {
		value := s.in.Environment[name]
		switch {
		case value == nil:
			s.project.Warnings = append(s.project.Warnings,
				fmt.Sprintf("service %s: variable %s has no value and stays unset", s.name, name))
		case strings.HasPrefix(*value, "secret://"):
			s.refuse([]string{"environment", name}, useSecrets, "environment %s: secret:// is not supported", name)
		default:
			env[name] = *value
		}
	}
	return env
}

// labels refuses the agent's own, by which it finds its containers.
func (s *service) labels() map[string]string {
	for _, name := range slices.Sorted(maps.Keys(s.in.Labels)) {
		if strings.HasPrefix(name, "uncloud.") {
			s.refuse([]string{"labels", name}, "use another prefix", "label %s is reserved", name)
		}
	}
	return s.in.Labels
}

// duration is d, which has to be positive where it is given: in a spec zero
// stands for the default.
func (s *service) duration(d *types.Duration, path ...string) spec.Duration {
	if d == nil {
		return 0
	}
	if *d <= 0 {
		s.refuse(path, "write a duration such as 10s, or leave it out", "%s must be more than 0s", strings.Join(path, "."))
	}
	return spec.Duration(*d)
}

func ulimits(in map[string]*types.UlimitsConfig) []spec.Ulimit {
	var out []spec.Ulimit
	for _, name := range slices.Sorted(maps.Keys(in)) {
		soft, hard := int64(in[name].Soft), int64(in[name].Hard)
		if single := int64(in[name].Single); single != 0 {
			soft, hard = single, single
		}
		out = append(out, spec.Ulimit{Name: name, Soft: soft, Hard: hard})
	}
	return out
}

func extraHosts(in types.HostsList) []string {
	if len(in) == 0 {
		return nil
	}
	out := in.AsList(":")
	slices.Sort(out)
	return out
}

// devices writes host[:container[:permissions]] as short as it can be. A CDI
// name such as vendor.com/class=name has neither target nor permissions.
func devices(in []types.DeviceMapping) []string {
	var out []string
	for _, d := range in {
		text := d.Source
		limited := d.Permissions != "" && d.Permissions != "rwm"
		if (d.Target != "" && d.Target != d.Source) || limited {
			text += ":" + d.Target
		}
		if limited {
			text += ":" + d.Permissions
		}
		out = append(out, text)
	}
	return out
}

// convertResources lets deploy.resources win over the older keys. The parser
// has refused files in which the two differ.
func (s *service) convertResources() {
	r := spec.Resources{
		CPUs:        exactFloat(s.in.CPUS),
		Memory:      int64(s.in.MemLimit),
		Reservation: int64(s.in.MemReservation),
		Pids:        s.in.PidsLimit,
	}
	if s.in.Deploy != nil {
		if limits := s.in.Deploy.Resources.Limits; limits != nil {
			override(&r.CPUs, exactFloat(limits.NanoCPUs.Value()))
			override(&r.Memory, int64(limits.MemoryBytes))
			override(&r.Pids, limits.Pids)
		}
		if kept := s.in.Deploy.Resources.Reservations; kept != nil {
			override(&r.Reservation, int64(kept.MemoryBytes))
		}
	}
	if r.Pids < 0 { // -1 is Compose's "no bound"
		r.Pids = 0
	}
	s.out.Container.Resources = r
}

func override[T comparable](to *T, from T) {
	var zero T
	if from != zero {
		*to = from
	}
}

// exactFloat is the shortest decimal that reads as f: 0.1, not 0.10000000149.
func exactFloat(f float32) float64 {
	exact, err := strconv.ParseFloat(strconv.FormatFloat(float64(f), 'g', -1, 32), 64)
	if err != nil {
		return float64(f)
	}
	return exact
}
