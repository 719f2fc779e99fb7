package podman

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"slices"
	"testing"

	"uncloud/agent/internal/images"
)

// Image transfer is proven with the twin of an engine. Here it meets Podman,
// whose storage is what keeps the layers that are not sent again.

func gzipped(b blob) blob {
	buf := &bytes.Buffer{}
	w := gzip.NewWriter(buf)
	w.Write(b.content)
	w.Close()
	return blob{buf.Bytes()}
}

// push sends an image as the CLI does: what is lacking, and returns the
// digests of what it sent.
func push(t *testing.T, s *images.Store, name string, layers, sent []blob, mediaType string) []string {
	t.Helper()
	config := configBlob(layers, false)
	describe := func(kind string, b blob) map[string]any {
		return map[string]any{"mediaType": kind, "digest": b.digest(), "size": len(b.content)}
	}
	listed, digests := []any{}, []string{}
	for _, l := range sent {
		listed, digests = append(listed, describe(mediaType, l)), append(digests, l.digest())
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": describe("application/vnd.oci.image.config.v1+json", config), "layers": listed,
	})
	must(t, err)
	present, err := s.Present(t.Context(), digests)
	must(t, err)
	var lacking []blob
	for _, l := range sent {
		if !slices.Contains(present, l.digest()) {
			lacking = append(lacking, l)
		}
	}
	i := 0
	next := func() (string, []byte, error) {
		if i == len(lacking) {
			return "", nil, io.EOF
		}
		i++
		return lacking[i-1].digest(), lacking[i-1].content, nil
	}
	if _, _, err = s.Receive(t.Context(), images.Start{Name: name, Manifest: manifest, Config: config.content}, next); err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, l := range lacking {
		out = append(out, l.digest())
	}
	return out
}

func TestPushSendsOnlyMissingLayers(t *testing.T) {
	for mediaType, pack := range map[string]func(blob) blob{
		"application/vnd.oci.image.layer.v1.tar":      func(b blob) blob { return b },
		"application/vnd.oci.image.layer.v1.tar+gzip": gzipped,
	} {
		e := realPodman(t)
		s, err := images.New(images.Options{Dir: t.TempDir(), Engine: e})
		must(t, err)
		l := layers("p1"+mediaType, "p2"+mediaType, "p3"+mediaType)
		packed := []blob{pack(l[0]), pack(l[1]), pack(l[2])}
		if sent := push(t, s, imageA, l[:2], packed[:2], mediaType); len(sent) != 2 {
			t.Errorf("%s: first push sent %q", mediaType, sent)
		}
		second, order := []blob{l[2], l[1], l[0]}, []blob{packed[2], packed[1], packed[0]}
		if sent := push(t, s, imageB, second, order, mediaType); !slices.Equal(sent, []string{packed[2].digest()}) {
			t.Errorf("%s: second push sent %q", mediaType, sent)
		}
		got, err := e.ImageLayers(t.Context(), imageB)
		must(t, err)
		if !slices.Equal(got, []string{l[2].digest(), l[1].digest(), l[0].digest()}) {
			t.Errorf("%s: the engine has %q", mediaType, got)
		}
		must(t, removeImage(context.Background(), e, imageA))
		must(t, removeImage(context.Background(), e, imageB))
	}
}
