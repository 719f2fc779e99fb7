package runtime

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"uncloud/internal/faults"
)

// EnsureVolume implements Engine.
func (f *Fake) EnsureVolume(ctx context.Context, v Volume) error {
	if err := f.called(ctx, "EnsureVolume", v.Name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	if _, ok := f.volumes[v.Name]; !ok {
		f.volumes[v.Name] = v
	}
	return nil
}

// HasVolume implements Engine.
func (f *Fake) HasVolume(ctx context.Context, name string) (bool, error) {
	if err := f.called(ctx, "HasVolume", name); err != nil {
		return false, err
	}
	defer f.mu.Unlock()
	_, ok := f.volumes[name]
	return ok, nil
}

// Volumes implements Engine.
func (f *Fake) Volumes(ctx context.Context) ([]Volume, error) {
	if err := f.called(ctx, "Volumes", ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	out := slices.Collect(maps.Values(f.volumes))
	slices.SortFunc(out, func(a, b Volume) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// RemoveVolume implements Engine.
func (f *Fake) RemoveVolume(ctx context.Context, name string) error {
	if err := f.called(ctx, "RemoveVolume", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	delete(f.volumes, name)
	return nil
}

// Images implements Engine.
func (f *Fake) Images(ctx context.Context) ([]Image, error) {
	if err := f.called(ctx, "Images", ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	var out []Image
	for name := range f.images {
		out = append(out, Image{ID: name, Names: []string{name}})
	}
	slices.SortFunc(out, func(a, b Image) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// HasImage implements Engine.
func (f *Fake) HasImage(ctx context.Context, name string) (bool, error) {
	if err := f.called(ctx, "HasImage", name); err != nil {
		return false, err
	}
	defer f.mu.Unlock()
	_, ok := f.images[name]
	return ok, nil
}

// ImageLayers implements Engine.
func (f *Fake) ImageLayers(ctx context.Context, name string) ([]string, error) {
	if err := f.called(ctx, "ImageLayers", name); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	layers, ok := f.images[name]
	if !ok {
		return nil, faults.New(faults.NoImage, "image %s is not on this machine", name)
	}
	return slices.Clone(layers), nil
}

// PullImage implements Engine.
func (f *Fake) PullImage(ctx context.Context, name string) error {
	if err := f.called(ctx, "PullImage", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	if !f.registry[name] {
		return faults.New(faults.NoImage, "image %s is not on this machine and cannot be pulled", name).WithHint("uc image push %s", name)
	}
	if f.images[name] == nil {
		f.images[name] = []string{}
	}
	return nil
}

// LoadImage implements Engine for OCI archives with one image.
func (f *Fake) LoadImage(ctx context.Context, archive io.Reader) ([]string, error) {
	files, err := untar(archive)
	if err != nil {
		return nil, err
	}
	if err := f.called(ctx, "LoadImage", ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	name, layers, err := readArchive(files)
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		if _, sent := files["blobs/"+strings.Replace(l, ":", "/", 1)]; !sent && !f.hasLayer(l) {
			return nil, fmt.Errorf("load image: layer %s is neither here nor in the archive", l)
		}
	}
	f.images[name] = layers
	return []string{name}, nil
}

func (f *Fake) hasLayer(digest string) bool {
	for _, layers := range f.images {
		if slices.Contains(layers, digest) {
			return true
		}
	}
	return false
}

func untar(r io.Reader) (map[string][]byte, error) {
	files := map[string][]byte{}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("load image: %w", err)
		}
		if files[h.Name], err = io.ReadAll(t); err != nil {
			return nil, fmt.Errorf("load image: %w", err)
		}
	}
}

// readArchive is the name and the layers of the image in an OCI archive.
func readArchive(files map[string][]byte) (name string, layers []string, err error) {
	type descriptor struct {
		Digest      string
		Annotations map[string]string
	}
	var index struct{ Manifests []descriptor }
	var manifest struct{ Layers []descriptor }
	if err := json.Unmarshal(files["index.json"], &index); err != nil || len(index.Manifests) != 1 {
		return "", nil, fmt.Errorf("load image: no OCI archive with one image: %w", err)
	}
	m := index.Manifests[0]
	if err := json.Unmarshal(files["blobs/"+strings.Replace(m.Digest, ":", "/", 1)], &manifest); err != nil {
		return "", nil, fmt.Errorf("load image: manifest: %w", err)
	}
	for _, l := range manifest.Layers {
		layers = append(layers, l.Digest)
	}
	return m.Annotations["org.opencontainers.image.ref.name"], layers, nil
}

// LoseImage takes an image away, as a person does.
func (f *Fake) LoseImage(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.images, name)
}
