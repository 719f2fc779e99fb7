package push

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uncloud/internal/faults"
)

// archiveFile writes a tar file of content and, for values that start with
// "->", of links.
func archiveFile(t *testing.T, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		header := &tar.Header{Name: "./" + name, Size: int64(len(content)), Mode: 0o644}
		target, link := strings.CutPrefix(content, "->")
		if link {
			header.Typeflag, header.Linkname, header.Size = tar.TypeSymlink, target, 0
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if !link {
			io.WriteString(w, content)
		}
	}
	w.Close()
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func sha(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// addImage puts an image of these layers into an OCI layout.
func addImage(files map[string]string, p *platform, layers ...string) descriptor {
	config := asJSON(p)
	m := manifest{SchemaVersion: 2, Config: descriptor{Digest: sha(config)}}
	files[blob(sha(config))] = config
	for _, l := range layers {
		files[blob(sha(l))] = l
		m.Layers = append(m.Layers, descriptor{Digest: sha(l)})
	}
	text := asJSON(m)
	files[blob(sha(text))] = text
	return descriptor{MediaType: mediaManifest, Digest: sha(text), Platform: p}
}

func contents(t *testing.T, image *Image) []string {
	t.Helper()
	var all []string
	for _, l := range image.Layers {
		r, err := l.open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || sha(string(b)) != l.Digest || int64(len(b)) != l.Size {
			t.Errorf("layer %s of %d bytes has %q, %v", l.Digest, l.Size, b, err)
		}
		all = append(all, string(b))
	}
	return all
}

func open(t *testing.T, path string) *Archive {
	t.Helper()
	a, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func TestPlatforms(t *testing.T) {
	files := map[string]string{}
	amd := addImage(files, &platform{OS: "linux", Architecture: "amd64"}, "for amd64", "both")
	arm := addImage(files, &platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, "for arm64", "both")
	attested := addImage(files, &platform{OS: "unknown", Architecture: "unknown"}, "attestation")
	inner := asJSON(index{Manifests: []descriptor{amd, arm, attested}})
	files[blob(sha(inner))] = inner
	files["index.json"] = asJSON(index{Manifests: []descriptor{{
		MediaType: mediaIndex, Digest: sha(inner), Annotations: map[string]string{annotationName: "docker.io/library/web:1", annotationRef: "1"},
	}}})
	a := open(t, archiveFile(t, files))
	for platform, first := range map[string]string{"linux/amd64": "for amd64", "linux/arm64": "for arm64", "linux/arm64/v8": "for arm64"} {
		image, err := a.Image(platform)
		if err != nil {
			t.Fatalf("%s: %v", platform, err)
		}
		if got := contents(t, image); !slices.Equal(got, []string{first, "both"}) || image.Name != "docker.io/library/web:1" {
			t.Errorf("%s is %q with %q", platform, image.Name, got)
		}
	}
	for platform, want := range map[string]string{"": "linux/amd64, linux/arm64/v8", "linux/arm": "linux/amd64, linux/arm64/v8"} {
		if _, err := a.Image(platform); err == nil || !strings.Contains(faults.Of(err).Hint, want) {
			t.Errorf("platform %q: %v", platform, err)
		}
	}
}

// A Docker archive gets a manifest whose digests are those of the content. A
// layer may be there twice, and as a link.
func TestDockerArchive(t *testing.T) {
	config := `{"rootfs":{"diff_ids":["` + sha("base") + `","` + sha("empty") + `","` + sha("empty") + `"]}}`
	a := open(t, archiveFile(t, map[string]string{
		"manifest.json": `[{"Config":"c.json","RepoTags":["web:1"],"Layers":["1/layer.tar","2/layer.tar","2/layer.tar"]}]`,
		"c.json":        config, "base.tar": "base", "1/layer.tar": "->../base.tar", "2/layer.tar": "empty",
	}))
	image, err := a.Image("")
	if err != nil {
		t.Fatal(err)
	}
	if got := contents(t, image); !slices.Equal(got, []string{"base", "empty"}) || image.Name != "web:1" || image.Size() != 9 {
		t.Errorf("%q with %q of %d bytes", image.Name, got, image.Size())
	}
	var m manifest
	if err := json.Unmarshal(image.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	if m.Config.Digest != sha(config) || len(m.Layers) != 3 || m.Layers[2].Digest != sha("empty") || m.Layers[0].Size != 4 {
		t.Errorf("manifest %s", image.Manifest)
	}
}

func TestCompressedArchive(t *testing.T) {
	files := map[string]string{}
	files["index.json"] = asJSON(index{Manifests: []descriptor{addImage(files, nil, "layer")}})
	plain, err := os.ReadFile(archiveFile(t, files))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image.tar.gz")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(plain)
	z.Close()
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	image, err := open(t, path).Image("")
	if err != nil {
		t.Fatal(err)
	}
	if got := contents(t, image); !slices.Equal(got, []string{"layer"}) {
		t.Errorf("layers %q", got)
	}
	if err := os.WriteFile(path, b.Bytes()[:b.Len()/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); faults.CodeOf(err) != faults.Invalid {
		t.Errorf("half of it: %v", err)
	}
}

func TestNoArchives(t *testing.T) {
	circle := asJSON(index{Manifests: []descriptor{{MediaType: mediaIndex, Digest: "sha256:aa"}}})
	for name, files := range map[string]map[string]string{
		"nothing of an image": {"README": "hello"},
		"no manifest":         {"index.json": `{"manifests":[{"digest":"sha256:aa"}]}`},
		"no images":           {"index.json": `{}`},
		"no JSON":             {"index.json": `hello`},
		"a circle":            {"index.json": circle, "blobs/sha256/aa": circle},
		"a path":              {"index.json": `{"manifests":[{"digest":"sha256:../../index.json"}]}`},
		"too few layers":      {"manifest.json": `[{"Config":"c","Layers":["l"]}]`, "c": `{}`, "l": "x"},
		"two images":          {"manifest.json": `[{},{}]`},
	} {
		a := open(t, archiveFile(t, files))
		if image, err := a.Image(""); err == nil {
			t.Errorf("%s is taken for %+v", name, image)
		}
	}
	if _, err := Open(archiveFile(t, nil)); faults.CodeOf(err) != faults.Invalid || faults.Of(err).Hint == "" {
		t.Errorf("an empty archive: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); faults.CodeOf(err) != faults.NotFound {
		t.Errorf("no file: %v", err)
	}
}
