package cli_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

// The image shop:3 has two layers: a base that m2 has, and a larger one.
var (
	baseLayer = []byte("the base of many images")
	shopLayer = bytes.Repeat([]byte("shop "), 200_000) // more than one chunk
)

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func imageConfig() []byte {
	return fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q,%q]}}`, digest(baseLayer), digest(shopLayer))
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

type object = map[string]any

func ociArchive(name string) []byte {
	config := imageConfig()
	manifest := encode(object{"schemaVersion": 2, "config": object{"digest": digest(config), "size": len(config)}, "layers": []object{
		{"digest": digest(baseLayer), "size": len(baseLayer)}, {"digest": digest(shopLayer), "size": len(shopLayer)},
	}})
	entry := object{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest), "size": len(manifest)}
	if name != "" {
		entry["annotations"] = object{"org.opencontainers.image.ref.name": name}
	}
	return tarOf(map[string][]byte{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": encode(object{"schemaVersion": 2, "manifests": []object{entry}}),
		blob(manifest): manifest, blob(config): config, blob(baseLayer): baseLayer, blob(shopLayer): shopLayer,
	})
}

func blob(b []byte) string { return "blobs/sha256/" + strings.TrimPrefix(digest(b), "sha256:") }

func dockerArchive(name string) []byte {
	return tarOf(map[string][]byte{
		"manifest.json": encode([]object{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"base/layer.tar", "shop/layer.tar"}}}),
		"config.json":   imageConfig(), "base/layer.tar": baseLayer, "shop/layer.tar": shopLayer,
	})
}

func tarOf(files map[string][]byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644}); err != nil {
			panic(err)
		}
		if _, err := w.Write(content); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func (w *world) listImages(machine string, r *uncloudv1.ListImagesRequest) (*uncloudv1.ListImagesResponse, error) {
	name, err := w.reach(machine)
	if err != nil {
		return nil, err
	}
	image := &uncloudv1.Image{
		Id: digest([]byte("web")), Names: []string{"docker.io/library/web:1"}, Size: 23_456_789, Platform: "linux/amd64", CreatedAt: ago(72 * time.Hour), Containers: 1, Machine: name,
	}
	if r.GetName() != "" && r.GetName() != image.GetNames()[0] {
		return &uncloudv1.ListImagesResponse{}, nil
	}
	return &uncloudv1.ListImagesResponse{Images: []*uncloudv1.Image{image}}, nil
}

func (w *world) hasBlobs(machine string, r *uncloudv1.HasBlobsRequest) (*uncloudv1.HasBlobsResponse, error) {
	name, err := w.reach(machine)
	if err != nil {
		return nil, err
	}
	answer := &uncloudv1.HasBlobsResponse{}
	for _, d := range r.GetDigests() {
		if (name == "m2" && d == digest(baseLayer)) || name == "m3" {
			answer.Present = append(answer.Present, d)
		}
	}
	return answer, nil
}

// pushImage checks what it gets as a machine would.
func (w *world) pushImage(machine string, receive func() (*uncloudv1.PushImageRequest, error)) (*uncloudv1.PushImageResponse, error) {
	name, err := w.reach(machine)
	if err != nil {
		return nil, err
	}
	if w.is("m2-full") && name == "m2" {
		return nil, faults.New(faults.DiskFull, "the disk of m2 is full")
	}
	first, err := receive()
	if err != nil {
		return nil, err
	}
	start := first.GetStart()
	layers, err := receiveLayers(receive)
	if err != nil {
		return nil, err
	}
	w.note("push %s to %s: manifest names %t, config %t, layers %s", start.GetName(), name,
		strings.Contains(string(start.GetManifest()), digest(start.GetConfig())), bytes.Equal(start.GetConfig(), imageConfig()), layers)
	return &uncloudv1.PushImageResponse{Id: digest(start.GetConfig())}, nil
}

// receiveLayers names the layers that came, by their true digests.
func receiveLayers(receive func() (*uncloudv1.PushImageRequest, error)) (string, error) {
	content := map[string][]byte{}
	current := ""
	for {
		m, err := receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		if m.GetDigest() != "" {
			current = m.GetDigest()
		}
		content[current] = append(content[current], m.GetChunk()...)
	}
	known := map[string]string{digest(baseLayer): "base", digest(shopLayer): "shop"}
	names := []string{}
	for said, b := range content {
		if digest(b) != said {
			return "", fmt.Errorf("layer %s has content %s", said, digest(b))
		}
		names = append(names, known[said])
	}
	slices.Sort(names)
	return strings.Join(names, "+"), nil
}
