package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Scale is what it takes to have another number of replicas of a service.
func Scale(v View, service string, replicas int, now time.Time) (ServicePlan, error) {
	svc, err := find(v, service)
	if err != nil {
		return ServicePlan{}, err
	}
	switch {
	case svc.Mode == spec.Global:
		return ServicePlan{}, faults.New(faults.Invalid, "%s/%s is global: it has one replica on every machine", svc.Project, svc.Name).
			WithHint("to choose how many, remove mode: global from the Compose file, then: uc deploy")
	case replicas < 1:
		return ServicePlan{}, faults.New(faults.Invalid, "a service has at least one replica").
			WithHint("to end it for a while: uc stop %s", svc.Name)
	}
	after := svc
	after.Replicas = replicas
	if err := checkWriters(v.State.Revisions[svc.Revision].Spec, replicas); err != nil && replicas > svc.Replicas {
		return ServicePlan{}, err
	}
	p, err := changed(v, svc, after, now)
	if err == nil && svc.Replicas != replicas {
		p.Differences = []string{fmt.Sprintf("replicas %d -> %d", svc.Replicas, replicas)}
	}
	return p, err
}

// Rollback is what it takes to return a service to a revision: the one with
// this id or the beginning of it, or without one, the one that ran before.
func Rollback(v View, service, revision string, now time.Time) (ServicePlan, error) {
	svc, err := find(v, service)
	if err != nil {
		return ServicePlan{}, err
	}
	to, err := rollbackTarget(v.State, svc, revision)
	if err != nil {
		return ServicePlan{}, err
	}
	after := svc
	after.Revision, after.Mode, after.Wanted = to.ID, to.Spec.Mode, spec.WantRunning
	if after.Mode != spec.Global && after.Replicas == 0 {
		after.Replicas = 1
	}
	if err := checkWriters(to.Spec, after.Replicas); err != nil {
		return ServicePlan{}, err
	}
	p, err := changed(v, svc, after, now)
	if old, ok := v.State.Revisions[svc.Revision]; err == nil && ok {
		p.Differences = Differences(old.Spec, to.Spec)
	}
	return p, err
}

func rollbackTarget(s *spec.State, svc spec.Service, ref string) (spec.Revision, error) {
	if ref == "" {
		ref = Former(s, svc)
		if ref == "" {
			return spec.Revision{}, faults.New(faults.NotFound, "%s/%s has no former revision", svc.Project, svc.Name).
				WithHint("see its history: uc inspect %s", svc.Name)
		}
	}
	var found []spec.Revision
	for _, r := range s.Revisions {
		if r.Service == svc.ID && (r.ID == ref || strings.HasPrefix(r.ID, ref) || strings.HasPrefix(r.ID, spec.RevisionPrefix+ref)) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return spec.Revision{}, faults.New(faults.NotFound, "%s/%s has no revision %s", svc.Project, svc.Name, ref).
			WithHint("see its history: uc inspect %s", svc.Name)
	}
	return spec.Revision{}, faults.New(faults.Invalid, "several revisions of %s/%s begin with %s", svc.Project, svc.Name, ref).
		WithHint("give more of the id: uc inspect %s", svc.Name)
}

// Former is the revision that ran before the present one: where the last
// rollout that reached the present one came from. It is empty when none is known.
func Former(s *spec.State, svc spec.Service) string {
	var last spec.Rollout
	for _, r := range s.Rollouts {
		if r.Service != svc.ID || r.Stage != spec.RolloutDone || r.To != svc.Revision || r.From == r.To || r.From == "" {
			continue
		}
		if _, known := s.Revisions[r.From]; !known {
			continue
		}
		if cmp.Or(r.EndedAt.Compare(last.EndedAt), cmp.Compare(r.ID, last.ID)) > 0 {
			last = r
		}
	}
	return last.From
}

// Start is what it takes to run a stopped service again.
func Start(v View, service string, now time.Time) (ServicePlan, error) {
	svc, err := find(v, service)
	if err != nil {
		return ServicePlan{}, err
	}
	after := svc
	after.Wanted = spec.WantRunning
	p, err := changed(v, svc, after, now)
	if err != nil || svc.Wanted == spec.WantRunning {
		return p, err
	}
	p.Differences = []string{"stopped -> running"}
	return p, nil
}

