package push

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"uncloud/internal/faults"
)

// Image is an image of an archive: what says what it is, and its layers.
type Image struct {
	Name     string // with its tag, as the archive knows it; may be empty
	Manifest []byte // OCI image manifest
	Config   []byte
	Layers   []Layer // each once
}

// Layer is content of the archive.
type Layer struct {
	Digest string
	Size   int64
	open   func() (*io.SectionReader, error)
}

// Size is the size of all layers, in bytes.
func (i *Image) Size() int64 {
	var sum int64
	for _, l := range i.Layers {
		sum += l.Size
	}
	return sum
}

// Media types of the OCI image specification.
const (
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"

	mediaDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Annotations by which archives name images: containerd's is the whole name,
// the OCI's is whole or just the tag, as the program that wrote it likes.
const (
	annotationName = "io.containerd.image.name"
	annotationRef  = "org.opencontainers.image.ref.name"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

func (p *platform) String() string {
	if p == nil {
		return ""
	}
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

type index struct {
	Manifests []descriptor `json:"manifests"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

// Image is the archive's image for a platform such as linux/arm64; for an
// empty one, the only image there is.
func (a *Archive) Image(platform string) (*Image, error) {
	var image *Image
	var err error
	switch {
	case a.has("index.json"):
		image, err = a.ociImage(platform)
	case a.has("manifest.json"):
		image, err = a.dockerImage()
	default:
		err = faults.New(faults.Invalid, "the archive has neither an index.json nor a manifest.json").
			WithHint("make one: podman save --format oci-archive -o FILE IMAGE")
	}
	if err != nil {
		return nil, fmt.Errorf("read image archive: %w", err)
	}
	return image, nil
}

func (a *Archive) ociImage(platform string) (*Image, error) {
	found, err := a.manifests("index.json", "", 0)
	if err != nil {
		return nil, err
	}
	chosen, err := choose(found, platform)
	if err != nil {
		return nil, err
	}
	var m manifest
	if err := a.decode(blob(chosen.Digest), &m); err != nil {
		return nil, err
	}
	image := &Image{Name: nameOf(chosen.Annotations)}
	if image.Manifest, err = a.read(blob(chosen.Digest)); err != nil {
		return nil, err
	}
	if image.Config, err = a.read(blob(m.Config.Digest)); err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		if err := a.addLayer(image, l.Digest, blob(l.Digest)); err != nil {
			return nil, err
		}
	}
	return image, nil
}

// maxNesting bounds indexes within indexes: the outer one of an archive, and
// the one of a multi-platform image.
const maxNesting = 3

// manifests are the image manifests of an index and of those within it. An
// inner one has the name of the outer.
func (a *Archive) manifests(file, name string, depth int) ([]descriptor, error) {
	if depth == maxNesting {
		return nil, fmt.Errorf("%s is nested too deeply", file)
	}
	var i index
	if err := a.decode(file, &i); err != nil {
		return nil, err
	}
	var found []descriptor
	for _, d := range i.Manifests {
		if own := nameOf(d.Annotations); own == "" && name != "" {
			d.Annotations = map[string]string{annotationName: name}
		}
		switch d.MediaType {
		case mediaManifest, mediaDockerManifest, "":
			found = append(found, d)
		case mediaIndex, mediaDockerList:
			inner, err := a.manifests(blob(d.Digest), nameOf(d.Annotations), depth+1)
			if err != nil {
				return nil, err
			}
			found = append(found, inner...)
		}
	}
	return found, nil
}

func choose(found []descriptor, platform string) (descriptor, error) {
	// Attestations of a build are stored as images of no platform.
	found = slices.DeleteFunc(found, func(d descriptor) bool { return d.Platform != nil && d.Platform.OS == "unknown" })
	var names []string
	var fit []descriptor
	for _, d := range found {
		names = append(names, d.Platform.String())
		if platform == "" || d.Platform == nil || strings.HasPrefix(d.Platform.String()+"/", platform+"/") {
			fit = append(fit, d)
		}
	}
	switch {
	case len(found) == 0:
		return descriptor{}, faults.New(faults.Invalid, "the archive holds no image").
			WithHint("make it anew: podman save --format oci-archive -o FILE IMAGE")
	case len(fit) == 0:
		return descriptor{}, faults.New(faults.NoImage, "the archive has no image for %s", platform).WithHint("it has: %s", strings.Join(names, ", "))
	case len(fit) > 1:
		return descriptor{}, faults.New(faults.Invalid, "the archive holds %d images", len(fit)).WithHint("choose one with --platform: %s", strings.Join(names, ", "))
	}
	return fit[0], nil
}

func nameOf(annotations map[string]string) string {
	if name := annotations[annotationName]; name != "" {
		return name
	}
	if ref := annotations[annotationRef]; strings.ContainsAny(ref, "/:") {
		return ref
	}
	return ""
}

func (a *Archive) addLayer(image *Image, digest, file string) error {
	if slices.ContainsFunc(image.Layers, func(l Layer) bool { return l.Digest == digest }) {
		return nil
	}
	content, err := a.open(file)
	if err != nil {
		return err
	}
	image.Layers = append(image.Layers, Layer{Digest: digest, Size: content.Size(), open: func() (*io.SectionReader, error) { return a.open(file) }})
	return nil
}

// dockerImage reads what `docker save` wrote before it wrote OCI layouts, and
// makes the OCI manifest of it. Its layers are plain tar files, so the digest
// of each is the one that the config has of its content.
func (a *Archive) dockerImage() (*Image, error) {
	var images []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := a.decode("manifest.json", &images); err != nil {
		return nil, err
	}
	if len(images) != 1 {
		return nil, faults.New(faults.Invalid, "the archive holds %d images", len(images)).WithHint("save one at a time")
	}
	config, err := a.read(images[0].Config)
	if err != nil {
		return nil, err
	}
	digests, err := diffIDs(config)
	if err != nil {
		return nil, err
	}
	if len(digests) != len(images[0].Layers) {
		return nil, fmt.Errorf("its config has %d layers and its manifest %d", len(digests), len(images[0].Layers))
	}
	image := &Image{Name: strings.Join(images[0].RepoTags[:min(1, len(images[0].RepoTags))], ""), Config: config}
	m := manifest{SchemaVersion: 2, MediaType: mediaManifest, Config: describe(mediaConfig, config), Layers: []descriptor{}}
	for i, file := range images[0].Layers {
		content, err := a.open(file)
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, descriptor{MediaType: mediaLayer, Digest: digests[i], Size: content.Size()})
		if err := a.addLayer(image, digests[i], file); err != nil {
			return nil, err
		}
	}
	image.Manifest, err = json.Marshal(m)
	return image, err
}

func diffIDs(config []byte) ([]string, error) {
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("config of the image: %w", err)
	}
	return c.RootFS.DiffIDs, nil
}

func describe(mediaType string, content []byte) descriptor {
	sum := sha256.Sum256(content)
	return descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(content))}
}
