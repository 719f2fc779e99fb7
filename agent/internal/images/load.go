package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"uncloud/internal/faults"
)

// where a layer can be had.
type where int

const (
	nowhere where = iota
	inSpool
	inEngine
)

// source tells where a layer is. What is in the spool is preferred: it is sure
// to load.
func (s *Store) source(l layer, onShelf contents) where {
	if s.spool.holds(l.digest) {
		return inSpool
	}
	// A digest that is known to unpack to something else than the config says
	// must be seen to be believed.
	known := s.spool.unpacked(l.digest)
	if onShelf.has(l.diffID) && (known == "" || known == l.diffID) {
		return inEngine
	}
	return nowhere
}

// load gives the image to the engine, without the layers that it has.
func (s *Store) load(ctx context.Context, img *image) error {
	onShelf, err := s.shelf.look(ctx)
	if err != nil {
		return err
	}
	left := map[string]bool{}
	var absent []layer
	for _, l := range img.distinct() {
		switch s.source(l, onShelf) {
		case inEngine:
			left[l.digest] = true
		case nowhere:
			absent = append(absent, l)
		}
	}
	if len(absent) > 0 {
		s.distrust(absent)
		return invalid("%d of the layers of image %s are neither on this machine nor were they sent, the first is %s",
			len(absent), img.name, short(absent[0].digest)).WithHint("push again: uc image push %s", img.name)
	}
	if err := s.handOver(ctx, img, left); err != nil {
		return s.learnFromFailure(ctx, img, left, err)
	}
	s.shelf.trust(img.layers)
	for _, l := range img.distinct() {
		if !left[l.digest] {
			s.spool.retire(l)
		}
	}
	return nil
}

// distrust forgets what digests unpack to, because an image says otherwise, so
// that Present tells no longer that they need not be sent.
func (s *Store) distrust(layers []layer) {
	for _, l := range layers {
		s.spool.forget(l.digest)
	}
}

// handOver streams the archive into the engine.
func (s *Store) handOver(ctx context.Context, img *image, left map[string]bool) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := s.writeArchive(w, img, left)
		w.CloseWithError(err)
		written <- err
	}()
	_, err := s.engine.LoadImage(ctx, r)
	r.Close() // ends the writer where the engine did not read all
	if cause := <-written; cause != nil && !errors.Is(cause, io.ErrClosedPipe) {
		return fmt.Errorf("write the archive of image %s: %w", img.name, cause)
	}
	return err
}

// learnFromFailure keeps a push that failed from failing the same way again:
// damaged layers leave the spool, and layers that were left to the engine will
// be sent.
func (s *Store) learnFromFailure(ctx context.Context, img *image, left map[string]bool, cause error) error {
	switch {
	case ctx.Err() != nil:
		return img.interrupted(cause)
	case faults.CodeOf(cause) == faults.DiskFull:
		return cause
	}
	var doubted []string
	for _, l := range img.distinct() {
		if left[l.digest] {
			doubted = append(doubted, l.diffID)
			continue
		}
		err := s.spool.verify(ctx, l)
		if ctx.Err() != nil {
			return img.interrupted(cause)
		}
		if err != nil {
			cause = s.discard(img, l, err)
		}
	}
	s.shelf.doubt(doubted)
	return cause
}

// discard drops a layer that is not what it was when it came.
func (s *Store) discard(img *image, l layer, why error) error {
	s.spool.forget(l.digest)
	return faults.New(faults.Internal, "layer %s of image %s was damaged on the disk of this machine", short(l.digest), img.name).
		WithHint("push again: uc image push %s", img.name).Because(why)
}

// writeArchive writes an OCI layout as a tar file.
func (s *Store) writeArchive(to io.Writer, img *image, left map[string]bool) error {
	manifest, err := img.without(left)
	if err != nil {
		return err
	}
	index, err := indexOf(img, manifest)
	if err != nil {
		return err
	}
	w := tar.NewWriter(to)
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{blobPath(digestOf(manifest)), manifest},
		{blobPath("sha256:" + img.id), img.config},
	} {
		if err := addFile(w, f.name, int64(len(f.content)), bytes.NewReader(f.content)); err != nil {
			return err
		}
	}
	for _, l := range img.distinct() {
		if left[l.digest] {
			continue
		}
		if err := s.addLayer(w, l); err != nil {
			return err
		}
	}
	return w.Close()
}

func indexOf(img *image, manifest []byte) ([]byte, error) {
	type named struct {
		descriptor
		Annotations map[string]string `json:"annotations"`
	}
	return json.Marshal(map[string]any{
		"schemaVersion": 2,
		"manifests": []named{{
			descriptor{img.manifestType, digestOf(manifest), int64(len(manifest))},
			map[string]string{"org.opencontainers.image.ref.name": img.name},
		}},
	})
}

func (s *Store) addLayer(w *tar.Writer, l layer) error {
	file, err := s.spool.file(l.digest)
	if err != nil {
		return err
	}
	defer file.Close()
	return addFile(w, blobPath(l.digest), l.size, file)
}

func addFile(w *tar.Writer, name string, size int64, content io.Reader) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644}); err != nil {
		return err
	}
	_, err := io.Copy(w, content)
	return err
}

func blobPath(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }
