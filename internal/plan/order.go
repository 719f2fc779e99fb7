package plan

import (
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// OrderOf is whether a replacement starts before or after the old replica
// stops, and why. What the spec says holds; without that it is start-first
// unless both could not run side by side. Start-first with a volume that has
// one writer at a time is an invalid fault.
func OrderOf(sp spec.ServiceSpec) (order spec.Order, why string, err error) {
	volume, writes := soleWriterVolume(sp)
	switch {
	case writes && sp.Update.Order == spec.StartFirst:
		return spec.StopFirst, "", faults.New(faults.Invalid,
			"service %s cannot start a new replica first: two would write to volume %s", sp.Name, volume).
			WithHint("remove update_config.order, or allow it with x-shared: true on the volume")
	case sp.Update.Order != "":
		return sp.Update.Order, "the order is set", nil
	case writes:
		return spec.StopFirst, "volume " + volume + " has one writer at a time", nil
	case hostPort(sp):
		return spec.StopFirst, "a port of the host is held by one replica at a time", nil
	}
	return spec.StartFirst, "", nil
}

// soleWriterVolume is a named volume that the spec writes to and that is not
// meant for several writers.
func soleWriterVolume(sp spec.ServiceSpec) (string, bool) {
	shared := map[string]bool{}
	for _, v := range sp.Volumes {
		shared[v.Name] = v.Shared
	}
	for _, m := range sp.Container.Mounts {
		if m.Type == spec.MountVolume && m.Source != "" && !m.ReadOnly && !shared[m.Source] {
			return m.Source, true
		}
	}
	return "", false
}

// checkWriters refuses several replicas that write to one volume without having
// been allowed to. Those of a global service have a volume each.
func checkWriters(sp spec.ServiceSpec, replicas int) error {
	volume, writes := soleWriterVolume(sp)
	if !writes || replicas < 2 || sp.Mode == spec.Global {
		return nil
	}
	return faults.New(faults.Invalid, "service %s cannot have %d replicas: all would write to volume %s", sp.Name, replicas, volume).
		WithHint("let it have one: replicas: 1, or uc scale %s 1; or allow it with x-shared: true on the volume", sp.Name)
}

func hostPort(sp spec.ServiceSpec) bool {
	for _, p := range sp.Ports {
		if p.Mode == spec.HostPort {
			return true
		}
	}
	return false
}

// namedVolumes are the volumes of a spec that have to be recorded where a
// replica goes, in the order of the mounts.
func namedVolumes(sp spec.ServiceSpec) []spec.VolumeSpec {
	declared := map[string]spec.VolumeSpec{}
	for _, v := range sp.Volumes {
		declared[v.Name] = v
	}
	var out []spec.VolumeSpec
	seen := map[string]bool{}
	for _, m := range sp.Container.Mounts {
		if m.Type != spec.MountVolume || m.Source == "" || seen[m.Source] {
			continue
		}
		seen[m.Source] = true
		v, ok := declared[m.Source]
		if !ok {
			v = spec.VolumeSpec{Name: m.Source}
		}
		if !v.External {
			out = append(out, v)
		}
	}
	return out
}
