package command

import (
	"context"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newRollback(a *app) *cobra.Command {
	var change revisionChange
	cmd := &cobra.Command{
		Use: "rollback SERVICE [REVISION]", Short: "Return a service to an earlier revision",
		Long: "Return a service to an earlier revision: the one that ran before, or the one that is named.\n" +
			"uc inspect SERVICE lists them.",
		Args: arguments(cobra.RangeArgs(1, 2)), ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &uncloudv1.RollbackRequest{Service: args[0]}
			if len(args) == 2 {
				request.Revision = args[1]
			}
			change.question = "roll " + args[0] + " back?"
			change.finished = "rolled back " + args[0]
			change.again = "uc rollback " + strings.Join(args, " ")
			return a.changeRevision(cmd.Context(), change, func(ctx context.Context, dryRun bool, agreed string) (*progressStream, error) {
				request.DryRun, request.Agreed = dryRun, agreed
				return a.client.Cluster.Rollback(ctx, connect.NewRequest(request))
			})
		},
	}
	change.add(a, cmd)
	return cmd
}

// revisionChange is a change of one service that is planned, shown, agreed to
// and followed.
type revisionChange struct {
	dryRun, yes bool
	output      format
	question    string
	finished    string
	again       string // the command line without its flags
}

func (r *revisionChange) add(a *app, cmd *cobra.Command) {
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "show the plan and do nothing")
	a.addYes(cmd, &r.yes)
	addOutput(cmd, &r.output)
}

func (a *app) changeRevision(ctx context.Context, change revisionChange, call func(ctx context.Context, dryRun bool, agreed string) (*progressStream, error)) error {
	if change.output == jsonFormat && !change.dryRun {
		return usage("-o json shows a plan, and needs --dry-run").hint("%s --dry-run -o json", change.again)
	}
	if _, err := a.connect(ctx); err != nil {
		return err
	}
	planned, err := plan(ctx, func(ctx context.Context) (*progressStream, error) { return call(ctx, true, "") })
	if err != nil {
		return err
	}
	if change.dryRun {
		return a.show(change.output, planned, func() { a.ui.Plan(planned) })
	}
	a.ui.Plan(planned)
	if upToDate(planned) {
		return nil
	}
	agreed, err := a.agree(ctx, change.yes, planned, change.question)
	if err != nil {
		return err
	}
	progress, err := a.followPlan(ctx, planned, func(ctx context.Context) (*progressStream, error) { return call(ctx, false, agreed) })
	if err != nil {
		return err
	}
	a.ui.Out.Line("%s: %s in %s", a.ui.Out.Good(change.finished), render.Count(progress.Done(), "step"), progress.Took())
	return nil
}
