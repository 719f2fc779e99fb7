package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Image makes an image of source and puts it on the machines, all running ones
// if none is named. No registry takes part. Source is a static program, which
// becomes the entrypoint; or a directory with a Go main package, which is
// built into such a program; or any other directory, which becomes the root
// of the image. A name without a registry means localhost/NAME, as with
// podman build. Equal sources give equal images.
func (l *Lab) Image(ctx context.Context, source, name string, on ...*Machine) error {
	archive, err := ImageArchive(ctx, source, name)
	if err != nil {
		return fmt.Errorf("make image %s of %s: %w", name, source, err)
	}
	if len(on) == 0 {
		if on, err = l.running(); err != nil {
			return err
		}
	}
	var group errgroup.Group
	for _, m := range on {
		group.Go(func() error {
			cmd := m.Command(ctx, "podman", "load", "--quiet")
			cmd.Stdin = bytes.NewReader(archive)
			if out, err := combined(cmd); err != nil {
				return fmt.Errorf("load image %s on %s: %w: %s", name, m.Name, err, out)
			}
			return nil
		})
	}
	return group.Wait()
}

func (l *Lab) running() ([]*Machine, error) {
	if err := l.mustExist(); err != nil {
		return nil, err
	}
	all, err := l.Machines()
	if err != nil {
		return nil, err
	}
	var up []*Machine
	for _, m := range all {
		if m.Running() {
			up = append(up, m)
		}
	}
	return up, nil
}

func combined(cmd *Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// ImageArchive is the image that Lab.Image makes, as a docker-archive.
func ImageArchive(ctx context.Context, source, name string) ([]byte, error) {
	info, err := os.Stat(source)
	if err != nil {
		return nil, err
	}
	goFiles, _ := filepath.Glob(filepath.Join(source, "*.go"))
	switch {
	case !info.IsDir():
		return programImage(source, filepath.Base(source), name)
	case len(goFiles) > 0:
		return goImage(ctx, source, name)
	}
	var layer bytes.Buffer
	if err := tarDirectory(&layer, source); err != nil {
		return nil, err
	}
	return dockerArchive(name, layer.Bytes(), nil)
}

// goImage builds the main package in dir as a static program.
func goImage(ctx context.Context, dir, name string) ([]byte, error) {
	work, err := os.MkdirTemp("", "lab-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	program := filepath.Join(work, filepath.Base(dir))
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w: %s", err, bytes.TrimSpace(out))
	}
	return programImage(program, filepath.Base(dir), name)
}

func programImage(path, program, name string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(content, []byte("\x7fELF")) {
		return nil, fmt.Errorf("%s is no program of Linux; give a static one, or a directory", path)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := addFile(w, program, 0o755, content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return dockerArchive(name, layer.Bytes(), []string{"/" + program})
}

// tarDirectory writes a directory with fixed owners and times.
func tarDirectory(out io.Writer, dir string) error {
	w := tar.NewWriter(out)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		header.Name, _ = filepath.Rel(dir, path)
		header.ModTime, header.Uid, header.Gid, header.Uname, header.Gname = time.Unix(0, 0), 0, 0, "", ""
		if err := w.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	return errors.Join(err, w.Close())
}

// dockerArchive wraps one layer as podman load takes it.
func dockerArchive(name string, layer []byte, entrypoint []string) ([]byte, error) {
	if first, _, ok := strings.Cut(name, "/"); !ok || !strings.ContainsAny(first, ".:") && first != "localhost" {
		name = "localhost/" + name
	}
	if !strings.Contains(name[strings.LastIndex(name, "/"):], ":") {
		name += ":latest"
	}
	layerSum := sha256.Sum256(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"created":      "1970-01-01T00:00:00Z",
		"config":       map[string]any{"Entrypoint": entrypoint, "Env": []string{"PATH=/usr/bin:/bin"}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(layerSum[:])}},
	})
	if err != nil {
		return nil, err
	}
	configSum := sha256.Sum256(config)
	configName, layerName := hex.EncodeToString(configSum[:])+".json", hex.EncodeToString(layerSum[:])+".tar"
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": []string{name}, "Layers": []string{layerName}}})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err = errors.Join(
		addFile(w, configName, 0o644, config),
		addFile(w, layerName, 0o644, layer),
		addFile(w, "manifest.json", 0o644, manifest),
		w.Close())
	return out.Bytes(), err
}

func addFile(w *tar.Writer, name string, mode int64, content []byte) error {
	header := &tar.Header{Name: name, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}
