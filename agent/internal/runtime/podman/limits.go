package podman

import (
	"path"
	"strconv"
	"strings"
	"syscall"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containers/podman/v5/pkg/specgen"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// cpuPeriod is the kernel's default period of a CPU quota, in microseconds.
const cpuPeriod = 100_000

func setResources(s *specgen.SpecGenerator, c spec.ContainerSpec) {
	s.ResourceLimits = limits(c.Resources)
	for _, u := range c.Ulimits {
		s.Rlimits = append(s.Rlimits, oci.POSIXRlimit{Type: u.Name, Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	s.Sysctl = c.Sysctls
	if c.ShmSize > 0 {
		s.ShmSize = &c.ShmSize
	}
	for _, d := range c.Devices {
		s.Devices = append(s.Devices, oci.LinuxDevice{Path: d}) // Podman splits host:container:rwm
	}
}

// limits are the bounds that were asked for, and no others: a controller that
// the machine lacks then does no harm to containers without bounds.
func limits(r spec.Resources) *oci.LinuxResources {
	out := &oci.LinuxResources{}
	if r.CPUs > 0 {
		period, quota := uint64(cpuPeriod), int64(r.CPUs*cpuPeriod)
		out.CPU = &oci.LinuxCPU{Period: &period, Quota: &quota}
	}
	if r.Memory > 0 || r.Reservation > 0 {
		out.Memory = &oci.LinuxMemory{}
		if r.Memory > 0 {
			out.Memory.Limit = &r.Memory
		}
		if r.Reservation > 0 {
			out.Memory.Reservation = &r.Reservation
		}
	}
	if r.Pids > 0 {
		out.Pids = &oci.LinuxPids{Limit: r.Pids}
	}
	return out
}

func setMounts(s *specgen.SpecGenerator, r runtime.ContainerRequest) error {
	for _, m := range r.Spec.Mounts {
		target := path.Clean(m.Target)
		options := []string{"rw"}
		if m.ReadOnly {
			options = []string{"ro"}
		}
		switch m.Type {
		case spec.MountVolume:
			name, ok := r.Volumes[m.Source]
			if !ok && m.Source != "" {
				return faults.New(faults.Invalid, "volume %s of %s is not declared", m.Source, r.Name).
					WithHint("name it under volumes: at the top of the Compose file, then: uc deploy")
			}
			s.Volumes = append(s.Volumes, &specgen.NamedVolume{Name: name, Dest: target, Options: options})
		case spec.MountBind:
			s.Mounts = append(s.Mounts, oci.Mount{Type: "bind", Source: m.Source, Destination: target, Options: append(options, "rbind")})
		case spec.MountTmpfs:
			if m.Size > 0 {
				options = append(options, "size="+strconv.FormatInt(m.Size, 10))
			}
			s.Mounts = append(s.Mounts, oci.Mount{Type: "tmpfs", Source: "tmpfs", Destination: target, Options: options})
		default:
			return faults.New(faults.Invalid, "mount %s of %s has the unknown type %q", m.Target, r.Name, m.Type).
				WithHint("use volume, bind or tmpfs, then: uc deploy")
		}
	}
	return nil
}

func setSecurity(s *specgen.SpecGenerator, c spec.ContainerSpec) error {
	s.Privileged, s.ReadOnlyFilesystem = &c.Privileged, &c.ReadOnly
	// A read-only container still has /tmp, /run and /var/tmp in memory.
	s.ReadWriteTmpfs = &c.ReadOnly
	s.CapAdd, s.CapDrop = c.CapAdd, c.CapDrop
	if c.StopSignal != "" {
		signal, err := signalOf(c.StopSignal)
		if err != nil {
			return err
		}
		s.StopSignal = &signal
	}
	for _, o := range c.SecurityOpt {
		if err := setSecurityOpt(s, o); err != nil {
			return err
		}
	}
	return nil
}

func signalOf(name string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n > 0 {
		return syscall.Signal(n), nil
	}
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, faults.New(faults.Invalid, "stop signal %s does not exist", name).
		WithHint("write stop_signal: SIGTERM, or another of kill -l, then: uc deploy")
}

// setSecurityOpt applies one "name=value" (or, as older files have it,
// "name:value") of security_opt.
func setSecurityOpt(s *specgen.SpecGenerator, option string) error {
	name, value, _ := strings.Cut(strings.Replace(option, ":", "=", 1), "=")
	if strings.Contains(option, "=") {
		name, value, _ = strings.Cut(option, "=")
	}
	switch {
	case name == "no-new-privileges":
		on := value != "false"
		s.NoNewPrivileges = &on
	case name == "seccomp":
		s.SeccompProfilePath = value
	case name == "apparmor":
		s.ApparmorProfile = value
	case name == "label":
		s.SelinuxOpts = append(s.SelinuxOpts, value)
	case name == "mask":
		s.Mask = append(s.Mask, strings.Split(value, ":")...)
	case name == "unmask":
		s.Unmask = append(s.Unmask, strings.Split(value, ":")...)
	case name == "systempaths" && value == "unconfined":
		s.Unmask = append(s.Unmask, "ALL")
	default:
		return faults.New(faults.Invalid, "security option %q is not known", option).
			WithHint("mend security_opt in the Compose file, then: uc deploy")
	}
	return nil
}
