package command

import (
	"context"
	"strings"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

// changeServices follows a call on several services and says what was done.
func (a *app) changeServices(ctx context.Context, done string, names []string, call func(context.Context) (*progressStream, error)) error {
	progress, err := a.follow(ctx, call)
	if err != nil {
		return err
	}
	a.ui.Out.Line("%s %s: %s in %s", a.ui.Out.Good(done), strings.Join(names, ", "), render.Count(progress.Done(), "step"), progress.Took())
	return nil
}

func servicesRequest(names []string) *connect.Request[uncloudv1.ServicesRequest] {
	return connect.NewRequest(&uncloudv1.ServicesRequest{Services: names})
}
