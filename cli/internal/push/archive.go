package push

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"uncloud/internal/faults"
)

// maxDocument bounds what is read into memory of an archive: indexes,
// manifests and configs are kilobytes.
const maxDocument = 8 << 20

// Archive is an open image archive: a tar file, and where its entries lie.
type Archive struct {
	file    *os.File
	entries map[string]entry
}

type entry struct{ offset, size int64 }

// Open indexes the archive at path: an OCI layout or a Docker archive in a tar
// file, plain or compressed with gzip.
func Open(path string) (*Archive, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, faults.New(faults.NotFound, "open image archive: %w", err).
			WithHint("make one: podman save --format oci-archive -o FILE IMAGE")
	}
	if file, err = plain(file); err != nil {
		return nil, faults.New(faults.Invalid, "read image archive %s: %w", path, err).
			WithHint("make it anew: podman save --format oci-archive -o FILE IMAGE")
	}
	a := &Archive{file: file, entries: map[string]entry{}}
	if err := a.index(); err != nil {
		file.Close()
		return nil, faults.New(faults.Invalid, "%s is no image archive: %w", path, err).
			WithHint("make one: podman save --format oci-archive -o FILE IMAGE")
	}
	return a, nil
}

// Close closes the file.
func (a *Archive) Close() error { return a.file.Close() }

// plain is the file, or its content as a nameless file if it is compressed:
// layers can then be read from any place.
func plain(file *os.File) (*os.File, error) {
	head := make([]byte, 2)
	if _, err := file.ReadAt(head, 0); err != nil || !bytes.Equal(head, []byte{0x1f, 0x8b}) {
		return file, nil // what is too short for gzip is too short for tar, which says so
	}
	defer file.Close()
	unpacked, err := os.CreateTemp("", "uc-image-")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(unpacked.Name()), unzip(unpacked, file)); err != nil {
		unpacked.Close()
		return nil, err
	}
	return unpacked, nil
}

func unzip(to io.Writer, from io.Reader) error {
	z, err := gzip.NewReader(bufio.NewReaderSize(from, 1<<20))
	if err != nil {
		return err
	}
	_, err = io.Copy(to, z)
	return err
}

// index notes where each file of the archive begins. The tar reader skips
// content by seeking, and reads ahead nothing but headers, so after a header
// the file stands where the content begins.
func (a *Archive) index() error {
	if _, err := a.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	links := map[string]string{}
	for reader := tar.NewReader(a.file); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		offset, err := a.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		switch name := path.Clean(header.Name); header.Typeflag {
		case tar.TypeReg:
			a.entries[name] = entry{offset, header.Size}
		case tar.TypeSymlink:
			links[name] = path.Join(path.Dir(name), header.Linkname)
		case tar.TypeLink:
			links[name] = path.Clean(header.Linkname)
		}
	}
	for name, target := range links {
		if e, ok := a.entries[target]; ok {
			a.entries[name] = e
		}
	}
	if len(a.entries) == 0 {
		return errors.New("it holds no files")
	}
	return nil
}

func (a *Archive) has(name string) bool { _, ok := a.entries[name]; return ok }

func (a *Archive) open(name string) (*io.SectionReader, error) {
	e, ok := a.entries[name]
	if !ok {
		return nil, fmt.Errorf("it has no %s", name)
	}
	return io.NewSectionReader(a.file, e.offset, e.size), nil
}

func (a *Archive) read(name string) ([]byte, error) {
	r, err := a.open(name)
	if err != nil {
		return nil, err
	}
	if r.Size() > maxDocument {
		return nil, fmt.Errorf("%s is too large", name)
	}
	return io.ReadAll(r)
}

func (a *Archive) decode(name string, into any) error {
	b, err := a.read(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// blob is where an OCI layout keeps the content with this digest.
func blob(digest string) string {
	algorithm, hash, _ := strings.Cut(digest, ":")
	return path.Join("blobs", algorithm, hash)
}
