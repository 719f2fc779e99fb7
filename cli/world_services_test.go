package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/fakeapi"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

func (w *world) replicas() []*uncloudv1.Replica {
	state := "running"
	if w.is("db-down") {
		state = "exited"
	}
	lost := "running"
	if w.is("m3-down") {
		lost = "unknown"
	}
	all := []*uncloudv1.Replica{
		{
			Id: "rep_c1", Name: "cache-c1c1", Project: "blog", Service: "cache", Machine: "m1", MachineId: "mch_one", Wanted: "running", State: "running",
			Health: "none", Address: "10.210.19.9", Image: "cache:1", Revision: "rev_c", Since: ago(time.Hour),
		},
		{
			Id: "rep_c2", Name: "cache-c2c2", Project: "shop", Service: "cache", Machine: "m1", MachineId: "mch_one", Wanted: "running", State: "running",
			Health: "none", Address: "10.210.19.8", Image: "cache:1", Revision: "rev_c", Since: ago(time.Hour),
		},
		{
			Id: "rep_db", Name: "db-9z8y", Project: "shop", Service: "db", Machine: "m2", MachineId: "mch_two", Wanted: "running", State: state,
			Health: "none", Address: "10.210.84.2", Image: "db:1", Revision: "rev_d", ExitCode: 3, Since: ago(30 * time.Hour),
		},
		{
			Id: "rep_w1", Name: "web-a1a1", Project: "shop", Service: "web", Machine: "m1", MachineId: "mch_one", Wanted: "running", State: "running",
			Health: "unhealthy", Address: "10.210.19.2", Image: "web:1", Revision: "rev_1", Since: ago(3 * time.Minute), Error: "answered 500",
		},
		{
			Id: "rep_w2", Name: "web-b2b2", Project: "shop", Service: "web", Machine: "m2", MachineId: "mch_two", Wanted: "running", State: "running",
			Health: "healthy", Address: "10.210.84.3", Image: "web:1", Revision: "rev_1", Since: ago(3 * time.Minute),
		},
		{
			Id: "rep_w3", Name: "web-c3c3", Project: "shop", Service: "web", Machine: "m3", MachineId: "mch_three", Wanted: "running", State: lost,
			Health: "healthy", Address: "10.210.7.2", Image: "web:1", Revision: "rev_1", Since: ago(3 * time.Minute),
		},
	}
	if w.is("deployed") {
		all = append(all, &uncloudv1.Replica{Id: "rep_w4", Name: "web-d4d4", Project: "shop", Service: "web", Machine: "m2", MachineId: "mch_two"})
	}
	return w.left(all)
}

// left are the replicas of services that were not removed.
func (w *world) left(all []*uncloudv1.Replica) []*uncloudv1.Replica {
	return slices.DeleteFunc(all, func(r *uncloudv1.Replica) bool { return r.GetService() == "web" && w.is("web-removed") })
}

func (w *world) services() []*uncloudv1.Service {
	return []*uncloudv1.Service{
		{Id: "svc_bc", Project: "blog", Name: "cache", Mode: "global", Replicas: 1, ReplicasHealthy: 1, Wanted: "running", Image: "cache:1"},
		{Id: "svc_sc", Project: "shop", Name: "cache", Mode: "replicated", Replicas: 1, ReplicasHealthy: 1, Wanted: "running", Image: "cache:1"},
		{Id: "svc_sd", Project: "shop", Name: "db", Mode: "replicated", Revision: "rev_d", Replicas: 1, ReplicasHealthy: 1, Wanted: "running", Image: "db:1"},
		{
			Id: "svc_sw", Project: "shop", Name: "web", Mode: "replicated", Revision: "rev_1", Replicas: 3, ReplicasHealthy: 2, Wanted: "running", Image: "web:1",
			Endpoints: []string{"https://shop.example.com"}, CreatedAt: ago(48 * time.Hour),
			Health: []*uncloudv1.HealthNote{{Code: "superseded", Text: "a revision deployed on the other side of a split won"}},
		},
	}
}

func (w *world) listServices(r *uncloudv1.ListServicesRequest) (*uncloudv1.ListServicesResponse, error) {
	answer := &uncloudv1.ListServicesResponse{}
	for _, s := range w.services() {
		if r.GetProject() == "" || r.GetProject() == s.GetProject() {
			answer.Services = append(answer.Services, s)
		}
	}
	return answer, nil
}

