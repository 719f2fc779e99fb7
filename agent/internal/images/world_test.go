package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
)

// engine is as strict as Podman is: it looks at every digest and size, unpacks
// what is compressed, and finds a layer that is not in the archive only by the
// digest of its content.
type engine struct {
	mu     sync.Mutex
	names  map[string]string   // to ids
	images map[string][]string // id to diff ids
	asked  int                 // calls of ImageLayers
	loaded []string            // blobs that came in archives
	onLoad func() error        // before an archive is read
	broken map[string]error    // ids whose layers cannot be told
	down   error
	lost   map[string]bool // diff ids that are told of and cannot be used
}

func newEngine() *engine {
	return &engine{names: map[string]string{}, images: map[string][]string{}, broken: map[string]error{}, lost: map[string]bool{}}
}

func (e *engine) Images(context.Context) ([]runtime.Image, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []runtime.Image
	for id := range e.images {
		out = append(out, runtime.Image{ID: id})
	}
	return out, e.down
}

func (e *engine) ImageLayers(_ context.Context, id string) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	layers, ok := e.images[id]
	if !ok {
		return nil, faults.New(faults.NoImage, "no image %s", id)
	}
	return layers, e.broken[id]
}

func (e *engine) LoadImage(ctx context.Context, archive io.Reader) ([]string, error) {
	if e.onLoad != nil {
		if err := e.onLoad(); err != nil {
			return nil, err
		}
	}
	files, err := untar(archive)
	if err != nil {
		return nil, fmt.Errorf("load image: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	name, id, layers, err := e.check(files)
	if err != nil {
		return nil, faults.New(faults.Engine, "podman: load image: %w", err)
	}
	e.names[name], e.images[id] = id, layers
	return []string{name}, ctx.Err()
}

func untar(r io.Reader) (map[string][]byte, error) {
	files := map[string][]byte{}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if files[h.Name] != nil {
			return nil, fmt.Errorf("%s is there twice", h.Name)
		}
		if files[h.Name], err = io.ReadAll(t); err != nil {
			return nil, err
		}
	}
}

func (e *engine) check(files map[string][]byte) (name, id string, layers []string, err error) {
	var index struct {
		Manifests []struct {
			descriptor
			Annotations map[string]string
		}
	}
	var m manifest
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(files["index.json"], &index); err != nil || len(index.Manifests) != 1 {
		return "", "", nil, fmt.Errorf("index: %w", err)
	}
	top := index.Manifests[0]
	for _, document := range []struct {
		is func() descriptor
		to any
	}{{func() descriptor { return top.descriptor }, &m}, {func() descriptor { return m.Config }, &config}} {
		d := document.is()
		content := files[blobPath(d.Digest)]
		if digestOf(content) != d.Digest || int64(len(content)) != d.Size {
			return "", "", nil, fmt.Errorf("%s has other content", d.Digest)
		}
		if err := json.Unmarshal(content, document.to); err != nil {
			return "", "", nil, err
		}
	}
	for n, d := range m.Layers {
		if err := e.checkLayer(d, config.RootFS.DiffIDs[n], files, top.MediaType); err != nil {
			return "", "", nil, err
		}
	}
	e.loaded = nil
	for _, f := range slices.Sorted(maps.Keys(files)) {
		e.loaded = append(e.loaded, strings.Replace(strings.TrimPrefix(f, "blobs/"), "/", ":", 1))
	}
	return top.Annotations["org.opencontainers.image.ref.name"], strings.TrimPrefix(m.Config.Digest, "sha256:"), config.RootFS.DiffIDs, nil
}

func (e *engine) checkLayer(d descriptor, diffID string, files map[string][]byte, manifestType string) error {
	if manifestType == typeDockerManifest && !strings.HasPrefix(d.MediaType, typeDockerTar) {
		return fmt.Errorf("unsupported docker v2s2 media type: %q", d.MediaType)
	}
	content, here := files[blobPath(d.Digest)]
	if !here {
		for _, layers := range e.images {
			if d.Digest == diffID && slices.Contains(layers, diffID) && !e.lost[diffID] {
				return nil
			}
		}
		return fmt.Errorf("open %s: no such file", d.Digest)
	}
	if digestOf(content) != d.Digest || int64(len(content)) != d.Size {
		return fmt.Errorf("%s has other content", d.Digest)
	}
	if strings.HasSuffix(d.MediaType, "gzip") {
		z, err := gzip.NewReader(bytes.NewReader(content))
		if err != nil {
			return err
		}
		if content, err = io.ReadAll(z); err != nil {
			return err
		}
	}
	if digestOf(content) != diffID {
		return fmt.Errorf("layer does not match config's DiffID %s", diffID)
	}
	return nil
}

// has tells whether the engine knows the picture by its name.
func (e *engine) has(p picture) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.names[p.name] == p.id() && slices.Equal(e.images[p.id()], p.diffIDs())
}

func (e *engine) prune() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.names)
	clear(e.images)
}

// blob is a layer as it is sent.
type blob struct {
	content   []byte
	mediaType string
	diffID    string
}

func (b blob) digest() string { return digestOf(b.content) }

// plain makes a layer with one file.
func plain(name string) blob {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	text := strings.Repeat(name+" ", 1000)
	w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o755})
	io.WriteString(w, text)
	w.Close()
	return blob{buf.Bytes(), typeTar, digestOf(buf.Bytes())}
}

