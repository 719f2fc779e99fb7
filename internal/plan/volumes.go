package plan

import (
	"slices"

	"uncloud/internal/spec"
)

// Mounts tells whether a spec of a project's service mounts a volume. What
// counts is the name in the engine: an external volume of one project may be a
// volume of another.
func Mounts(sp spec.ServiceSpec, project string, v spec.Volume) bool {
	name := spec.EngineVolume(v.Project, spec.VolumeSpec{Name: v.Name})
	return slices.ContainsFunc(sp.Container.Mounts, func(m spec.Mount) bool {
		return m.Type == spec.MountVolume && m.Source != "" && engineName(sp, project, m.Source) == name
	})
}

// engineName is what the engine calls the source of a mount.
func engineName(sp spec.ServiceSpec, project, source string) string {
	declared := spec.VolumeSpec{Name: source}
	if i := slices.IndexFunc(sp.Volumes, func(v spec.VolumeSpec) bool { return v.Name == source }); i >= 0 {
		declared = sp.Volumes[i]
	}
	return spec.EngineVolume(project, declared)
}

// Users are the services, but one, that mount a volume, as people write them,
// sorted: by their revision or by one that a replica still has.
func Users(s *spec.State, v spec.Volume, but string) []string {
	mounting := map[string]bool{}
	note := func(svc spec.Service, revision string) {
		if svc.ID != but && svc.ID != "" && Mounts(s.Revisions[revision].Spec, svc.Project, v) {
			mounting[svc.Project+"/"+svc.Name] = true
		}
	}
	for _, svc := range s.Services {
		note(svc, svc.Revision)
	}
	for _, r := range s.Replicas {
		note(s.Services[r.Service], r.Revision)
	}
	return sortedKeys(mounting)
}

// soleWriterVolumes are the engine's names of the volumes that a spec writes to
// and that are not meant for several writers, with the name that people gave.
func soleWriterVolumes(sp spec.ServiceSpec, project string) map[string]string {
	shared, names := map[string]bool{}, map[string]string{}
	for _, v := range sp.Volumes {
		shared[v.Name] = v.Shared
	}
	for _, m := range sp.Container.Mounts {
		if m.Type == spec.MountVolume && m.Source != "" && !m.ReadOnly && !shared[m.Source] {
			names[engineName(sp, project, m.Source)] = m.Source
		}
	}
	return names
}

// Contender is the service of the plan that writes to a volume of one that the
// plan removes, with that volume; empty when there is none, or it is shared.
func (p Plan) Contender(removed ServicePlan) (service, volume string) {
	theirs := soleWriterVolumes(removed.Revision.Spec, p.Project)
	for _, sp := range p.Services {
		if sp.After == nil {
			continue
		}
		ours := soleWriterVolumes(sp.Revision.Spec, p.Project)
		for _, name := range sortedKeys(ours) {
			if _, both := theirs[name]; both {
				return sp.Name(), ours[name]
			}
		}
	}
	return "", ""
}
