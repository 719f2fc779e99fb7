package rollout

import (
	"context"
	"slices"
	"strings"
	"sync"

	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// DeployRequest asks for services of a project to be as specified.
type DeployRequest struct {
	Project    string
	Specs      []spec.ServiceSpec
	Recreate   bool // replace containers even where nothing changed
	Prune      bool // remove services of the project that are not in Specs
	SkipHealth bool // do not wait for health
	// Agreed is the digest of the plan that a person agreed to; empty when
	// nobody was asked. Another plan is not carried out.
	Agreed string
}

// PlanDeploy is what Deploy would do now.
func (d *Driver) PlanDeploy(ctx context.Context, req DeployRequest) (plan.Plan, error) {
	if err := d.ready(); err != nil {
		return plan.Plan{}, err
	}
	return d.planner(req)(d.view(d.imagesFor(ctx, req.Specs)))
}

func (d *Driver) planner(req DeployRequest) func(plan.View) (plan.Plan, error) {
	return func(v plan.View) (plan.Plan, error) {
		return plan.Deploy(plan.Input{View: v, Project: req.Project, Specs: req.Specs,
			Recreate: req.Recreate, Prune: req.Prune, Now: d.Now()})
	}
}

// Deploy makes the services as specified and returns when they run. When one
// fails it is what it was before, those that depend on it are not begun, and
// those that were reached stay. The end of ctx has the same effect on the
// service in hand. Its errors are faults, with those of plan.Deploy and Busy,
// Unhealthy, Interrupted and whatever a machine said; Conflict also when another
// plan was agreed to.
func (d *Driver) Deploy(ctx context.Context, req DeployRequest, report func(Progress)) error {
	if err := d.ready(); err != nil {
		return err
	}
	say := newReporter(report)
	images := d.imagesFor(ctx, req.Specs)
	before := d.Store.State()
	drives, p, err := d.claim(ctx, say, images, onlyAgreed(req.Agreed, d.planner(req)), plan.Options{MoveDead: true, Recreate: req.Recreate})
	if err != nil {
		return err
	}
	say.send(Progress{Kind: ProgressPlan, Plan: &p})
	for _, dr := range drives {
		dr.skipHealth = req.SkipHealth
	}
	if err := d.awaitPruned(ctx, before, p, say); err != nil {
		unbeginAll(ctx, drives, err)
		return err
	}
	return carryAll(ctx, drives)
}

// awaitPruned waits for the containers of services that the plan removed. One
// that does not end is an error where another service is to have its volume.
func (d *Driver) awaitPruned(ctx context.Context, before *spec.State, p plan.Plan, say *reporter) error {
	for _, sp := range p.Services {
		if sp.Change != plan.Remove {
			continue
		}
		d.awaitGone(ctx, before.ReplicasOf(sp.ID()), grace(sp.Revision)+goneWithin, say)
		if service, volume := p.Contender(sp); service != "" {
			for _, r := range before.ReplicasOf(sp.ID()) {
				if _, exists := d.Store.State().Containers[r.ID]; exists {
					return faults.New(faults.Conflict, "%s on %s has not ended, and %s would write to its volume %s",
						r.Name, before.MachineName(r.Machine), service, volume).
						WithHint("deploy again when it has: uc deploy")
				}
			}
		}
		for _, s := range sp.Steps {
			say.send(Progress{Kind: ProgressDone, Step: &s})
		}
	}
	return nil
}

// unbeginAll takes back services whose turn did not come.
func unbeginAll(ctx context.Context, drives []*drive, cause error) {
	for _, d := range drives {
		if err := d.unbegin(ctx, cause); err != nil {
			d.Log.Error("service is not back where it was", "service", d.name, "err", err)
		}
	}
}

// carryAll carries drives out, those of one level side by side. After a failure
// the levels above are not begun.
func carryAll(ctx context.Context, drives []*drive) error {
	for len(drives) > 0 {
		level := drives[0].level
		n := slices.IndexFunc(drives, func(d *drive) bool { return d.level != level })
		if n < 0 {
			n = len(drives)
		}
		if err := sideBySide(ctx, drives[:n]); err != nil {
			unbeginAll(ctx, drives[n:], err)
			return err
		}
		drives = drives[n:]
	}
	return nil
}

// sideBySide carries drives out together. One that fails does not end the
// others: they return or stay by themselves.
func sideBySide(ctx context.Context, drives []*drive) error {
	errs := make([]error, len(drives))
	var wg sync.WaitGroup
	for i, d := range drives {
		wg.Go(func() { errs[i] = d.carry(ctx) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// imagesFor asks the living machines for those images of the specs that cannot
// be pulled, because then it matters who has them. A machine that does not
// answer is not known about.
func (d *Driver) imagesFor(ctx context.Context, specs []spec.ServiceSpec) plan.Images {
	var names []string
	for _, sp := range specs {
		if c := sp.Container; !pullable(c) && !slices.Contains(names, c.Image) {
			names = append(names, c.Image)
		}
	}
	if len(names) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	images := plan.Images{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for machine := range d.Store.State().Machines {
		if !d.Members.Alive()[machine] {
			continue
		}
		wg.Go(func() {
			present, err := d.Peers.HasImages(ctx, machine, names)
			if err != nil {
				d.Log.Debug("images of a machine are not known", "machine", machine, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			images[machine] = map[string]bool{}
			for _, n := range names {
				images[machine][n] = slices.Contains(present, n)
			}
		})
	}
	wg.Wait()
	return images
}

// pullable tells whether a machine may get the image from a registry: not when
// that was ruled out, nor when the name says that it was built locally.
func pullable(c spec.ContainerSpec) bool {
	return c.PullPolicy != "never" && !strings.HasPrefix(c.Image, "localhost/")
}

// onlyAgreed plans, and refuses what nobody agreed to.
func onlyAgreed(digest string, planned func(plan.View) (plan.Plan, error)) func(plan.View) (plan.Plan, error) {
	return func(v plan.View) (plan.Plan, error) {
		p, err := planned(v)
		if err == nil {
			err = agreed(digest, p)
		}
		return p, err
	}
}

// agreed is a fault when a person was shown another plan.
func agreed(digest string, p plan.Plan) error {
	if digest == "" || digest == p.Digest() {
		return nil
	}
	return faults.New(faults.Conflict, "the cluster has changed since the plan was shown; nothing was done").
		WithHint("run the command again to see what it would do now")
}

func planOf(sp plan.ServicePlan) plan.Plan {
	return plan.Plan{Project: sp.After.Project, Services: []plan.ServicePlan{sp}}
}

// planSingle is the change of one service, planned with what machines say about
// its images.
func (d *Driver) planSingle(ctx context.Context, planned func(plan.View) (plan.ServicePlan, error)) (plan.ServicePlan, error) {
	sp, err := planned(d.view(nil))
	if err != nil {
		return sp, err
	}
	images := d.imagesOf(ctx, sp)
	if images == nil {
		return sp, nil
	}
	return planned(d.view(images))
}

// imagesOf is imagesFor the revisions that a change of one service leads from and to.
func (d *Driver) imagesOf(ctx context.Context, sp plan.ServicePlan) plan.Images {
	specs := []spec.ServiceSpec{sp.Revision.Spec}
	if sp.Before != nil {
		specs = append(specs, d.Store.State().Revisions[sp.Before.Revision].Spec)
	}
	return d.imagesFor(ctx, specs)
}

// single claims and carries out the change of one service.
func (d *Driver) single(ctx context.Context, digest string, report func(Progress), planned func(plan.View) (plan.ServicePlan, error), adjust func(*drive)) error {
	if err := d.ready(); err != nil {
		return err
	}
	say := newReporter(report)
	sp, err := planned(d.view(nil))
	if err != nil {
		return err
	}
	drives, p, err := d.claim(ctx, say, d.imagesOf(ctx, sp), onlyAgreed(digest, func(v plan.View) (plan.Plan, error) {
		sp, err := planned(v)
		if err != nil {
			return plan.Plan{}, err
		}
		return planOf(sp), nil
	}), plan.Options{})
	if err != nil {
		return err
	}
	say.send(Progress{Kind: ProgressPlan, Plan: &p})
	for _, dr := range drives {
		adjust(dr)
	}
	return carryAll(ctx, drives)
}