func (w *world) inspectService(r *uncloudv1.InspectServiceRequest) (*uncloudv1.Service, error) {
	if w.is("rollout") && w.is("endless") {
		w.happens("watched")
	}
	for _, s := range w.services() {
		if s.GetName() == "web" && w.is("web-removed") {
			continue
		}
		if name := r.GetService(); name != s.GetId() && name != s.GetName() && name != s.GetProject()+"/"+s.GetName() {
			continue
		}
		s.SpecJson = `{"name":"` + s.GetName() + `","mode":"` + s.GetMode() + `","container":{"image":"` + s.GetImage() + `"}}`
		for _, replica := range w.replicas() {
			if replica.GetProject() == s.GetProject() && replica.GetService() == s.GetName() {
				s.ReplicaList = append(s.ReplicaList, replica)
			}
		}
		s.Rollouts = w.rollouts()
		return s, nil
	}
	return nil, faults.New(faults.NotFound, "there is no service %q", r.GetService()).WithHint("see what there is: uc ls")
}

// rollouts has one of a deploy that hangs. When the deploy is interrupted it
// goes back, which takes until somebody has looked, or for ever.
func (w *world) rollouts() []*uncloudv1.Rollout {
	all := []*uncloudv1.Rollout{{Id: "rol_1", Service: "web", ToRevision: "rev_1", Stage: "done", Driver: "m1", StartedAt: ago(5 * time.Minute), EndedAt: ago(5*time.Minute - 4*time.Second)}}
	w.mu.Lock()
	defer w.mu.Unlock()
	stage := w.set["rollout"]
	if stage == "" {
		return all
	}
	if _, endless := w.set["endless"]; stage == "returning" && !endless {
		w.set["rollout"] = "failed"
	}
	return append(all, &uncloudv1.Rollout{Id: "rol_2", Service: "web", FromRevision: "rev_1", ToRevision: "rev_2", Stage: stage, Driver: "m1", StartedAt: ago(0)})
}

func (w *world) listReplicas(r *uncloudv1.ListReplicasRequest) (*uncloudv1.ListReplicasResponse, error) {
	if r.GetMachine() != "" {
		if _, err := w.machine(r.GetMachine()); err != nil {
			return nil, err
		}
	}
	answer := &uncloudv1.ListReplicasResponse{}
	for _, replica := range w.replicas() {
		fits := r.GetService() == "" || r.GetService() == replica.GetService()
		fits = fits && (r.GetProject() == "" || r.GetProject() == replica.GetProject())
		if fits && (r.GetMachine() == "" || r.GetMachine() == replica.GetMachine()) {
			answer.Replicas = append(answer.Replicas, replica)
		}
	}
	return answer, nil
}

func (w *world) listVolumes(*uncloudv1.ListVolumesRequest) (*uncloudv1.ListVolumesResponse, error) {
	answer := &uncloudv1.ListVolumesResponse{Volumes: []*uncloudv1.Volume{
		{Id: "vol_1", Project: "shop", Name: "data", Machine: "m2", UsedBy: []string{"db-9z8y"}, CreatedAt: ago(48 * time.Hour)},
	}}
	if w.is("volumes") {
		answer.Volumes = append(answer.Volumes,
			&uncloudv1.Volume{Id: "vol_2", Project: "blog", Name: "data", Machine: "m1", CreatedAt: ago(48 * time.Hour)},
			&uncloudv1.Volume{Id: "vol_3", Project: "blog", Name: "media", Machine: "m1", CreatedAt: ago(48 * time.Hour)},
			&uncloudv1.Volume{Id: "vol_4", Project: "blog", Name: "media", Machine: "m3", CreatedAt: ago(48 * time.Hour)})
	}
	return answer, nil
}

func (w *world) removeVolumes(_ context.Context, r *uncloudv1.RemoveVolumesRequest, tell fakeapi.Tell) error {
	ids := strings.Join(r.GetVolumes(), ",")
	if strings.Contains(ids, "vol_1") {
		return faults.New(faults.Conflict, "volume shop/data on m2 is mounted by shop/db").WithHint("remove what mounts it first: uc rm shop/db")
	}
	w.note("remove volumes %s", ids)
	return tellAll(tell, &uncloudv1.Progress{Kind: "note", Text: "the content of volume media stays on m3, which is down"},
		&uncloudv1.Progress{Kind: "done", Done: true})
}

