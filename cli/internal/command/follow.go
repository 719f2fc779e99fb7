package command

import (
	"context"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
	"uncloud/internal/faults"
)

const (
	// returnWait bounds how long an interrupted command watches the machines
	// bring things back. They go on without it.
	returnWait = time.Minute
	// returnPoll is how often it looks.
	returnPoll = 500 * time.Millisecond
)

type progressStream = connect.ServerStreamForClient[uncloudv1.Progress]

// follow shows a long-running call to its end.
func (a *app) follow(ctx context.Context, call func(context.Context) (*progressStream, error)) (*render.Progress, error) {
	progress := a.ui.NewProgress()
	defer progress.Close()
	err := a.receive(ctx, progress, call)
	if ctx.Err() != nil {
		return progress, faults.New(faults.Interrupted, "interrupted").WithHint("see what was done: uc ps").Because(ctx.Err())
	}
	return progress, err
}

// followPlan is follow for a call that takes services to another revision.
// After Ctrl-C the call is over, and what is left is to watch the machines
// bring back what was in hand.
func (a *app) followPlan(ctx context.Context, planned *uncloudv1.Plan, call func(context.Context) (*progressStream, error)) (*render.Progress, error) {
	progress := a.ui.NewProgress()
	progress.Plan(planned)
	err := a.receive(ctx, progress, call)
	progress.Close()
	if ctx.Err() != nil {
		return progress, a.broughtBack(ctx, planned, progress.InHand())
	}
	return progress, err
}

func (a *app) receive(ctx context.Context, progress *render.Progress, call func(context.Context) (*progressStream, error)) error {
	stream, err := call(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	done := false
	for stream.Receive() {
		progress.Handle(stream.Msg())
		done = done || stream.Msg().GetDone()
	}
	if err := stream.Err(); err != nil {
		return err
	}
	if !done {
		return faults.New(faults.Unreachable, "the connection ended before the machine said that all is done").
			WithHint("see what runs: uc ps")
	}
	return nil
}

// plan is the plan that a dry run answers with.
func plan(ctx context.Context, call func(context.Context) (*progressStream, error)) (*uncloudv1.Plan, error) {
	stream, err := call(ctx)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	answer := &uncloudv1.Plan{}
	for stream.Receive() {
		if p := stream.Msg().GetPlan(); p != nil {
			answer = p
		}
	}
	return answer, stream.Err()
}

// broughtBack waits until no rollout of the services is under way, and is the
// fault that tells how they stand.
func (a *app) broughtBack(ctx context.Context, planned *uncloudv1.Plan, services []string) error {
	if len(services) == 0 {
		return faults.New(faults.Interrupted, "interrupted when all steps were done").WithHint("see what runs: uc ps")
	}
	names := strings.Join(services, ", ")
	a.ui.Note("interrupted: returning %s to what ran before; ctrl-c again leaves that to the machines", names)
	// The person's context is over, and this wait has its own bound.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), returnWait)
	defer cancel()
	for _, service := range planned.GetServices() {
		if slices.Contains(services, service.GetService()) {
			if err := a.awaitReturn(ctx, planned.GetProject(), service); err != nil {
				return err
			}
		}
	}
	return faults.New(faults.Interrupted, "interrupted; %s runs as before", names).WithHint("see what runs: uc ps")
}

func (a *app) awaitReturn(ctx context.Context, project string, planned *uncloudv1.ServicePlan) error {
	name := qualified(project, planned.GetService())
	for {
		answer, err := a.client.Cluster.InspectService(ctx, connect.NewRequest(&uncloudv1.InspectServiceRequest{Service: name}))
		switch {
		case faults.CodeOf(err) == faults.NotFound:
			return nil // a first deploy: what ran before is nothing
		case err != nil:
			return unsure(name, err)
		case !underWay(answer.Msg):
			return tooLate(answer.Msg, planned)
		}
		select {
		case <-ctx.Done():
			return unsure(name, ctx.Err())
		case <-time.After(returnPoll):
		}
	}
}

func unsure(service string, err error) error {
	return faults.New(faults.Interrupted, "interrupted; the machines still return %s to what ran before", service).
		WithHint("see how it goes: uc inspect %s", service).Because(err)
}

func underWay(service *uncloudv1.Service) bool {
	return slices.ContainsFunc(service.GetRollouts(), func(r *uncloudv1.Rollout) bool {
		return r.GetStage() == "running" || r.GetStage() == "returning"
	})
}

// tooLate is a fault when the service runs the new revision: its rollout was
// quicker than the interrupt.
func tooLate(service *uncloudv1.Service, planned *uncloudv1.ServicePlan) error {
	if planned.GetFromRevision() == planned.GetToRevision() || service.GetRevision() != planned.GetToRevision() {
		return nil
	}
	name := qualified(service.GetProject(), service.GetName())
	return faults.New(faults.Interrupted, "interrupted, but %s was done already", name).WithHint("to go back: uc rollback %s", name)
}

// qualified is the name of a service that fits only one.
func qualified(project, service string) string {
	if project == "" || strings.Contains(service, "/") {
		return service
	}
	return project + "/" + service
}
