package podman

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/images"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
)

// Images implements runtime.Engine.
func (e *Engine) Images(ctx context.Context) ([]runtime.Image, error) {
	call, err := e.call(ctx)
	if err != nil {
		return nil, err
	}
	listed, err := images.List(call, nil)
	if err != nil {
		return nil, e.explain("list images", err)
	}
	out := make([]runtime.Image, 0, len(listed))
	for _, i := range listed {
		image := runtime.Image{
			ID: i.ID, Names: slices.Sorted(slices.Values(i.RepoTags)), Size: i.Size,
			Created: time.Unix(i.Created, 0), Containers: i.Containers,
		}
		if i.Os != "" {
			image.Platform = i.Os + "/" + i.Arch
		}
		out = append(out, image)
	}
	slices.SortFunc(out, func(a, b runtime.Image) int {
		return cmp.Or(slices.Compare(a.Names, b.Names), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// HasImage implements runtime.Engine.
func (e *Engine) HasImage(ctx context.Context, name string) (bool, error) {
	call, err := e.call(ctx)
	if err != nil {
		return false, err
	}
	ok, err := images.Exists(call, name, nil)
	return ok, e.explain("look for image "+name, err)
}

// ImageLayers implements runtime.Engine.
func (e *Engine) ImageLayers(ctx context.Context, name string) ([]string, error) {
	call, err := e.call(ctx)
	if err != nil {
		return nil, err
	}
	image, err := images.GetImage(call, name, nil)
	if isNotFound(err) {
		return nil, noImage(name, err)
	}
	if err != nil {
		return nil, e.explain("inspect image "+name, err)
	}
	var out []string
	if image.RootFS != nil {
		for _, l := range image.RootFS.Layers {
			out = append(out, l.String())
		}
	}
	return out, nil
}

// PullImage implements runtime.Engine.
func (e *Engine) PullImage(ctx context.Context, name string) error {
	call, err := e.call(ctx)
	if err != nil {
		return err
	}
	policy, quiet := "always", true
	_, err = images.Pull(call, qualified(name), &images.PullOptions{Policy: &policy, Quiet: &quiet})
	switch {
	case err == nil:
		return e.durable(ctx, name)
	case isConnection(err), ctx.Err() != nil, isDiskFull(err.Error()):
		return e.explain("pull image "+name, err)
	}
	return faults.New(faults.NoImage, "image %s is not on this machine and cannot be pulled: %s", name, lastCause(err)).
		WithHint("uc image push %s", name).Because(err)
}

// qualified is a name with its registry. One without is Docker Hub's, as in
// every Compose file, whatever this machine's own settings say: a service is
// to run the same image wherever it is placed.
func qualified(name string) string {
	first, rest, found := strings.Cut(name, "/")
	switch {
	case !found:
		return "docker.io/library/" + name
	case strings.ContainsAny(first, ".:") || first == "localhost":
		return name
	}
	return "docker.io/" + first + "/" + rest
}

// lastCause is the end of a chain of causes as Podman prints it: what a
// registry or the network said, without the path that led there.
func lastCause(err error) string {
	text := strings.TrimSpace(err.Error())
	if i := strings.LastIndex(text, "\n"); i >= 0 {
		text = strings.TrimSpace(text[i+1:])
	}
	parts := strings.Split(text, ": ")
	const keep = 3
	if len(parts) > keep {
		parts = parts[len(parts)-keep:]
	}
	return strings.Join(parts, ": ")
}

// LoadImage implements runtime.Engine.
func (e *Engine) LoadImage(ctx context.Context, archive io.Reader) ([]string, error) {
	header := http.Header{"Content-Type": {"application/x-tar"}}
	res, err := e.stream(ctx, http.MethodPost, "/images/load", nil, header, archive)
	if err != nil {
		return nil, e.explain("load image", loadCause(err))
	}
	defer res.Body.Close()
	var report struct{ Names []string }
	if err := json.NewDecoder(res.Body).Decode(&report); err != nil {
		return nil, fmt.Errorf("load image: %w", err)
	}
	return report.Names, e.durable(ctx, strings.Join(report.Names, ", "))
}

// loadCause picks the line that matters: Podman tries every kind of archive
// and tells all their failures, of which one is of the kind that it was.
func loadCause(err error) error {
	for line := range strings.Lines(err.Error()) {
		kind, text, ok := strings.Cut(strings.TrimSpace(line), ": ")
		ours := kind == "* oci-archive" || kind == "* docker-archive"
		absent := strings.Contains(text, "index.json") || strings.Contains(text, "manifest.json")
		if ok && ours && !absent {
			return errors.New(text)
		}
	}
	return err
}
