package podman

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/containers/podman/v5/pkg/bindings/images"

	"uncloud/agent/internal/runtime/podman/podmantest"
	"uncloud/internal/faults"
)

const (
	imageA = "localhost/uncloud-test-a:1"
	imageB = "localhost/uncloud-test-b:1"
)

// removeImage takes a name away, and its image when that was its last.
func removeImage(ctx context.Context, e *Engine, name string) error {
	call, err := e.call(ctx)
	if err != nil {
		return err
	}
	ignore := true
	_, failed := images.Remove(call, []string{name}, &images.RemoveOptions{Ignore: &ignore})
	return errors.Join(failed...)
}

func layers(names ...string) []blob {
	var out []blob
	for _, n := range names {
		out = append(out, tarBlob(map[string][]byte{n: []byte(strings.Repeat(n, 1000))}))
	}
	return out
}

func load(t *testing.T, e *Engine, name string, archive []byte) {
	t.Helper()
	t.Cleanup(func() { must(t, removeImage(context.Background(), e, name)) })
	names, err := e.LoadImage(t.Context(), bytesReader(archive))
	must(t, err)
	if !slices.Equal(names, []string{name}) {
		t.Fatalf("loaded %q", names)
	}
}

func TestImages(t *testing.T) {
	e := realPodman(t)
	l := layers("one", "two")
	load(t, e, imageA, ociArchive(imageA, l))
	has, err := e.HasImage(t.Context(), imageA)
	must(t, err)
	if !has {
		t.Fatal("not there after loading")
	}
	got, err := e.ImageLayers(t.Context(), imageA)
	must(t, err)
	if want := []string{l[0].digest(), l[1].digest()}; !slices.Equal(got, want) {
		t.Errorf("layers %q, want %q", got, want)
	}
	list, err := e.Images(t.Context())
	must(t, err)
	found := false
	for _, i := range list {
		if slices.Contains(i.Names, imageA) {
			found = true
			if i.Size == 0 || !strings.HasPrefix(i.Platform, "linux/") || len(i.ID) != 64 {
				t.Errorf("%+v", i)
			}
		}
	}
	if !found {
		t.Errorf("not listed: %+v", list)
	}
	must(t, removeImage(t.Context(), e, imageA))
	if has, err := e.HasImage(t.Context(), imageA); err != nil || has {
		t.Errorf("still there: %v, %v", has, err)
	}
	if _, err := e.ImageLayers(t.Context(), imageA); faults.CodeOf(err) != faults.NoImage {
		t.Errorf("layers of nothing: %v", err)
	}
}

// This is what image transfer rests on: layers that some image has already,
// at whatever depth, need not be in the archive.
func TestLoadWithoutKnownLayers(t *testing.T) {
	e := realPodman(t)
	l := layers("one", "two", "three")
	load(t, e, imageA, ociArchive(imageA, l[:2]))
	load(t, e, imageB, ociArchive(imageB, []blob{l[2], l[1], l[0]}, l[0], l[1]))
	dir := strings.TrimSpace(command(t, "podman", "image", "mount", imageB))
	defer exec.Command("podman", "image", "unmount", imageB).Run()
	for _, n := range []string{"one", "two", "three"} {
		if out := command(t, "head", "-c", "3", dir+"/"+n); !strings.HasPrefix(n, out) {
			t.Errorf("%s: %q", n, out)
		}
	}
}

func TestLoadOfABadArchive(t *testing.T) {
	e := realPodman(t)
	l := layers("only here")
	_, err := e.LoadImage(t.Context(), bytesReader(ociArchive(imageA, l, l[0])))
	if err == nil || !strings.Contains(err.Error(), l[0].hex()) || strings.Contains(err.Error(), "\n") {
		t.Errorf("missing layer: %v", err)
	}
	if _, err := e.LoadImage(t.Context(), strings.NewReader("no archive")); err == nil {
		t.Error("garbage was loaded")
	}
}

func TestNamesWithoutRegistryAreDockerHubs(t *testing.T) {
	for name, want := range map[string]string{
		"nginx:1": "docker.io/library/nginx:1", "grafana/grafana": "docker.io/grafana/grafana", "ghcr.io/a/b:1": "ghcr.io/a/b:1",
		"localhost/a:1": "localhost/a:1", "reg:5000/a": "reg:5000/a", "nginx@sha256:00": "docker.io/library/nginx@sha256:00",
	} {
		if got := qualified(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// A container is made of the name that its service says, so that has to find
// what was pulled or pushed under the long one.
func TestShortNamesFindTheirImages(t *testing.T) {
	e := realPodman(t)
	app, err := os.ReadFile(podmantest.File("app"))
	must(t, err)
	l := []blob{tarBlob(map[string][]byte{"app": app})}
	for long, short := range map[string]string{"docker.io/library/uncloud-hub:1": "uncloud-hub:1", "localhost/uncloud-pushed:1": "uncloud-pushed:1"} {
		load(t, e, long, ociArchive(long, l))
		r := request(t)
		r.Spec.Image = short
		run(t, e, r)
		if has, err := e.HasImage(t.Context(), short); err != nil || !has {
			t.Errorf("%s: %v, %v", short, has, err)
		}
	}
}

func TestPullOfAnAbsentImage(t *testing.T) {
	e := realPodman(t)
	err := e.PullImage(t.Context(), "127.0.0.1:1/absent:1")
	fault := faults.Of(err)
	if fault == nil || fault.Code != faults.NoImage || !strings.Contains(fault.Sentence, "connection refused") || fault.Hint == "" {
		t.Errorf("%+v", fault)
	}
}

func TestFullDisk(t *testing.T) {
	e := realPodman(t)
	command(t, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/var/tmp")
	defer command(t, "umount", "/var/tmp")
	big := tarBlob(map[string][]byte{"big": make([]byte, 1<<20)})
	_, err := e.LoadImage(t.Context(), bytesReader(ociArchive(imageA, []blob{big})))
	if fault := faults.Of(err); fault == nil || fault.Code != faults.DiskFull || fault.Hint == "" {
		t.Errorf("%+v", fault)
	}
}
