package podman

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containers/podman/v5/pkg/bindings/system"
	"golang.org/x/sys/unix"

	"uncloud/internal/faults"
)

// durable makes an image that Podman took survive a power cut. Podman renames
// what it wrote without flushing it, so the kernel may hold a whole image for
// half a minute, and a cut then leaves an image that is listed and has no
// content. What is said to be here must be.
func (e *Engine) durable(ctx context.Context, image string) error {
	dir, err := e.storage(ctx)
	if err != nil {
		return err
	}
	// It may take as long as the disk is slow, and cannot be broken off.
	done := make(chan error, 1)
	go func() { done <- e.flush(dir) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	switch {
	case err == nil:
		return nil
	case isDiskFull(err.Error()), errors.Is(err, ctx.Err()):
		return e.explain("make image "+image+" durable", err)
	}
	return faults.New(faults.Internal, "image %s would not survive a power cut: %w", image, err).
		WithHint("see what the disk says: journalctl -k")
}

// storage is the directory in which Podman keeps images. It is asked once: it
// cannot change while there are images.
func (e *Engine) storage(ctx context.Context) (string, error) {
	call, err := e.call(ctx)
	if err != nil {
		return "", err
	}
	e.mu.Lock()
	dir := e.storageDir
	e.mu.Unlock()
	if dir != "" {
		return dir, nil
	}
	info, err := system.Info(call, nil)
	if err != nil {
		return "", e.explain("ask where images are kept", err)
	}
	if info.Store == nil || info.Store.GraphRoot == "" {
		return "", faults.New(faults.Engine, "podman does not say where it keeps images").WithHint("see what it says: podman info")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.storageDir = info.Store.GraphRoot
	return e.storageDir, nil
}

// flush writes all that the file system of a directory holds in memory.
func flush(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()                                  //nolint:errcheck // nothing was written through it
	if err := unix.Syncfs(int(f.Fd())); err != nil { //nolint:gosec // a descriptor fits
		return fmt.Errorf("flush the file system of %s: %w", dir, err)
	}
	return nil
}
