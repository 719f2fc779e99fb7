package command

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
	"uncloud/internal/compose"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// composeFlags say which Compose files are meant.
type composeFlags struct {
	files    []string
	profiles []string
	project  string
}

// add gives a command the flags. The short forms are empty where they mean
// something else to the command.
func (f *composeFlags) add(cmd *cobra.Command, file, profile string) {
	cmd.Flags().StringArrayVarP(&f.files, "file", file, nil, "Compose `file`; repeat to merge several (compose.yaml here or above)")
	cmd.Flags().StringArrayVarP(&f.profiles, "profile", profile, nil, "Compose `profile` to activate; repeat for several")
	cmd.Flags().StringVar(&f.project, "project", "", "project `name` instead of the files' own")
}

// load reads the files and lets their x-context choose the cluster.
func (a *app) load(ctx context.Context, f composeFlags, services []string) (*compose.Project, error) {
	env := map[string]string{}
	for _, pair := range a.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	project, err := compose.Load(ctx, compose.Options{
		Files: f.files, ProjectName: f.project, Env: env, Profiles: f.profiles, Services: services,
	})
	if err != nil {
		return nil, err
	}
	for _, warning := range project.Warnings {
		a.ui.Warn("%s", warning)
	}
	a.choice.ComposeContext = project.Context
	return project, nil
}

type deploy struct {
	*app
	composeFlags
	recreate, prune, skipHealth bool
	check, dryRun, yes          bool
	output                      format
}

func newDeploy(a *app) *cobra.Command {
	d := &deploy{app: a}
	cmd := &cobra.Command{
		Use:   "deploy [SERVICE...]",
		Short: "Bring the services of a Compose file up to date",
		Long: "Bring the services of a Compose file up to date: shows the plan, asks, and then replaces one\n" +
			"replica after another. A service whose new revision fails returns to the revision before.\n" +
			"Only what was shown is done: when the cluster has changed until the answer, nothing is.\n\n" +
			"Nothing is built or pushed. Of a service with build: it is said how to do both.\n\n" +
			"Ctrl-C returns the service in hand to what ran before; a second one leaves that to the machines.",
		Example: "  uc deploy\n  uc deploy -f compose.yaml -f production.yaml -y\n  uc deploy --dry-run -o json web",
		Args:    atLeast(0), RunE: d.run, ValidArgsFunction: a.completeServices,
	}
	d.composeFlags.add(cmd, "f", "p")
	cmd.Flags().BoolVar(&d.recreate, "recreate", false, "replace containers even where nothing changed")
	cmd.Flags().BoolVar(&d.prune, "prune", false, "remove services of the project that the files do not have")
	cmd.Flags().BoolVar(&d.skipHealth, "skip-health", false, "do not wait until replicas are healthy")
	cmd.Flags().BoolVar(&d.check, "check", false, "read the files, say what is wrong with them, and ask no cluster")
	cmd.Flags().BoolVar(&d.dryRun, "dry-run", false, "show the plan and do nothing")
	a.addYes(cmd, &d.yes)
	addOutput(cmd, &d.output)
	return cmd
}

func (d *deploy) run(cmd *cobra.Command, services []string) error {
	ctx := cmd.Context()
	if d.output == jsonFormat && !d.dryRun {
		return usage("-o json shows a plan, and needs --dry-run").hint("uc deploy --dry-run -o json")
	}
	if d.prune && len(services) > 0 {
		return usage("--prune looks at the whole project, and takes no services").hint("uc deploy --prune")
	}
	project, err := d.load(ctx, d.composeFlags, services)
	if err != nil {
		return err
	}
	d.warnOfBuilds(project.Builds)
	if d.check {
		return nil
	}
	client, err := d.connect(ctx)
	if err != nil {
		return err
	}
	request := d.request(project)
	planned, err := client.Cluster.PlanDeploy(ctx, connect.NewRequest(request))
	if err != nil {
		return err
	}
	if d.dryRun {
		return d.show(d.output, planned.Msg, func() { d.ui.Plan(planned.Msg) })
	}
	return d.carryOut(ctx, request, planned.Msg)
}

// warnOfBuilds says that a change of what an image is built from changes
// nothing by itself, and how to bring it to the machines.
func (d *deploy) warnOfBuilds(builds []compose.Build) {
	for _, b := range builds {
		d.ui.Warn("service %s has build:, and a deploy builds nothing; where %s is missing or older than its folder: %s",
			b.Service, b.Image, b.Command(fromHere(b.Context)))
	}
}

// fromHere is a path as it is written in the present folder, where it is below it.
func fromHere(path string) string {
	here, err := os.Getwd()
	if err != nil || !filepath.IsAbs(path) {
		return path
	}
	if rel, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}

func (d *deploy) request(project *compose.Project) *uncloudv1.DeployRequest {
	request := &uncloudv1.DeployRequest{Project: project.Name, Recreate: d.recreate, Prune: d.prune, SkipHealth: d.skipHealth}
	for _, service := range project.Specs {
		request.SpecJson = append(request.SpecJson, string(spec.Canonical(service)))
	}
	return request
}

// carryOut shows the plan, asks, deploys, and shows where the services answer.
func (d *deploy) carryOut(ctx context.Context, request *uncloudv1.DeployRequest, planned *uncloudv1.Plan) error {
	if upToDate(planned) {
		for _, warning := range planned.GetWarnings() {
			d.ui.Warn("%s", warning)
		}
		d.ui.Out.Line("services are up to date")
		return nil
	}
	d.ui.Plan(planned)
	var err error
	if request.Agreed, err = d.agree(ctx, d.yes, planned, "deploy "+request.GetProject()+"?"); err != nil {
		return err
	}
	progress, err := d.followPlan(ctx, planned, func(ctx context.Context) (*progressStream, error) {
		return d.client.Cluster.Deploy(ctx, connect.NewRequest(request))
	})
	if err != nil {
		return err
	}
	d.ui.Out.Line("%s %s: %s in %s", d.ui.Out.Good("deployed"), request.GetProject(), render.Count(progress.Done(), "step"), progress.Took())
	return d.showEndpoints(ctx, request.GetProject(), planned)
}

func upToDate(plan *uncloudv1.Plan) bool {
	for _, service := range plan.GetServices() {
		if len(service.GetSteps()) > 0 || (service.GetChange() != "none" && service.GetChange() != "") {
			return false
		}
	}
	return true
}

// showEndpoints lists where the services of the plan answer.
func (d *deploy) showEndpoints(ctx context.Context, project string, plan *uncloudv1.Plan) error {
	answer, err := d.client.Cluster.ListServices(ctx, connect.NewRequest(&uncloudv1.ListServicesRequest{Project: project}))
	if err != nil {
		// The deploy is done, and that is what the exit code has to tell.
		d.ui.Warn("cannot list where the services answer: %s", faults.Of(err).Sentence)
		return nil
	}
	planned := map[string]bool{}
	for _, service := range plan.GetServices() {
		planned[service.GetService()] = service.GetChange() != "remove"
	}
	for _, service := range answer.Msg.GetServices() {
		if planned[qualified(project, service.GetName())] {
			for _, endpoint := range service.GetEndpoints() {
				d.ui.Out.Line("  %s  %s", service.GetName(), endpoint)
			}
		}
	}
	return nil
}