func (w *world) listEvents(r *uncloudv1.ListEventsRequest) (*uncloudv1.ListEventsResponse, error) {
	w.note("events limit=%d", r.GetLimit())
	return &uncloudv1.ListEventsResponse{Events: []*uncloudv1.Event{
		{At: ago(time.Hour), Machine: "m1", Kind: "rollout.failed", Subject: "svc_sw", Text: "web did not become healthy"},
	}}, nil
}

// shownDigest is of every plan that is shown.
const shownDigest = "d1ge57"

// agreed is the fault of a machine that would do something else by now.
func (w *world) agreed(digest string) error {
	if digest == "" || digest == shownDigest && !w.is("changed") {
		return nil
	}
	return faults.New(faults.Conflict, "the cluster has changed since the plan was shown; nothing was done").
		WithHint("run the command again to see what it would do now")
}

func (w *world) planRemoval(r *uncloudv1.ServicesRequest) (*uncloudv1.Plan, error) {
	plan := &uncloudv1.Plan{Project: "shop", Digest: shownDigest}
	for _, name := range r.GetServices() {
		service, err := w.inspectService(&uncloudv1.InspectServiceRequest{Service: name})
		if err != nil {
			return nil, err
		}
		p := &uncloudv1.ServicePlan{Service: service.GetProject() + "/" + service.GetName(), Change: "remove"}
		for _, replica := range service.GetReplicaList() {
			p.Steps = append(p.Steps, &uncloudv1.Step{Kind: "remove", Replica: replica.GetId(), Text: "remove " + replica.GetName() + " on " + replica.GetMachine()})
		}
		if r.GetVolumes() && service.GetName() == "db" {
			p.Steps = append(p.Steps, &uncloudv1.Step{Kind: "volume", Text: "remove volume data from m2", Reason: "volumes were asked for"})
		}
		plan.Services = append(plan.Services, p)
	}
	return plan, nil
}

// planDeploy replaces web, the first service of the request, and leaves the
// rest as it is.
func (w *world) planDeploy(r *uncloudv1.DeployRequest) (*uncloudv1.Plan, error) {
	if w.is("busy") {
		return nil, faults.New(faults.Busy, "a rollout of shop/web is under way").WithHint("see it: uc inspect shop/web")
	}
	plan := &uncloudv1.Plan{Project: r.GetProject(), Digest: shownDigest}
	for i, text := range r.GetSpecJson() {
		var s spec.ServiceSpec
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			return nil, err
		}
		if i > 0 || (w.is("up-to-date") && !r.GetRecreate()) {
			plan.Services = append(plan.Services, &uncloudv1.ServicePlan{Service: r.GetProject() + "/" + s.Name, Change: "none"})
			continue
		}
		plan.Services = append(plan.Services, &uncloudv1.ServicePlan{
			Service: r.GetProject() + "/" + s.Name, Change: "update", FromRevision: "rev_1", ToRevision: "rev_2", Differences: []string{"image web:1 -> " + s.Container.Image},
			Steps: []*uncloudv1.Step{
				{Kind: "replace", Service: r.GetProject() + "/" + s.Name, Replica: "rep_w1", Machine: "m1", Text: "replace web-a1a1 on m1", Reason: "other image"},
				{Kind: "create", Service: "svc_sw", Machine: "m2", Text: "create web-d4d4 on m2"},
			},
		})
	}
	if r.GetPrune() {
		plan.Warnings = append(plan.Warnings, "service old of the project is removed")
	}
	return plan, nil
}

