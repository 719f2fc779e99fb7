package rollout

import (
	"context"
	"fmt"
	"strings"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// PlanScale is what Scale would do now.
func (d *Driver) PlanScale(ctx context.Context, service string, replicas int) (plan.ServicePlan, error) {
	return d.planSingle(ctx, d.scaling(service, replicas))
}

// Scale makes a service have so many replicas. When a new one does not come up
// the service has as many as before. For agreed see DeployRequest.
func (d *Driver) Scale(ctx context.Context, service string, replicas int, agreed string, report func(Progress)) error {
	return d.single(ctx, agreed, report, d.scaling(service, replicas), func(*drive) {})
}

func (d *Driver) scaling(service string, replicas int) func(plan.View) (plan.ServicePlan, error) {
	return func(v plan.View) (plan.ServicePlan, error) { return plan.Scale(v, service, replicas, d.Now()) }
}

// PlanRollback is what Rollback would do now.
func (d *Driver) PlanRollback(ctx context.Context, service, revision string) (plan.ServicePlan, error) {
	return d.planSingle(ctx, d.rollback(service, revision))
}

// Rollback returns a service to a revision: the one with this id or the
// beginning of it, or the one that ran before when it is empty. For agreed see
// DeployRequest.
func (d *Driver) Rollback(ctx context.Context, service, revision, agreed string, report func(Progress)) error {
	return d.single(ctx, agreed, report, d.rollback(service, revision), func(*drive) {})
}

func (d *Driver) rollback(service, revision string) func(plan.View) (plan.ServicePlan, error) {
	return func(v plan.View) (plan.ServicePlan, error) { return plan.Rollback(v, service, revision, d.Now()) }
}

// Start runs stopped services, given by id, and returns when they run. One that
// does not come up stays started, and its machines keep trying.
func (d *Driver) Start(ctx context.Context, services []string, report func(Progress)) error {
	for _, service := range services {
		err := d.single(ctx, "", report, func(v plan.View) (plan.ServicePlan, error) {
			return plan.Start(v, service, d.Now())
		}, func(dr *drive) { dr.stays = true })
		if err != nil {
			return err
		}
	}
	return nil
}

// Stop stops services, given by id, and returns when the living machines say
// that they did, or after the stop grace. Their places and volumes stay.
func (d *Driver) Stop(ctx context.Context, services []string, report func(Progress)) error {
	return d.end(ctx, services, report, ending{
		plan: plan.Stop,
		write: func(tx Tx, p plan.ServicePlan) error {
			if err := d.free(tx, p.Name(), p.ID(), true); err != nil {
				return err
			}
			if err := tx.Put(*p.After); err != nil {
				return err
			}
			return d.event(tx, "service.stopped", p.ID(), p.Name()+" was stopped")
		},
		ended: func(c spec.Container, exists bool) bool { return !exists || c.State != spec.ContainerRunning },
	})
}

// PlanRemoval is what Remove would do now.
func (d *Driver) PlanRemoval(services []string, volumes bool) (plan.Plan, error) {
	return plan.RemovingAll(d.view(nil), services, volumes)
}

// Remove removes services, given by id, also while they are rolled out, and
// returns when the living machines say that the containers are gone. With
// volumes set, those that no other service mounts are removed as well. For
// agreed see DeployRequest.
func (d *Driver) Remove(ctx context.Context, services []string, volumes bool, agreed string, report func(Progress)) error {
	return d.end(ctx, services, report, ending{
		agreed: agreed,
		plan: func(v plan.View, service string) (plan.ServicePlan, error) {
			return plan.Removing(v, service, volumes)
		},
		write: func(tx Tx, p plan.ServicePlan) error {
			if err := removeRows(tx, *p.Before, p.Volumes); err != nil {
				return err
			}
			return d.event(tx, "service.removed", p.ID(), p.Name()+" was removed")
		},
		ended:  func(_ spec.Container, exists bool) bool { return !exists },
		finish: d.removeVolumes,
	})
}

// removeVolumes removes what was in the volumes of removed services, now that
// no container has them.
func (d *Driver) removeVolumes(ctx context.Context, p plan.Plan, say *reporter) {
	for _, sp := range p.Services {
		d.removeContents(ctx, sp.Volumes, say)
	}
}

// removeContents removes what is in volumes whose rows were deleted. What a
// machine does not remove is told: the row is gone, but the data is not.
func (d *Driver) removeContents(ctx context.Context, volumes []spec.Volume, say *reporter) {
	for _, v := range volumes {
		machine := d.Store.State().MachineName(v.Machine)
		if !d.Members.Alive()[v.Machine] {
			say.note("the content of volume %s stays on %s, which is down", v.Name, machine)
			continue
		}
		within, stop := d.whileAlive(ctx, v.Machine)
		if err := d.Peers.RemoveVolume(within, v); err != nil {
			say.note("the content of volume %s stays on %s: %v", v.Name, machine, err)
		}
		stop()
	}
}

// RemoveVolumes removes volumes, given by id, with what is in them: all or none.
// One that a service mounts is a conflict.
func (d *Driver) RemoveVolumes(ctx context.Context, volumes []string, report func(Progress)) error {
	if err := d.ready(); err != nil {
		return err
	}
	var gone []spec.Volume
	_, err := d.Store.Update(ctx, func(tx Tx) error {
		gone = nil
		for _, id := range volumes {
			v, ok := tx.State().Volumes[id]
			if !ok {
				return faults.New(faults.NotFound, "there is no volume %s", id).WithHint("see what there is: uc volume ls")
			}
			name, machine := v.Project+"/"+v.Name, tx.State().MachineName(v.Machine)
			if users := plan.Users(tx.State(), v, ""); len(users) > 0 {
				return faults.New(faults.Conflict, "volume %s on %s is mounted by %s", name, machine, strings.Join(users, ", ")).
					WithHint("remove what mounts it first: uc rm %s", users[0])
			}
			if err := tx.Delete(v.Table(), v.ID); err != nil {
				return err
			}
			if err := d.event(tx, "volume.removed", v.ID, "volume "+name+" was removed from "+machine); err != nil {
				return err
			}
			gone = append(gone, v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.removeContents(ctx, gone, newReporter(report))
	return nil
}

// ending is how services end: what was agreed to, what is planned and written
// for each, and how one sees on a container's row that it is done. finish, if
// set, is what remains to be done then.
type ending struct {
	agreed string
	plan   func(plan.View, string) (plan.ServicePlan, error)
	write  func(Tx, plan.ServicePlan) error
	ended  func(spec.Container, bool) bool
	finish func(context.Context, plan.Plan, *reporter)
}

// end ends services in one transaction. The machines do it by themselves when
// they see the rows; this only waits for them.
func (d *Driver) end(ctx context.Context, services []string, report func(Progress), e ending) error {
	if err := d.ready(); err != nil {
		return err
	}
	say := newReporter(report)
	var p plan.Plan
	var replicas []spec.Replica
	within := time.Duration(0)
	_, err := d.Store.Update(ctx, func(tx Tx) error {
		p, replicas, within = plan.Plan{}, nil, 0
		for _, service := range services {
			sp, err := e.plan(d.viewOf(tx.State(), nil), service)
			if err != nil {
				return err
			}
			p.Services = append(p.Services, sp)
			p.Project = sp.Before.Project
			if sp.Change == plan.None {
				continue
			}
			replicas = append(replicas, tx.State().ReplicasOf(service)...)
			within = max(within, grace(sp.Revision)+goneWithin)
			if err := e.write(tx, sp); err != nil {
				return fmt.Errorf("end %s: %w", sp.Name(), err)
			}
		}
		return agreed(e.agreed, p)
	})
	if err != nil {
		return err
	}
	say.send(Progress{Kind: ProgressPlan, Plan: &p})
	d.awaitContainers(ctx, replicas, within, say, e.ended)
	if e.finish != nil {
		e.finish(ctx, p, say)
	}
	for _, sp := range p.Services {
		for _, s := range sp.Steps {
			say.send(Progress{Kind: ProgressDone, Step: &s})
		}
	}
	return nil
}

// grace is how long a container of the revision may take to stop.
func grace(r spec.Revision) time.Duration {
	return r.Spec.Container.StopGrace.Or(spec.DefaultStopGrace)
}