func zipped(name string) blob {
	p := plain(name)
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(p.content)
	w.Close()
	return blob{buf.Bytes(), typeTar + "+gzip", p.diffID}
}

// picture is an image to push.
type picture struct {
	name   string
	blobs  []blob
	docker bool
}

func (p picture) diffIDs() []string {
	out := []string{}
	for _, b := range p.blobs {
		out = append(out, b.diffID)
	}
	return out
}

func (p picture) digests() []string {
	var out []string
	for _, b := range p.blobs {
		if !slices.Contains(out, b.digest()) {
			out = append(out, b.digest())
		}
	}
	return out
}

func (p picture) config() []byte {
	text, _ := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Entrypoint": []string{"/app"}, "Labels": map[string]string{"name": p.name}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": p.diffIDs()},
	})
	return text
}

func (p picture) id() string { return strings.TrimPrefix(digestOf(p.config()), "sha256:") }

func (p picture) start() Start {
	m := manifest{Config: descriptor{typeConfig, digestOf(p.config()), int64(len(p.config()))}}
	if p.docker {
		m.MediaType, m.Config.MediaType = typeDockerManifest, typeDockerConfig
	}
	for _, b := range p.blobs {
		t := b.mediaType
		if p.docker {
			t = strings.NewReplacer(typeTar, typeDockerTar, "+", ".").Replace(t)
		}
		m.Layers = append(m.Layers, descriptor{t, b.digest(), int64(len(b.content))})
	}
	var all map[string]any
	text, _ := json.Marshal(m)
	json.Unmarshal(text, &all)
	all["schemaVersion"] = 2
	all["annotations"] = map[string]string{"kept": "yes"}
	if m.MediaType == "" {
		delete(all, "mediaType")
	}
	text, _ = json.Marshal(all)
	return Start{Name: p.name, Manifest: text, Config: p.config()}
}

// message is one of a push.
type message struct {
	digest string
	chunk  []byte
	err    error
}

const chunkSize = 700 // several to a layer, the last one short

// messages are what the CLI sends of a picture: each layer is named in a
// message of its own, and its content follows.
func (p picture) messages(without ...string) []message {
	var out []message
	sent := slices.Clone(without)
	for _, b := range p.blobs {
		if slices.Contains(sent, b.digest()) {
			continue
		}
		sent = append(sent, b.digest())
		out = append(out, message{digest: b.digest()})
		for c := range slices.Chunk(b.content, chunkSize) {
			out = append(out, message{chunk: c})
		}
	}
	return out
}

// stream replays messages out of one buffer, as a connection does.
func stream(messages []message) Next {
	var buffer []byte
	return func() (string, []byte, error) {
		if len(messages) == 0 {
			return "", nil, io.EOF
		}
		m := messages[0]
		messages = messages[1:]
		for i := range buffer {
			buffer[i] = '!' // what was lent before is not to be read any more
		}
		buffer = append(buffer[:0], m.chunk...)
		return m.digest, buffer, m.err
	}
}

// push does what the CLI does, and tells which layers were sent.
func push(t interface{ Context() context.Context }, s *Store, p picture) (sent []string, err error) {
	present, err := s.Present(t.Context(), p.digests())
	if err != nil {
		return nil, err
	}
	sent = slices.DeleteFunc(p.digests(), func(d string) bool { return slices.Contains(present, d) })
	var want int64
	for _, m := range p.messages(present...) {
		want += int64(len(m.chunk))
	}
	id, received, err := s.Receive(t.Context(), p.start(), stream(p.messages(present...)))
	if err == nil && (id != p.id() || received != want) {
		err = fmt.Errorf("received image %s with %d bytes, want %s with %d", id, received, p.id(), want)
	}
	return sent, err
}

func mustPush(t *testing.T, s *Store, p picture, want ...blob) {
	t.Helper()
	sent, err := push(t, s, p)
	if err != nil {
		t.Fatalf("push %s: %v", p.name, err)
	}
	var digests []string
	for _, b := range want {
		digests = append(digests, b.digest())
	}
	if !slices.Equal(sent, digests) {
		t.Errorf("push of %s sent %q, want %q", p.name, sent, digests)
	}
}

func newStore(t testing.TB, e Engine, change ...func(*Options)) *Store {
	t.Helper()
	o := Options{Dir: filepath.Join(t.TempDir(), "images"), Engine: e, Free: func(string) (int64, error) { return 1 << 40, nil }}
	for _, c := range change {
		c(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// files are the names in the spool, links with their targets.
func files(t testing.TB, s *Store) []string {
	t.Helper()
	list, err := os.ReadDir(s.spool.dir)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, f := range list {
		name := f.Name()
		if target, err := os.Readlink(filepath.Join(s.spool.dir, name)); err == nil {
			name += " -> " + target
		}
		out = append(out, name)
	}
	return out
}

func wantFault(t *testing.T, err error, code faults.Code, words string) {
	t.Helper()
	f := faults.Of(err)
	if f == nil || f.Code != code || !strings.Contains(f.Sentence, words) {
		t.Errorf("error %v (code %s), want code %s with %q", err, faults.CodeOf(err), code, words)
	}
}