func (w *world) deploy(ctx context.Context, r *uncloudv1.DeployRequest, tell fakeapi.Tell) error {
	w.note("deploy %s services=%d recreate=%t prune=%t skip-health=%t", r.GetProject(), len(r.GetSpecJson()), r.GetRecreate(), r.GetPrune(), r.GetSkipHealth())
	plan, err := w.planDeploy(r)
	if err == nil {
		err = w.agreed(r.GetAgreed())
	}
	if err != nil {
		return err
	}
	steps := plan.GetServices()[0].GetSteps()
	first, second := steps[0], steps[1]
	err = tellAll(tell, &uncloudv1.Progress{Kind: "plan", Plan: plan}, &uncloudv1.Progress{Kind: "step-start", Step: first})
	if err != nil {
		return err
	}
	if w.is("hang") {
		return w.hang(ctx)
	}
	if w.is("unhealthy") {
		err := tellAll(tell,
			&uncloudv1.Progress{Kind: "step-failed", Step: first, Text: "it did not become healthy", Logs: []string{"listen on :8080", "panic: no database"}},
			&uncloudv1.Progress{Kind: "note", Text: "web returns to rev_1"})
		if err != nil {
			return err
		}
		return faults.New(faults.Unhealthy, "web did not become healthy on m1; it runs rev_1 as before").WithHint("see all it wrote: uc logs web-a1a1")
	}
	return tellAll(tell, &uncloudv1.Progress{Kind: "step-done", Step: first}, &uncloudv1.Progress{Kind: "note", Text: "m2 pulls web:2"},
		&uncloudv1.Progress{Kind: "step-start", Step: second}, &uncloudv1.Progress{Kind: "step-done", Step: second}, &uncloudv1.Progress{Kind: "done", Done: true})
}

// hang begins a rollout that ends only when the call does.
func (w *world) hang(ctx context.Context) error {
	w.tell("rollout", "running")
	if w.is("endless") {
		w.happens("deploying-for-ever")
	} else {
		w.happens("deploying")
	}
	<-ctx.Done()
	w.tell("rollout", "returning")
	return ctx.Err()
}

func (w *world) scale(_ context.Context, r *uncloudv1.ScaleRequest, tell fakeapi.Tell) error {
	if _, err := w.inspectService(&uncloudv1.InspectServiceRequest{Service: r.GetService()}); err != nil {
		return err
	}
	service := &uncloudv1.ServicePlan{Service: "shop/web", Change: "none"}
	if r.GetReplicas() != 3 {
		service.Change = "update"
		service.Differences = []string{fmt.Sprintf("replicas 3 -> %d", r.GetReplicas())}
		service.Steps = []*uncloudv1.Step{{Kind: "create", Service: "shop/web", Machine: "m1", Text: "create web-d4d4 on m1"}}
	}
	return w.changeRevision("scale", r.GetDryRun(), r.GetAgreed(), &uncloudv1.Plan{Project: "shop", Services: []*uncloudv1.ServicePlan{service}}, tell)
}

func (w *world) rollback(_ context.Context, r *uncloudv1.RollbackRequest, tell fakeapi.Tell) error {
	if r.GetRevision() != "" && r.GetRevision() != "rev_0" {
		return faults.New(faults.NotFound, "web has no revision %s", r.GetRevision()).WithHint("uc inspect web")
	}
	service := &uncloudv1.ServicePlan{Service: "shop/web", Change: "update", FromRevision: "rev_1", ToRevision: "rev_0", Steps: []*uncloudv1.Step{
		{Kind: "replace", Service: "shop/web", Replica: "rep_w1", Machine: "m1", Text: "replace web-a1a1 on m1", Reason: "back to rev_0"},
	}}
	return w.changeRevision("rollback", r.GetDryRun(), r.GetAgreed(), &uncloudv1.Plan{Project: "shop", Services: []*uncloudv1.ServicePlan{service}}, tell)
}

func (w *world) changeRevision(verb string, dryRun bool, agreed string, plan *uncloudv1.Plan, tell fakeapi.Tell) error {
	if err := w.agreed(agreed); err != nil {
		return err
	}
	plan.Digest = shownDigest
	w.note("%s dry-run=%t", verb, dryRun)
	if err := tell(&uncloudv1.Progress{Kind: "plan", Plan: plan, Done: dryRun}); err != nil || dryRun {
		return err
	}
	for _, step := range plan.GetServices()[0].GetSteps() {
		if err := tellAll(tell, &uncloudv1.Progress{Kind: "step-start", Step: step}, &uncloudv1.Progress{Kind: "step-done", Step: step}); err != nil {
			return err
		}
	}
	return tell(&uncloudv1.Progress{Kind: "done", Done: true})
}

