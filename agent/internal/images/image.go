package images

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"uncloud/internal/faults"
)

// Media types that a push may have. Docker's differ from the OCI's in name only,
// but Podman refuses the one's layers in the other's manifest.
const (
	typeManifest       = "application/vnd.oci.image.manifest.v1+json"
	typeConfig         = "application/vnd.oci.image.config.v1+json"
	typeTar            = "application/vnd.oci.image.layer.v1.tar"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	typeDockerTar      = "application/vnd.docker.image.rootfs.diff.tar"
)

// layerTypes tells for each type of a layer whether it is compressed.
var layerTypes = map[string]bool{
	typeTar: false, typeTar + "+gzip": true, typeTar + "+zstd": true,
	typeDockerTar: false, typeDockerTar + ".gzip": true, typeDockerTar + ".zstd": true,
}

// image is an announced image, checked.
type image struct {
	name         string
	id           string // the config's digest, as the engine names images
	manifestType string
	manifest     []byte
	config       []byte
	layers       []layer // lowest first; one may be there more than once
}

type layer struct {
	digest string // of what is sent
	diffID string // of the tar file in it
	size   int64  // bytes that are sent
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

type manifest struct {
	MediaType string       `json:"mediaType"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
}

const maxName = 384 // characters: more than registries take

var nameForm = func() *regexp.Regexp {
	const (
		word     = `[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*`
		registry = `(?:[A-Za-z0-9]+(?:[.-]+[A-Za-z0-9]+)*(?::[0-9]+)?/)?`
	)
	return regexp.MustCompile(`^` + registry + word + `(?:/` + word + `)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$`)
}()

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func validDigest(d string) bool { return digestForm.MatchString(d) }

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func invalid(format string, args ...any) *faults.Fault {
	return faults.New(faults.Invalid, format, args...).WithHint("build the image anew, and push it: uc image push IMAGE")
}

// parse checks everything about an image that can be told before its layers.
func parse(s Start) (*image, error) {
	if len(s.Name) > maxName || !nameForm.MatchString(s.Name) {
		return nil, invalid("%.80q is no name for an image", s.Name).WithHint("names look like shop:3 or example.com/team/shop:3")
	}
	if len(s.Manifest) > MaxDocument || len(s.Config) > MaxDocument {
		return nil, invalid("the manifest or config of image %s is larger than %s", s.Name, size(MaxDocument))
	}
	var m manifest
	if err := json.Unmarshal(s.Manifest, &m); err != nil {
		return nil, invalid("the manifest of image %s is not readable: %w", s.Name, err)
	}
	img := &image{name: s.Name, manifest: s.Manifest, config: s.Config}
	if err := img.checkTypes(m); err != nil {
		return nil, err
	}
	if got := digestOf(s.Config); got != m.Config.Digest || int64(len(s.Config)) != m.Config.Size {
		return nil, invalid("the config of image %s is not the one of its manifest", s.Name)
	}
	img.id = strings.TrimPrefix(m.Config.Digest, "sha256:")
	return img, img.readLayers(m)
}

func (i *image) checkTypes(m manifest) error {
	i.manifestType = m.MediaType
	if m.MediaType == "" {
		i.manifestType = typeManifest // which need not name itself; Docker's must
	}
	if i.manifestType != typeManifest && i.manifestType != typeDockerManifest {
		return invalid("the manifest of image %s is of unknown type %.80q", i.name, m.MediaType).
			WithHint("push the image of one platform: uc image push --platform linux/arm64 ...")
	}
	if t := m.Config.MediaType; t != typeConfig && t != typeDockerConfig {
		return invalid("%s is no container image: its config is of type %.80q", i.name, t)
	}
	return nil
}

func (i *image) readLayers(m manifest) error {
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(i.config, &c); err != nil {
		return invalid("the config of image %s is not readable: %w", i.name, err)
	}
	if len(m.Layers) > MaxLayers {
		return invalid("image %s has %d layers, and at most %d are taken", i.name, len(m.Layers), MaxLayers).WithHint("build it with fewer steps")
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return invalid("image %s has %d layers in its manifest and %d in its config", i.name, len(m.Layers), len(c.RootFS.DiffIDs))
	}
	for n, d := range m.Layers {
		l := layer{digest: d.Digest, diffID: c.RootFS.DiffIDs[n], size: d.Size}
		if err := i.checkLayer(l, d.MediaType); err != nil {
			return err
		}
		i.layers = append(i.layers, l)
	}
	return nil
}

func (i *image) checkLayer(l layer, mediaType string) error {
	compressed, known := layerTypes[mediaType]
	switch {
	case !known:
		return invalid("a layer of image %s is of unknown type %.80q", i.name, mediaType)
	case !validDigest(l.digest) || !validDigest(l.diffID):
		return invalid("a layer of image %s has no sha256 digest", i.name)
	case l.size < 0 || l.size > maxLayer:
		return invalid("layer %s of image %s cannot be %d bytes long", short(l.digest), i.name, l.size)
	case !compressed && l.digest != l.diffID:
		return invalid("layer %s of image %s is not the one of its config", short(l.digest), i.name)
	}
	for _, other := range i.layers {
		if other.digest == l.digest && other != l {
			return invalid("image %s has two layers with the digest %s", i.name, short(l.digest))
		}
	}
	return nil
}

// distinct are the layers, each once.
func (i *image) distinct() []layer {
	var out []layer
	seen := map[string]bool{}
	for _, l := range i.layers {
		if !seen[l.digest] {
			seen[l.digest] = true
			out = append(out, l)
		}
	}
	return out
}

func (i *image) digests() []string {
	var out []string
	for _, l := range i.distinct() {
		out = append(out, l.digest)
	}
	return out
}

func (i *image) byDigest() map[string]layer {
	out := map[string]layer{}
	for _, l := range i.layers {
		out[l.digest] = l
	}
	return out
}

// without is the manifest with layers that the archive leaves out described as
// tar files. Podman finds those by diff id, but by the digest of compressed
// bytes only when it unpacked the very same bytes before. Their sizes are mostly
// not known here; Podman does not ask. The config, and so the image's id, stays.
func (i *image) without(left map[string]bool) ([]byte, error) {
	var all map[string]json.RawMessage
	var layers []map[string]json.RawMessage
	if err := json.Unmarshal(i.manifest, &all); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(all["layers"], &layers); err != nil {
		return nil, err
	}
	tarType, plain, changed := typeTar, i.byDigest(), false
	if i.manifestType == typeDockerManifest {
		tarType = typeDockerTar
	}
	for n, l := range i.layers {
		if left[l.digest] && l.digest != l.diffID {
			length := layers[n]["size"]
			if same, ok := plain[l.diffID]; ok { // the image has the tar file too
				length = json.RawMessage(strconv.FormatInt(same.size, 10))
			}
			layers[n] = map[string]json.RawMessage{"mediaType": quoted(tarType), "digest": quoted(l.diffID), "size": length}
			changed = true
		}
	}
	if !changed {
		return i.manifest, nil
	}
	var err error
	if all["layers"], err = json.Marshal(layers); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

func quoted(s string) json.RawMessage { return json.RawMessage(`"` + s + `"`) }

// short is a digest as people read it.
func short(digest string) string {
	const shown = len("sha256:") + 12
	return digest[:min(len(digest), shown)]
}
