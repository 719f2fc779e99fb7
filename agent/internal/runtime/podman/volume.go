package podman

import (
	"cmp"
	"context"
	"slices"

	"github.com/containers/podman/v5/pkg/bindings/volumes"
	"github.com/containers/podman/v5/pkg/domain/entities/types"

	"uncloud/agent/internal/runtime"
)

// EnsureVolume implements runtime.Engine.
func (e *Engine) EnsureVolume(ctx context.Context, v runtime.Volume) error {
	call, err := e.call(ctx)
	if err != nil {
		return err
	}
	_, err = volumes.Create(call, types.VolumeCreateOptions{
		Name: v.Name, Driver: v.Driver, Options: v.Options, Labels: v.Labels,
		IgnoreIfExists: true, // else an existing one is an HTTP 500
	}, nil)
	return e.explain("create volume "+v.Name, err)
}

// HasVolume implements runtime.Engine.
func (e *Engine) HasVolume(ctx context.Context, name string) (bool, error) {
	call, err := e.call(ctx)
	if err != nil {
		return false, err
	}
	ok, err := volumes.Exists(call, name, nil)
	return ok, e.explain("look for volume "+name, err)
}

// Volumes implements runtime.Engine.
func (e *Engine) Volumes(ctx context.Context) ([]runtime.Volume, error) {
	call, err := e.call(ctx)
	if err != nil {
		return nil, err
	}
	listed, err := volumes.List(call, nil)
	if err != nil {
		return nil, e.explain("list volumes", err)
	}
	var out []runtime.Volume
	for _, v := range listed {
		if !v.Anonymous {
			out = append(out, runtime.Volume{Name: v.Name, Driver: v.Driver, Options: v.Options, Labels: v.Labels})
		}
	}
	slices.SortFunc(out, func(a, b runtime.Volume) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// RemoveVolume implements runtime.Engine.
func (e *Engine) RemoveVolume(ctx context.Context, name string) error {
	call, err := e.call(ctx)
	if err != nil {
		return err
	}
	err = volumes.Remove(call, name, nil) // not by force: that would remove the containers that use it
	if isNotFound(err) {
		return nil
	}
	return e.explain("remove volume "+name, err)
}