func (w *world) change(kind string) func(context.Context, *uncloudv1.ServicesRequest, fakeapi.Tell) error {
	return func(_ context.Context, r *uncloudv1.ServicesRequest, tell fakeapi.Tell) error {
		if err := w.agreed(r.GetAgreed()); err != nil {
			return err
		}
		w.note("%s %s volumes=%t", kind, strings.Join(r.GetServices(), ","), r.GetVolumes())
		for _, name := range r.GetServices() {
			step := &uncloudv1.Step{Kind: kind, Service: name, Text: kind + " " + name}
			if err := tellAll(tell, &uncloudv1.Progress{Kind: "step-start", Step: step}, &uncloudv1.Progress{Kind: "step-done", Step: step}); err != nil {
				return err
			}
		}
		if w.is("cut") {
			return nil // as a connection that broke would look: no done
		}
		return tell(&uncloudv1.Progress{Kind: "done", Done: true})
	}
}

// logs of web: its replicas write in turn, each second one.
func (w *world) logs(ctx context.Context, machine string, r *uncloudv1.LogsRequest, say func(*uncloudv1.LogLine) error) error {
	name, err := w.reach(machine)
	if err != nil {
		return err
	}
	w.note("logs %s on %s tail=%d follow=%t since=%s", strings.Join(r.GetReplicas(), ","), name, r.GetTail(), r.GetFollow(), r.GetSince().AsTime().Format(time.RFC3339))
	offsets := map[string][]int{"rep_w1": {1, 4, 5}, "rep_w2": {2, 6}, "rep_w3": {3, 7}, "rep_w4": {9}}
	replica, since := r.GetReplicas()[0], r.GetSince().AsTime().Sub(noon)/time.Second
	if w.is("crashes") && replica == "rep_w1" && r.GetContainer() != "" {
		offsets["rep_w1"] = []int{1, 4, 5, 8}
		w.happens("opened-again")
	}
	for _, second := range offsets[replica] {
		if time.Duration(second) < since {
			continue
		}
		line := &uncloudv1.LogLine{Replica: r.GetReplicas()[0], At: timestamppb.New(noon.Add(time.Duration(second) * time.Second)), Text: fmt.Sprintf("line %d", second), Stderr: second == 5, Container: "of_" + replica}
		if err := say(line); err != nil {
			return err
		}
	}
	if r.GetFollow() {
		if name == "m1" {
			w.happens("following")
		}
		w.happens("following-" + replica)
		w.untilItEnds(ctx, replica, r.GetContainer() != "")
	}
	return nil
}

// untilItEnds waits for the end of a replica's container: those of web end with
// the service, and the first of them may crash at once.
func (w *world) untilItEnds(ctx context.Context, replica string, again bool) {
	if w.is("crashes") && replica == "rep_w1" && !again {
		return
	}
	select {
	case <-ctx.Done():
	case <-w.event("web-removed"):
	}
}

// exec is a container with a few commands.
func (w *world) exec(_ context.Context, machine string, stream *connect.BidiStream[uncloudv1.ExecRequest, uncloudv1.ExecResponse]) error {
	name, err := w.reach(machine)
	if err != nil {
		return err
	}
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	start := first.GetStart()
	w.note("exec %s on %s tty=%t user=%s env=%v", start.GetReplica(), name, start.GetTty(), start.GetUser(), start.GetEnv())
	said := &uncloudv1.ExecResponse{}
	code := 0
	switch command := strings.Join(start.GetCommand(), " "); {
	case command == "cat":
		if said.Stdout, err = readInput(stream); err != nil {
			return err
		}
	case command == "fail":
		said.Stderr, code = []byte("it went wrong\n"), 42
	case command == "size":
		said.Stdout = fmt.Appendf(nil, "%dx%d\r\n", start.GetSize().GetColumns(), start.GetSize().GetRows())
	case strings.HasPrefix(command, "sh -c"):
		said.Stdout = []byte("a shell\n")
	default:
		return faults.New(faults.Invalid, "there is no program %s in the container", start.GetCommand()[0])
	}
	if err := stream.Send(said); err != nil {
		return err
	}
	return stream.Send(&uncloudv1.ExecResponse{Exited: true, ExitCode: int32(code)})
}

func readInput(stream *connect.BidiStream[uncloudv1.ExecRequest, uncloudv1.ExecResponse]) ([]byte, error) {
	var all []byte
	for {
		message, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("input ended without saying so")
		}
		if err != nil {
			return nil, err
		}
		all = append(all, message.GetStdin()...)
		if message.GetStdinClosed() {
			return all, nil
		}
	}
}
