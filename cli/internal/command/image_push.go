package command

import (
	"context"
	"fmt"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/api/uncloud/v1/uncloudv1connect"
	"uncloud/cli/internal/push"
	"uncloud/cli/internal/render"
	"uncloud/internal/faults"
)

type imagePush struct {
	*app
	machines []string
	name     string
	platform string
}

func newImagePush(a *app) *cobra.Command {
	p := &imagePush{app: a}
	cmd := &cobra.Command{
		Use: "push IMAGE|ARCHIVE", Short: "Send an image to machines, without a registry",
		Long: "Send an image of the local Podman, or of an archive file, to all living machines or to those that are\n" +
			"named. Only layers that a machine lacks are sent. An archive is what podman save or docker save writes.",
		Example: "  podman build -t shop:3 . && uc image push shop:3\n  uc image push --on pi-1,pi-2 shop:3\n  docker save -o shop.tar shop:3 && uc image push shop.tar",
		Args:    exactly(1), RunE: p.run,
	}
	a.addMachines(cmd, &p.machines, "machine to send to by `name` or id; repeat for several (all that live). Also --on")
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "on" {
			name = "machine"
		}
		return pflag.NormalizedName(name)
	})
	cmd.Flags().StringVar(&p.name, "name", "", "`name` that machines are to know the image by (the archive's own)")
	cmd.Flags().StringVar(&p.platform, "platform", "", "`platform` to take from an archive of several, such as linux/arm64")
	return cmd
}

func (p *imagePush) run(cmd *cobra.Command, args []string) error {
	ctx := cmd.Context()
	archive, cleanup, err := push.Source(ctx, args[0])
	if err != nil {
		return err
	}
	defer cleanup()
	defer archive.Close()
	image, err := archive.Image(p.platform)
	if err != nil {
		return err
	}
	name := orWord(p.name, image.Name)
	if name == "" {
		return faults.New(faults.Invalid, "%s does not say what the image is called", args[0]).WithHint("uc image push --name NAME:TAG %s", args[0])
	}
	machines, err := p.living(ctx, p.machines)
	if err != nil {
		return err
	}
	return p.send(ctx, image, name, machines)
}

// send pushes to all machines at once and shows each as a step.
func (p *imagePush) send(ctx context.Context, image *push.Image, name string, machines []*uncloudv1.Machine) error {
	pushes := &pushes{progress: p.ui.NewProgress(), image: image, name: name}
	defer pushes.progress.Close()
	var running sync.WaitGroup
	for _, m := range machines {
		running.Go(func() { pushes.one(ctx, m, p.client.Machine(m.GetId())) })
	}
	running.Wait()
	switch {
	case ctx.Err() != nil:
		return faults.New(faults.Interrupted, "interrupted").Because(ctx.Err())
	case pushes.failed > 0:
		return faults.New(faults.Unreachable, "%d of %s did not get the image", pushes.failed, render.Count(len(machines), "machine")).
			WithHint("try again: what a machine got stays there")
	}
	return nil
}

// pushes are those of one image that run at once.
type pushes struct {
	image *push.Image
	name  string

	mu       sync.Mutex
	progress *render.Progress
	failed   int
}

func (p *pushes) one(ctx context.Context, m *uncloudv1.Machine, client uncloudv1connect.MachineServiceClient) {
	text := "send " + p.name + " to " + m.GetName()
	step := &uncloudv1.Step{Kind: "push", Replica: p.name, Machine: m.GetId(), Text: text}
	p.show(&uncloudv1.Progress{Kind: "step-start", Step: step})
	var sent int64
	result, err := push.To(ctx, client, p.image, p.name, func(n int64) {
		sent += n
		p.mu.Lock()
		defer p.mu.Unlock()
		p.progress.SoFar(step, render.Size(sent))
	})
	if err != nil {
		p.show(&uncloudv1.Progress{Kind: "step-failed", Step: step, Text: faults.Of(err).Sentence})
		return
	}
	done := &uncloudv1.Step{Kind: step.GetKind(), Replica: step.GetReplica(), Machine: step.GetMachine(), Text: text + ": " + sentWords(p.image, result)}
	p.show(&uncloudv1.Progress{Kind: "step-done", Step: done})
}

func (p *pushes) show(event *uncloudv1.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if event.GetKind() == "step-failed" {
		p.failed++
	}
	p.progress.Handle(event)
}

func sentWords(image *push.Image, result push.Result) string {
	if result.Layers == 0 {
		return "all layers were there"
	}
	return fmt.Sprintf("%s, %d of %s", render.Size(result.Bytes), result.Layers, render.Count(len(image.Layers), "layer"))
}
