package command

import (
	"context"
	"slices"
	"strings"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

// replicas are those that the names mean: a service, project/service, a
// service's id, a replica's name or id, or service/replica.
func (a *app) replicas(ctx context.Context, names []string) ([]*uncloudv1.Replica, error) {
	client, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := client.Cluster.ListReplicas(ctx, connect.NewRequest(&uncloudv1.ListReplicasRequest{}))
	if err != nil {
		return nil, err
	}
	var chosen []*uncloudv1.Replica
	for _, name := range names {
		found := meant(answer.Msg.GetReplicas(), name)
		if len(found) == 0 {
			return nil, a.noReplicas(ctx, name)
		}
		if projects := projectsOf(found); len(projects) > 1 {
			return nil, faults.New(faults.Invalid, "several projects have a service %s: %s", name, strings.Join(projects, ", ")).
				WithHint("name one of them: %s/%s", projects[0], name)
		}
		for _, r := range found {
			if !slices.Contains(chosen, r) {
				chosen = append(chosen, r)
			}
		}
	}
	return chosen, nil
}

func meant(all []*uncloudv1.Replica, name string) []*uncloudv1.Replica {
	var found []*uncloudv1.Replica
	for _, r := range all {
		names := []string{
			r.GetName(), r.GetId(), r.GetService(), r.GetServiceId(),
			qualified(r.GetProject(), r.GetService()), r.GetService() + "/" + r.GetName(),
		}
		if slices.Contains(names, name) {
			found = append(found, r)
		}
	}
	return found
}

func projectsOf(replicas []*uncloudv1.Replica) []string {
	var projects []string
	for _, r := range replicas {
		if !slices.Contains(projects, r.GetProject()) {
			projects = append(projects, r.GetProject())
		}
	}
	slices.Sort(projects)
	return projects
}

// noReplicas tells a service without replicas from one that is not there, of
// which the machine itself says so.
func (a *app) noReplicas(ctx context.Context, name string) error {
	_, err := a.client.Cluster.InspectService(ctx, connect.NewRequest(&uncloudv1.InspectServiceRequest{Service: name}))
	if err != nil {
		return err
	}
	return faults.New(faults.NotFound, "%s has no replicas", name).WithHint("uc inspect %s", name)
}
