package podman

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containers/podman/v5/libpod/define"
	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/domain/entities/reports"
	"github.com/containers/podman/v5/pkg/domain/entities/types"

	"uncloud/agent/internal/runtime"
)

// Start implements runtime.Engine.
func (e *Engine) Start(ctx context.Context, id string) error {
	call, err := e.call(ctx)
	if err != nil {
		return err
	}
	return e.explain("start container", containers.Start(call, id, nil))
}

// Stop implements runtime.Engine.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	call, err := e.call(ctx)
	if err != nil {
		return err
	}
	err = containers.Stop(call, id, stopOptions(grace))
	if err == nil {
		return nil
	}
	// Stopping a container whose conmon is dead fails, and yet makes Podman
	// see that it ended. So the state afterwards is what counts.
	if c, inspectErr := e.Inspect(ctx, id); inspectErr == nil && !c.State.Alive() {
		return nil
	}
	return e.explain("stop container", err)
}

// stopOptions: where no timeout is given, the container's own counts.
func stopOptions(grace time.Duration) *containers.StopOptions {
	if grace == runtime.OwnGrace {
		return nil
	}
	seconds := wholeSeconds(grace)
	return &containers.StopOptions{Timeout: &seconds}
}

// wholeSeconds are all that Podman knows of a grace; 0 is an immediate kill.
func wholeSeconds(grace time.Duration) uint {
	return uint((max(grace, 0) + time.Second - 1) / time.Second)
}

// Remove implements runtime.Engine.
func (e *Engine) Remove(ctx context.Context, id string) error {
	call, err := e.call(ctx)
	if err != nil {
		return err
	}
	yes, now := true, uint(0)
	options := &containers.RemoveOptions{Force: &yes, Ignore: &yes, Volumes: &yes, Timeout: &now}
	remove := func() error {
		removed, err := containers.Remove(call, id, options)
		if err = errors.Join(append(reports.RmReportsErrs(removed), err)...); isNotFound(err) {
			return nil
		}
		return err
	}
	if remove() == nil {
		return nil
	}
	// With a dead conmon the first try fails, but leaves the container
	// stopped, so that a second one succeeds.
	return e.explain("remove container", remove())
}

// List implements runtime.Engine.
func (e *Engine) List(ctx context.Context) ([]runtime.Container, error) {
	call, err := e.call(ctx)
	if err != nil {
		return nil, err
	}
	yes := true
	listed, err := containers.List(call, &containers.ListOptions{
		All: &yes, Filters: map[string][]string{"label": {runtime.LabelReplica}},
	})
	if err != nil {
		return nil, e.explain("list containers", err)
	}
	ids := map[string]bool{}
	out := make([]runtime.Container, 0, len(listed))
	for _, l := range listed {
		c, err := e.listed(ctx, l)
		if errors.Is(err, runtime.ErrNoContainer) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		ids[c.ID] = true
		out = append(out, c)
	}
	e.monitors.keep(ids)
	slices.SortFunc(out, func(a, b runtime.Container) int {
		return cmp.Or(cmp.Compare(a.Replica, b.Replica), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// exitKilled is the exit code of a process that SIGKILL ended.
const exitKilled = 128 + 9

// listed is a row of a list as a container. A list says nothing of conmon, so
// the first sight of a run costs an inspection; later sights only look at the
// process.
func (e *Engine) listed(ctx context.Context, l types.ListContainer) (runtime.Container, error) {
	if l.State == define.ContainerStateRunning.String() || l.State == define.ContainerStatePaused.String() {
		pid, known := e.monitors.pid(l.ID, l.StartedAt)
		if !known || !isMonitor(pid, l.ID) {
			return e.Inspect(ctx, l.ID)
		}
	}
	// One whose removal was broken off, by a full disk say, may have no files
	// left, and then Podman cannot inspect it. It can be removed.
	removing := l.State == define.ContainerStateRemoving.String()
	if !removing && l.Exited && l.ExitCode == exitKilled {
		return e.Inspect(ctx, l.ID) // it knows who killed
	}
	c := runtime.FromLabels(l.Labels)
	c.ID, c.Image = l.ID, l.Image
	if len(l.Names) > 0 {
		c.Name = l.Names[0]
	}
	c.StartedAt, c.FinishedAt = unixTime(l.StartedAt), unixTime(l.ExitedAt)
	c.State = state(l.State, c.StartedAt, c.FinishedAt)
	if c.State == runtime.Exited {
		c.ExitCode = int(l.ExitCode)
	}
	return c, nil
}

// Inspect implements runtime.Engine.
func (e *Engine) Inspect(ctx context.Context, id string) (runtime.Container, error) {
	call, err := e.call(ctx)
	if err != nil {
		return runtime.Container{}, err
	}
	d, err := containers.Inspect(call, id, nil)
	if isNotFound(err) {
		return runtime.Container{}, fmt.Errorf("inspect container %.12s: %w", id, runtime.ErrNoContainer)
	}
	if err != nil {
		return runtime.Container{}, e.explain("inspect container", err)
	}
	return e.inspected(d), nil
}

func (e *Engine) inspected(d *define.InspectContainerData) runtime.Container {
	var labels map[string]string
	if d.Config != nil {
		labels = d.Config.Labels
	}
	c := runtime.FromLabels(labels)
	c.ID, c.Name, c.Image = d.ID, d.Name, d.ImageName
	if d.State == nil {
		return c
	}
	c.StartedAt, c.FinishedAt, c.OOM = realTime(d.State.StartedAt), realTime(d.State.FinishedAt), d.State.OOMKilled
	c.State = state(d.State.Status, c.StartedAt, c.FinishedAt)
	switch c.State {
	case runtime.Exited:
		c.ExitCode = int(d.State.ExitCode)
	case runtime.Running, runtime.Paused:
		if !isMonitor(d.State.ConmonPid, d.ID) {
			c.State = runtime.Orphaned
			break
		}
		e.monitors.learn(d.ID, d.State.StartedAt.Unix(), d.State.ConmonPid)
	}
	return c
}

// Watch implements runtime.Engine.
func (e *Engine) Watch(ctx context.Context, wake func()) error { return e.monitors.watch(ctx, wake) }

// state is Podman's word for a container's state, less its lie: after a power
// cut a container that ran is "exited" with code 0 and no time of its end.
func state(status string, started, finished time.Time) runtime.State {
	switch status {
	case "configured", "created", "initialized":
		return runtime.Created
	case "running":
		return runtime.Running
	case "paused":
		return runtime.Paused
	case "stopping":
		return runtime.Stopping
	case "removing":
		return runtime.Removing
	}
	if !started.IsZero() && finished.IsZero() {
		return runtime.Lost
	}
	return runtime.Exited
}

// realTime is t, or zero where Podman means "never". Lists tell whole seconds
// only, so that is what all times are cut to: a container looks the same
// however it was asked for.
func realTime(t time.Time) time.Time {
	if t.Unix() <= 0 {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}

func unixTime(seconds int64) time.Time { return realTime(time.Unix(seconds, 0)) }
