package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Input is a request to deploy services of a project.
type Input struct {
	View
	Project string
	Specs   []spec.ServiceSpec
	// Recreate replaces containers even where nothing changed.
	Recreate bool
	// Prune removes services of the project that are not in Specs.
	Prune bool
	Now   time.Time
}

// Deploy is what it takes to make the services of a project be as specified.
// Its errors are faults: Invalid, Conflict where a route is taken, MachineDown
// where a volume is on a machine that is down, NoImage and NoPlace.
func Deploy(in Input) (Plan, error) {
	if err := spec.CheckName("project", in.Project); err != nil {
		return Plan{}, faults.New(faults.Invalid, "%w", err).WithHint("name it otherwise: uc deploy --project NAME")
	}
	specs, err := ordered(in.Specs, in.has)
	if err != nil {
		return Plan{}, err
	}
	d := &deployment{Input: in, now: in.State, plan: Plan{Project: in.Project}, never: in.State.NeverRan()}
	d.State = draft(in.State)
	d.prune()
	for _, sp := range specs {
		d.record(sp)
	}
	if err := d.checkRoutes(); err != nil {
		return Plan{}, err
	}
	for _, sp := range specs {
		if err := d.service(sp); err != nil {
			return Plan{}, err
		}
	}
	return d.plan, nil
}

// has tells whether the project has a service of this name.
func (in Input) has(name string) bool {
	_, ok := in.State.Services[spec.ServiceID(in.Project, name)]
	return ok
}

// deployment is a plan in the making. Its State is a draft of what will be,
// so that each service is placed with those before it in view.
type deployment struct {
	Input
	now  *spec.State
	plan Plan
	// never are services whose row is there although they never ran: new ones.
	never map[string]bool
}

func (d *deployment) prune() {
	if !d.Prune {
		return
	}
	wanted := map[string]bool{}
	for _, sp := range d.Specs {
		wanted[sp.Name] = true
	}
	for _, svc := range servicesOf(d.now, d.Project) {
		if wanted[svc.Name] {
			continue
		}
		p := removal(d.View, svc, false)
		for i := range p.Steps {
			p.Steps[i].Kind, p.Steps[i].Reason = KindPrune, "the project no longer has "+svc.Name
			p.Steps[i] = p.Steps[i].keyed()
		}
		d.plan.Services = append(d.plan.Services, p)
		delete(d.State.Services, svc.ID)
		for _, r := range d.now.ReplicasOf(svc.ID) {
			delete(d.State.Replicas, r.ID)
		}
		d.warnOfUpgrades(p, machineNames(d.now.MachineNames()))
	}
}

