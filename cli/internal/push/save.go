package push

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"uncloud/internal/faults"
)

// Source opens what the user named: the archive at that path if there is one,
// or else the image of that name of the local Podman. The cleanup removes what
// was saved for it.
func Source(ctx context.Context, name string) (a *Archive, cleanup func(), err error) {
	if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
		a, err := Open(name)
		return a, func() {}, err
	}
	dir, err := os.MkdirTemp("", "uc-push-")
	if err != nil {
		return nil, nil, fmt.Errorf("save image: %w", err)
	}
	cleanup = func() { _ = os.RemoveAll(dir) } // what is left in the temporary folder is no failure
	file := filepath.Join(dir, "image.tar")
	if err := save(ctx, name, file); err != nil {
		cleanup()
		return nil, nil, err
	}
	a, err = Open(file)
	if err != nil {
		cleanup()
		return nil, nil, err
	}
	return a, cleanup, nil
}

// save has Podman write the image to a file. Layers stay uncompressed: their
// digests are then those of their content, which a machine that got the same
// layer in another way knows too.
func save(ctx context.Context, name, file string) error {
	podman, err := exec.LookPath("podman")
	if err != nil {
		return faults.New(faults.Engine, "there is no podman on this computer, and no archive %s", name).
			WithHint("give the path of an archive: docker save -o image.tar %s && uc image push image.tar", name).Because(err)
	}
	cmd := exec.CommandContext(ctx, podman, "save", "--quiet", "--format", "oci-archive", "--uncompressed", "--output", file, "--", name)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return faults.New(faults.Interrupted, "interrupted").Because(ctx.Err())
		}
		return faults.New(faults.NoImage, "podman cannot save %s: %s", name, reason(said.String(), err)).
			WithHint("see what there is: podman image ls").Because(err)
	}
	return nil
}

// reason is the last line that a program said, without what all say.
func reason(said string, err error) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	text := strings.TrimPrefix(strings.TrimSpace(lines[len(lines)-1]), "Error: ")
	if text == "" {
		return err.Error()
	}
	return text
}
