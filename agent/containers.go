package agent

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"uncloud/agent/internal/runtime"
	"uncloud/agent/internal/server"
	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

// containers lets the API read and enter the containers of this machine by
// replica.
type containers struct {
	engine  runtime.Engine
	cluster string
}

// find is the replica's container in the engine.
func (c containers) find(ctx context.Context, replica string) (runtime.Container, error) {
	all, err := c.engine.List(ctx)
	if err != nil {
		return runtime.Container{}, err
	}
	for _, found := range all {
		if found.Replica == replica && found.Cluster == c.cluster {
			return found, nil
		}
	}
	return runtime.Container{}, faults.New(faults.NotFound, "replica %s has no container here", replica).
		WithHint("see where it is and how it does: uc ps")
}

func (c containers) Logs(ctx context.Context, replica string, opts server.LogOptions, emit func(server.LogLine) error) error {
	found, err := c.find(ctx, replica)
	if err != nil {
		return err
	}
	o := runtime.LogOptions{Follow: opts.Follow, Tail: opts.Tail, Since: opts.Since, Until: opts.Until}
	if opts.Container != "" && opts.Container != found.ID {
		o.Tail, o.Since = -1, time.Time{}
	}
	return c.engine.Logs(ctx, found.ID, o, func(l runtime.LogLine) error {
		return emit(server.LogLine{At: l.At, Stderr: l.Stderr, Text: l.Text, Container: found.ID})
	})
}

func (c containers) Exec(ctx context.Context, replica string, opts server.ExecOptions, streams server.ExecStreams) (int, error) {
	found, err := c.find(ctx, replica)
	if err != nil {
		return 0, err
	}
	if found.State != runtime.Running {
		return 0, faults.New(faults.NotReady, "replica %s does not run: it is %s", replica, found.State).
			WithHint("see why: uc logs, uc inspect")
	}
	req := runtime.ExecRequest{
		Command: opts.Command, Env: opts.Env, User: opts.User, TTY: opts.TTY, Stdin: streams.Stdin, Stdout: streams.Stdout, Stderr: streams.Stderr,
		Size: runtime.TerminalSize(opts.Size),
	}
	if opts.TTY {
		resize := make(chan runtime.TerminalSize)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go relaySizes(ctx, streams.Resize, resize)
		req.Resize = resize
	}
	return c.engine.Exec(ctx, found.ID, req)
}

// relaySizes passes sizes from one package's type to the other's.
func relaySizes(ctx context.Context, from <-chan server.TerminalSize, to chan<- runtime.TerminalSize) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-from:
			select {
			case to <- runtime.TerminalSize(s):
			case <-ctx.Done():
				return
			}
		}
	}
}

func (c containers) HasImages(ctx context.Context, wanted []string) ([]string, error) {
	var present []string
	for _, name := range wanted {
		ok, err := c.engine.HasImage(ctx, name)
		if err != nil {
			return nil, err
		}
		if ok {
			present = append(present, name)
		}
	}
	return present, nil
}

func (c containers) RemoveVolume(ctx context.Context, name string) error {
	return c.engine.RemoveVolume(ctx, name)
}

func (c containers) ListImages(ctx context.Context) ([]*uncloudv1.Image, error) {
	all, err := c.engine.Images(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]*uncloudv1.Image, 0, len(all))
	for _, i := range all {
		out = append(out, &uncloudv1.Image{
			Id: i.ID, Names: i.Names, Size: i.Size, Platform: i.Platform, CreatedAt: timestamppb.New(i.Created),
			Containers: int32(i.Containers), //nolint:gosec // small
		})
	}
	return out, nil
}