func servicesOf(s *spec.State, project string) []spec.Service {
	var out []spec.Service
	for _, svc := range s.Services {
		if svc.Project == project {
			out = append(out, svc)
		}
	}
	slices.SortFunc(out, func(a, b spec.Service) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// record drafts the rows of a service as they will be.
func (d *deployment) record(sp leveled) {
	id := spec.ServiceID(d.Project, sp.Name)
	svc, ok := d.now.Services[id]
	if !ok || d.never[id] {
		svc = spec.Service{ID: id, Project: d.Project, Name: sp.Name, CreatedAt: d.Now, Replicas: 1}
	}
	svc.Wanted, svc.Mode, svc.Revision = spec.WantRunning, sp.Mode, sp.RevisionID(id)
	if sp.Mode == spec.Global {
		svc.Replicas = 0
	} else {
		svc.Mode = spec.Replicated
		svc.Replicas = cmp.Or(max(sp.Replicas, 0), svc.Replicas, 1)
	}
	d.State.Services[id] = svc
	if _, ok := d.now.Revisions[svc.Revision]; !ok {
		content := sp.ServiceSpec
		content.Replicas = 0 // so that the row, too, follows from the id
		d.State.Revisions[svc.Revision] = spec.Revision{ID: svc.Revision, Service: id, Spec: content, CreatedAt: d.Now}
	}
}

// checkRoutes refuses routes that clash with those of another service. A clash
// that is there already, as a partition may leave it, hinders no deploy.
func (d *deployment) checkRoutes() error {
	type clash struct{ loser, owner, route string }
	_, old := spec.Routes(d.now)
	known := map[clash]bool{}
	for _, c := range old {
		known[clash{c.Route.Service, c.Owner.Service, c.Route.String()}] = true
	}
	mine := map[string]bool{}
	for _, sp := range d.Specs {
		mine[spec.ServiceID(d.Project, sp.Name)] = true
	}
	_, lost := spec.Routes(d.State)
	for _, c := range lost {
		if known[clash{c.Route.Service, c.Owner.Service, c.Route.String()}] || !mine[c.Route.Service] && !mine[c.Owner.Service] {
			continue
		}
		asks, has := c.Route, c.Owner
		if !mine[asks.Service] {
			asks, has = has, asks
		}
		return faults.New(faults.Conflict, "service %s asks for %s, which %s/%s has already", asks.ServiceName, asks, has.Project, has.ServiceName).
			WithHint("change x-ports of one of them; see who has what: uc ls")
	}
	return nil
}

// service plans one service.
func (d *deployment) service(sp leveled) error {
	after := d.State.Services[spec.ServiceID(d.Project, sp.Name)]
	p := ServicePlan{After: &after, Revision: d.State.Revisions[after.Revision], Level: sp.level, Change: Create}
	if err := d.checkSpec(sp.ServiceSpec, after.Replicas); err != nil {
		return err
	}
	if before, ok := d.now.Services[after.ID]; ok && !d.never[after.ID] {
		p.Before, p.Change = &before, Update
		p.Differences = d.differences(before, after)
	}
	routes := d.routes(p)
	started := p.Before != nil && p.Before.Wanted != after.Wanted
	steps, state, err := converge(d.View, after.ID, Options{MoveDead: true, Recreate: d.Recreate, All: started, Now: d.Now})
	if err != nil {
		return err
	}
	p.Steps = slices.Concat(routes, steps)
	if p.Before != nil && *p.Before == after && len(steps) == 0 {
		p.Change = None
	}
	if err := d.check(p); err != nil {
		return err
	}
	d.State = state
	d.warn(p)
	d.plan.Services = append(d.plan.Services, p)
	return nil
}

func (d *deployment) differences(before, after spec.Service) []string {
	old, known := d.now.Revisions[before.Revision]
	var lines []string
	if known {
		lines = Differences(old.Spec, d.State.Revisions[after.Revision].Spec)
	}
	if before.Replicas != after.Replicas && after.Mode == spec.Replicated {
		lines = append(lines, fmt.Sprintf("replicas %d -> %d", before.Replicas, after.Replicas))
	}
	if before.Wanted != after.Wanted {
		lines = append(lines, fmt.Sprintf("%s -> %s", before.Wanted, after.Wanted))
	}
	return lines
}

// routes tells which routes appear and go.
func (d *deployment) routes(p ServicePlan) []Step {
	before, after := map[string]uint16{}, map[string]uint16{}
	if p.Before != nil {
		for _, port := range d.now.Revisions[p.Before.Revision].Spec.Ports {
			before[port.String()] = port.Container
		}
	}
	for _, port := range p.Revision.Spec.Ports {
		after[port.String()] = port.Container
	}
	var steps []Step
	add := func(text, reason string) {
		s := Step{Kind: KindRoute, Service: p.After.ID, Revision: p.Revision.ID, Text: text, Reason: reason}.keyed()
		s.Key += text
		steps = append(steps, s)
	}
	for route, port := range after {
		if before[route] != port {
			add(fmt.Sprintf("serve %s by port %d of %s", route, port, p.After.Name), "no container changes for it")
		}
	}
	for route := range before {
		if _, ok := after[route]; !ok {
			add("stop serving "+route, "the new revision does not have it")
		}
	}
	slices.SortFunc(steps, func(a, b Step) int { return cmp.Compare(a.Key, b.Key) })
	return steps
}

// checkSpec refuses what can never be done.
func (d *deployment) checkSpec(sp spec.ServiceSpec, replicas int) error {
	if _, _, err := OrderOf(sp); err != nil {
		return err
	}
	if err := checkWriters(sp, replicas); err != nil {
		return err
	}
	for _, ref := range sp.Placement.Machines {
		if _, ok := d.now.MachineByRef(ref); !ok {
			return faults.New(faults.NotFound, "service %s asks for machine %s, which does not exist", sp.Name, ref).
				WithHint("see the names: uc machine ls")
		}
	}
	return nil
}

// check refuses a plan that cannot end well.
func (d *deployment) check(p ServicePlan) error {
	if p.Change == None {
		return nil
	}
	names := machineNames(d.now.MachineNames())
	ask := Ask{Service: *p.After, Spec: p.Revision.Spec, Images: d.Images}
	if home := d.Scheduler.HomeOf(d.now, ask); home != "" && !d.Alive[home] {
		return faults.New(faults.MachineDown, "the volumes of %s are on %s, which is down", p.Name(), names.of(home)).
			WithHint("start the machine, then deploy again; see: uc machine ls")
	}
	if p.After.Mode == spec.Global && p.Before == nil && !slices.ContainsFunc(p.Steps, runs) {
		_, err := d.Scheduler.Place(d.now, d.Alive, ask)
		return err
	}
	image := p.Revision.Spec.Container.Image
	for _, s := range p.Steps {
		if runs(s) && d.Images.Lacks(s.Machine, image) {
			return faults.New(faults.NoImage, "%s does not have the image %s, which cannot be pulled", names.of(s.Machine), image).
				WithHint("%s", PushHint(image))
		}
	}
	return nil
}

// runs tells whether a step makes a container.
func runs(s Step) bool {
	return s.Kind == KindCreate || s.Kind == KindReplace || s.Kind == KindMove
}

// warn adds what a person should know before saying yes.
func (d *deployment) warn(p ServicePlan) {
	names := machineNames(d.now.MachineNames())
	down := map[string]int{}
	for _, r := range d.State.ReplicasOf(p.After.ID) {
		if !d.Alive[r.Machine] {
			down[names.of(r.Machine)]++
		}
	}
	for _, name := range sortedKeys(down) {
		d.plan.Warnings = append(d.plan.Warnings, fmt.Sprintf("%s is down: its %s of %s follows when it returns",
			name, count(down[name], "replica"), p.Name()))
	}
	d.warnOfUpgrades(p, names)
	d.warnOfWriters(p)
}

// warnOfWriters names the services outside of the request that write to a volume
// of this one: one that was renamed in the file runs on under its old name.
func (d *deployment) warnOfWriters(p ServicePlan) {
	ours := soleWriterVolumes(p.Revision.Spec, d.Project)
	for _, svc := range servicesOf(d.State, d.Project) {
		asked := slices.ContainsFunc(d.Specs, func(sp spec.ServiceSpec) bool { return sp.Name == svc.Name })
		if asked || svc.Wanted != spec.WantRunning || len(d.State.ReplicasOf(svc.ID)) == 0 {
			continue
		}
		theirs := soleWriterVolumes(d.State.Revisions[svc.Revision].Spec, d.Project)
		for _, name := range sortedKeys(ours) {
			if _, both := theirs[name]; both {
				d.plan.Warnings = append(d.plan.Warnings, fmt.Sprintf("%s/%s, which the file does not have, writes to volume %s as well as %s; to remove it: uc deploy --prune",
					svc.Project, svc.Name, ours[name], p.Name()))
			}
		}
	}
}

// warnOfUpgrades names the machines that change their generation while the
// service has replicas there, gets or loses some: they may be away for a while,
// and come back with another system.
func (d *deployment) warnOfUpgrades(p ServicePlan, names machineNames) {
	service, had, has := p.ID(), map[string]bool{}, map[string]bool{}
	for _, r := range d.now.ReplicasOf(service) {
		had[r.Machine] = true
	}
	for _, r := range d.State.ReplicasOf(service) {
		has[r.Machine] = true
	}
	moving := map[string]string{}
	for machine, t := range d.now.Turns {
		if t.Stage.Ended() || !had[machine] && !has[machine] {
			continue
		}
		to, verb := "", "has"
		if t.To != "" {
			to = " to " + t.To
		}
		switch {
		case !had[machine]:
			verb = "gets"
		case !has[machine]:
			verb = "loses"
		}
		name := names.of(machine)
		moving[name] = fmt.Sprintf("%s is being upgraded%s (%s), and %s replicas of %s", name, to, t.Stage, verb, p.Name())
	}
	for _, name := range sortedKeys(moving) {
		d.plan.Warnings = append(d.plan.Warnings, moving[name])
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
