package podman

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"runtime"
)

// blob is content with its digest.
type blob struct{ content []byte }

func (b blob) hex() string {
	sum := sha256.Sum256(b.content)
	return hex.EncodeToString(sum[:])
}

func (b blob) digest() string { return "sha256:" + b.hex() }

func tarBlob(files map[string][]byte) blob {
	buf := &bytes.Buffer{}
	w := tar.NewWriter(buf)
	for name, content := range files {
		w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o755})
		w.Write(content)
	}
	w.Close()
	return blob{buf.Bytes()}
}

// configBlob is the config of an image whose process is /app.
func configBlob(layers []blob, healthcheck bool) blob {
	ids := []string{}
	for _, l := range layers {
		ids = append(ids, l.digest())
	}
	c := map[string]any{"Entrypoint": []string{"/app"}, "Cmd": []string{"wait"}, "Env": []string{"FROM_IMAGE=1", "BOTH=image"}}
	if healthcheck {
		c["Healthcheck"] = map[string]any{"Test": []string{"CMD", "/app", "exit", "1"}, "Interval": 1_000_000_000}
	}
	text, _ := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": c,
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	})
	return blob{text}
}

func dockerArchive(name string, layers []blob) []byte {
	config := configBlob(layers, true)
	files := map[string][]byte{config.hex() + ".json": config.content}
	paths := []string{}
	for _, l := range layers {
		files[l.hex()+".tar"] = l.content
		paths = append(paths, l.hex()+".tar")
	}
	files["manifest.json"], _ = json.Marshal([]any{map[string]any{
		"Config": config.hex() + ".json", "RepoTags": []string{name}, "Layers": paths,
	}})
	return tarBlob(files).content
}

// ociArchive leaves out the content of the layers in without.
func ociArchive(name string, layers []blob, without ...blob) []byte {
	descriptor := func(kind string, b blob) map[string]any {
		return map[string]any{"mediaType": "application/vnd.oci.image." + kind, "digest": b.digest(), "size": len(b.content)}
	}
	config := configBlob(layers, false)
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	add := func(b blob) { files["blobs/sha256/"+b.hex()] = b.content }
	listed := []any{}
	for _, l := range layers {
		listed = append(listed, descriptor("layer.v1.tar", l))
		add(l)
	}
	text, _ := json.Marshal(map[string]any{"schemaVersion": 2, "config": descriptor("config.v1+json", config), "layers": listed})
	manifest := blob{text}
	add(config)
	add(manifest)
	top := descriptor("manifest.v1+json", manifest)
	top["annotations"] = map[string]string{"org.opencontainers.image.ref.name": name}
	files["index.json"], _ = json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{top}})
	for _, l := range without {
		delete(files, "blobs/sha256/"+l.hex())
	}
	return tarBlob(files).content
}