// Stop is what it takes to stop a service and keep its places.
func Stop(v View, service string) (ServicePlan, error) {
	svc, err := find(v, service)
	if err != nil {
		return ServicePlan{}, err
	}
	after := svc
	after.Wanted = spec.WantStopped
	p := ServicePlan{Before: &svc, After: &after, Revision: v.State.Revisions[svc.Revision], Change: None}
	if svc.Wanted == spec.WantStopped {
		return p, nil
	}
	p.Change, p.Differences = Update, []string{"running -> stopped"}
	p.Steps = each(v, svc, KindStop, "stop")
	return p, nil
}

// Removing is what it takes to remove a service, with those of its volumes that
// no other service mounts when volumes is set.
func Removing(v View, service string, volumes bool) (ServicePlan, error) {
	svc, err := find(v, service)
	if err != nil {
		return ServicePlan{}, err
	}
	return removal(v, svc, volumes), nil
}

// RemovingAll is Removing for several services, one after another: a volume that
// only they mount goes with the last of them.
func RemovingAll(v View, services []string, volumes bool) (Plan, error) {
	var p Plan
	v.State = draft(v.State)
	for _, service := range services {
		sp, err := Removing(v, service, volumes)
		if err != nil {
			return Plan{}, err
		}
		p.Project, p.Services = sp.Before.Project, append(p.Services, sp)
		delete(v.State.Services, service)
		for _, r := range v.State.ReplicasOf(service) {
			delete(v.State.Replicas, r.ID)
		}
		for _, vol := range sp.Volumes {
			delete(v.State.Volumes, vol.ID)
		}
	}
	return p, nil
}

func removal(v View, svc spec.Service, volumes bool) ServicePlan {
	p := ServicePlan{Before: &svc, Revision: v.State.Revisions[svc.Revision], Change: Remove, Steps: each(v, svc, KindRemove, "remove")}
	if !volumes {
		return p
	}
	names := machineNames(v.State.MachineNames())
	p.Volumes = ownVolumes(v.State, svc)
	for _, vol := range p.Volumes {
		p.Steps = append(p.Steps, Step{Kind: KindVolume, Service: svc.ID, Machine: vol.Machine, Volume: vol,
			Text: fmt.Sprintf("remove volume %s from %s", vol.Name, names.of(vol.Machine)), Reason: "volumes were asked for"}.keyed())
	}
	return p
}

// ownVolumes are the volumes that only this service mounts and that the
// cluster made.
func ownVolumes(s *spec.State, svc spec.Service) []spec.Volume {
	var out []spec.Volume
	for _, want := range namedVolumes(s.Revisions[svc.Revision].Spec) {
		for _, v := range s.Volumes {
			if v.Project == svc.Project && v.Name == want.Name && len(Users(s, v, svc.ID)) == 0 {
				out = append(out, v)
			}
		}
	}
	slices.SortFunc(out, func(a, b spec.Volume) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// each is one step for every replica of a service.
func each(v View, svc spec.Service, kind Kind, verb string) []Step {
	names := machineNames(v.State.MachineNames())
	var steps []Step
	for _, r := range v.State.ReplicasOf(svc.ID) {
		s := Step{Kind: kind, Service: svc.ID, Replica: r.ID, Machine: r.Machine, Revision: r.Revision,
			Text: fmt.Sprintf("%s %s on %s", verb, r.Name, names.of(r.Machine))}
		if !v.Alive[r.Machine] {
			s.Reason = names.of(r.Machine) + " is down: it follows when it returns"
		}
		steps = append(steps, s.keyed())
	}
	return steps
}

// changed is the plan that leads from one row of a service to another.
func changed(v View, before, after spec.Service, now time.Time) (ServicePlan, error) {
	if v.State.NeverRan()[before.ID] {
		return ServicePlan{}, faults.New(faults.NotFound, "%s/%s does not run: its first deploy failed", before.Project, before.Name).
			WithHint("deploy it again: uc deploy; or remove it: uc rm %s", before.Name)
	}
	d := v
	d.State = draft(v.State)
	d.State.Services[after.ID] = after
	p := ServicePlan{Before: &before, After: &after, Revision: d.State.Revisions[after.Revision], Change: Update}
	steps, _, err := converge(d, after.ID, Options{Now: now, All: before.Wanted != after.Wanted})
	if err != nil {
		return ServicePlan{}, err
	}
	p.Steps = steps
	if len(steps) == 0 && before == after {
		p.Change = None
	}
	return p, nil
}

func find(v View, service string) (spec.Service, error) {
	svc, ok := v.State.Services[service]
	if !ok {
		return spec.Service{}, faults.New(faults.NotFound, "there is no service %s", service).WithHint("see what there is: uc ls")
	}
	return svc, nil
}
