package images

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"uncloud/agent/internal/runtime/podman"
	"uncloud/agent/internal/runtime/podman/podmantest"
	"uncloud/internal/faults"
)

func TestMain(m *testing.M) { os.Exit(podmantest.Run(m, nil)) }

func realPodman(t *testing.T) *podman.Engine {
	t.Helper()
	return podman.New(podman.Config{Socket: podmantest.Socket(t)})
}

// removeImage does what nobody but a person does.
func removeImage(ctx context.Context, socket, name string) error {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(socket, "unix://"))
	}}}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://podman/v5.0.0/libpod/images/"+url.PathEscape(name), http.NoBody)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusNotFound {
		return errors.New(answer.Status)
	}
	return nil
}

// fresh are layers that no earlier run has left in Podman.
func fresh(t *testing.T, kinds ...string) []blob {
	t.Helper()
	var out []blob
	for _, kind := range kinds {
		name := kind + rand.Text()
		switch kind {
		case "plain":
			out = append(out, plain(name))
		case "gzip":
			out = append(out, zipped(name))
		case "zstd":
			b := plain(name)
			var buf bytes.Buffer
			w, err := zstd.NewWriter(&buf)
			if err != nil {
				t.Fatal(err)
			}
			w.Write(b.content)
			w.Close()
			out = append(out, blob{buf.Bytes(), typeTar + "+zstd", b.diffID})
		}
	}
	return out
}

// arrive pushes and looks at what Podman then has.
func arrive(t *testing.T, s *Store, e *podman.Engine, p picture, want ...blob) {
	t.Helper()
	t.Cleanup(func() { removeImage(context.Background(), podmantest.Socket(t), p.name) })
	mustPush(t, s, p, want...)
	list, err := e.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.ID == p.id() && slices.Contains(i.Names, p.name) {
			layers, err := e.ImageLayers(t.Context(), p.name)
			if err != nil || !slices.Equal(layers, p.diffIDs()) {
				t.Errorf("%s has layers %q, %v, want %q", p.name, layers, err, p.diffIDs())
			}
			return
		}
	}
	t.Errorf("%s (%s) is not among %+v", p.name, p.id(), list)
}

func TestPodmanTakesImages(t *testing.T) {
	e := realPodman(t)
	s := newStore(t, e)
	b := fresh(t, "plain", "plain", "gzip", "gzip", "zstd", "plain")
	arrive(t, s, e, picture{name: "localhost/uncloud-push:1", blobs: b[:2]}, b[:2]...)
	arrive(t, s, e, picture{name: "localhost/uncloud-push:2", blobs: []blob{b[1], b[5], b[0], b[5]}}, b[5])
	arrive(t, s, e, picture{name: "localhost/uncloud-push:3", blobs: []blob{b[0], b[2], b[4], b[3]}}, b[2], b[4], b[3])
	arrive(t, s, e, picture{name: "localhost/uncloud-push:4", blobs: []blob{b[4], b[3], b[1]}})
	arrive(t, s, e, picture{name: "localhost/uncloud-push:5"})
	docker := fresh(t, "gzip", "plain")
	arrive(t, s, e, picture{"localhost/uncloud-push:6", []blob{b[2], docker[0], b[0], docker[1]}, true}, docker...)
	arrive(t, s, e, picture{name: "localhost/uncloud-push:7", blobs: []blob{docker[1], docker[0]}})
}

// Podman finds a compressed layer that it has in another form only by its diff
// id, so the manifest has to name it so.
func TestPodmanHasLayersInAnotherForm(t *testing.T) {
	e := realPodman(t)
	for _, docker := range []bool{false, true} {
		s := newStore(t, e)
		b := fresh(t, "gzip", "gzip")
		known := blob{mediaType: typeTar, diffID: b[0].diffID}
		known.content = unzipped(t, b[0])
		arrive(t, s, e, picture{name: "localhost/uncloud-base:1", blobs: []blob{known}}, known)
		p := picture{"localhost/uncloud-push:1", b, docker}
		t.Cleanup(func() { removeImage(context.Background(), podmantest.Socket(t), p.name) })
		if _, _, err := s.Receive(t.Context(), p.start(), stream(p.messages(b[0].digest()))); err != nil {
			t.Errorf("docker %v: %v", docker, err)
		}
		arrive(t, s, e, p, b[0]) // asked by digest, nobody can know
		arrive(t, s, e, p)
	}
}

func TestPodmanTakesALayerInTwoForms(t *testing.T) {
	e := realPodman(t)
	s := newStore(t, e)
	z := fresh(t, "gzip")[0]
	a := blob{unzipped(t, z), typeTar, z.diffID}
	arrive(t, s, e, picture{name: "localhost/uncloud-base:1", blobs: []blob{z}}, z)
	leave(t, s, a)
	arrive(t, s, e, picture{name: "localhost/uncloud-push:1", blobs: []blob{a, z}})
}

func TestPodmanForgot(t *testing.T) {
	e := realPodman(t)
	s := newStore(t, e)
	b := fresh(t, "plain", "gzip")
	p := picture{name: "localhost/uncloud-push:1", blobs: b}
	arrive(t, s, e, p, b...)
	if err := removeImage(t.Context(), podmantest.Socket(t), p.name); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Receive(t.Context(), p.start(), stream(nil))
	wantFault(t, err, faults.Invalid, "2 of the layers")
	arrive(t, s, e, p, b...)
}

func TestPodmanRefuses(t *testing.T) {
	e := realPodman(t)
	s := newStore(t, e)
	b := fresh(t, "gzip", "plain")
	b[0].diffID = b[1].diffID
	_, err := push(t, s, picture{name: "localhost/uncloud-push:1", blobs: b[:1]})
	if faults.CodeOf(err) != faults.Engine || !strings.Contains(err.Error(), "does not match config's DiffID") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

func TestPodmanGetsOneImageTwiceAtOnce(t *testing.T) {
	e := realPodman(t)
	s := newStore(t, e)
	b := fresh(t, "plain", "gzip")
	p := picture{name: "localhost/uncloud-push:1", blobs: b}
	errs := make(chan error)
	for range 3 {
		go func() { _, err := push(t, s, p); errs <- err }()
	}
	for range 3 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	arrive(t, s, e, p)
}

func unzipped(t *testing.T, b blob) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b.content))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
