package images

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"uncloud/internal/faults"
)

// change is a start whose manifest was edited as JSON.
func change(p picture, edit func(m map[string]any)) Start {
	s := p.start()
	var m map[string]any
	json.Unmarshal(s.Manifest, &m)
	edit(m)
	s.Manifest, _ = json.Marshal(m)
	return s
}

func layerOf(m map[string]any, n int) map[string]any {
	return m["layers"].([]any)[n].(map[string]any)
}

func TestWhatIsNoImage(t *testing.T) {
	p := picture{name: "shop:1", blobs: []blob{plain("a"), zipped("b")}}
	named := func(name string) Start { s := p.start(); s.Name = name; return s }
	many := picture{name: "shop:1", blobs: slices.Repeat([]blob{plain("a")}, MaxLayers+1)}
	for what, c := range map[string]struct {
		start Start
		words string
	}{
		"no name":           {named(""), "is no name"},
		"upper case":        {named("Shop:1"), "is no name"},
		"a digest":          {named("shop@" + p.digests()[0]), "is no name"},
		"a path":            {named("../shop"), "is no name"},
		"an option":         {named("-rf"), "is no name"},
		"a long name":       {named(strings.Repeat("a", maxName+1)), "is no name"},
		"no manifest":       {Start{Name: "shop:1"}, "manifest of image shop:1 is not readable"},
		"a large manifest":  {Start{Name: "shop:1", Manifest: make([]byte, MaxDocument+1)}, "larger than 4 MiB"},
		"a large config":    {Start{Name: "shop:1", Config: make([]byte, MaxDocument+1)}, "larger than 4 MiB"},
		"an index":          {change(p, func(m map[string]any) { m["mediaType"] = "application/vnd.oci.image.index.v1+json" }), "unknown type"},
		"other config":      {change(p, func(m map[string]any) { m["config"].(map[string]any)["digest"] = p.digests()[0] }), "not the one of its manifest"},
		"other config size": {change(p, func(m map[string]any) { m["config"].(map[string]any)["size"] = 1 }), "not the one of its manifest"},
		"an artifact": {change(p, func(m map[string]any) {
			m["config"].(map[string]any)["mediaType"] = "application/vnd.oci.empty.v1+json"
		}), "no container image"},
		"encrypted":          {change(p, func(m map[string]any) { layerOf(m, 1)["mediaType"] = typeTar + "+gzip+encrypted" }), "unknown type"},
		"foreign":            {change(p, func(m map[string]any) { layerOf(m, 1)["mediaType"] = typeDockerTar + ".foreign" }), "unknown type"},
		"sha512":             {change(p, func(m map[string]any) { layerOf(m, 1)["digest"] = "sha512:" + strings.Repeat("a", 128) }), "no sha256 digest"},
		"a path as digest":   {change(p, func(m map[string]any) { layerOf(m, 1)["digest"] = "sha256:../../../etc/passwd" }), "no sha256 digest"},
		"negative size":      {change(p, func(m map[string]any) { layerOf(m, 1)["size"] = -1 }), "cannot be -1 bytes"},
		"endless":            {change(p, func(m map[string]any) { layerOf(m, 1)["size"] = int64(maxLayer + 1) }), "bytes long"},
		"wrong plain digest": {change(p, func(m map[string]any) { layerOf(m, 0)["digest"] = plain("x").digest() }), "not the one of its config"},
		"fewer layers":       {change(p, func(m map[string]any) { m["layers"] = m["layers"].([]any)[:1] }), "1 layers in its manifest and 2 in its config"},
		"many layers":        {many.start(), "at most 512"},
		"two of one digest": {change(picture{name: "shop:1", blobs: []blob{zipped("a"), zipped("b")}}, func(m map[string]any) {
			layerOf(m, 1)["digest"] = zipped("a").digest()
		}), "two layers with the digest"},
	} {
		s := newStore(t, newEngine())
		_, _, err := s.Receive(t.Context(), c.start, func() (string, []byte, error) {
			t.Errorf("%s: layers were asked for", what)
			return "", nil, errors.New("no")
		})
		if f := faults.Of(err); f == nil || f.Code != faults.Invalid || !strings.Contains(f.Sentence, c.words) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNamesThatAreTaken(t *testing.T) {
	for _, name := range []string{"shop", "shop:1", "localhost/shop:1", "example.com:5000/team/shop_a.b--c:v1.2-RC", "docker.io/library/nginx:1", "team/shop__x:latest"} {
		e := newEngine()
		mustPush(t, newStore(t, e), picture{name: name, blobs: []blob{plain("a")}}, plain("a"))
	}
}

func TestWrongContent(t *testing.T) {
	a, b := plain("a"), plain("b")
	p := picture{name: "shop:1", blobs: []blob{a, b}}
	flipped := slices.Clone(b.content)
	flipped[len(flipped)/2] ^= 1
	for what, c := range map[string]struct {
		of    []message // after a, which is right
		words string
	}{
		"a flipped bit":          {[]message{{digest: b.digest(), chunk: flipped}}, "arrived damaged: it has the content of sha256:"},
		"too long":               {[]message{{digest: b.digest(), chunk: b.content}, {chunk: []byte("x")}}, "is longer than"},
		"too short":              {[]message{{digest: b.digest(), chunk: b.content[:10]}}, "ended after 10 of"},
		"too short, then others": {[]message{{digest: b.digest()}, {digest: a.digest()}}, "ended after 0 of"},
		"no layer of it":         {[]message{{digest: plain("x").digest()}}, "no layer of image shop:1"},
		"a digest that is none":  {[]message{{digest: strings.Repeat("../", 100)}}, "no layer of image shop:1"},
	} {
		t.Run(what, func(t *testing.T) {
			e := newEngine()
			s := newStore(t, e)
			_, _, err := s.Receive(t.Context(), p.start(), stream(append(p.messages(b.digest()), c.of...)))
			wantFault(t, err, faults.Invalid, c.words)
			if got := files(t, s); !slices.Equal(got, []string{fileName(a.digest())}) {
				t.Errorf("the spool keeps %q", got)
			}
			mustPush(t, s, p, b)
		})
	}
	s := newStore(t, newEngine())
	_, _, err := s.Receive(t.Context(), p.start(), stream([]message{{chunk: a.content}}))
	wantFault(t, err, faults.Invalid, "content came before its digest")
}

// A digest may be said again with each chunk, or together with the content.
func TestDigestsSaidOftener(t *testing.T) {
	a, b := plain("a"), zipped("b")
	p := picture{name: "shop:1", blobs: []blob{a, b}}
	messages := []message{
		{}, {digest: a.digest(), chunk: a.content[:5]}, {}, {digest: a.digest(), chunk: a.content[5:]}, {digest: a.digest()},
		{digest: b.digest(), chunk: b.content}, {digest: a.digest(), chunk: []byte("is here: whatever")},
	}
	e := newEngine()
	if _, _, err := newStore(t, e).Receive(t.Context(), p.start(), stream(messages)); err != nil || !e.has(p) {
		t.Error(err)
	}
}

func TestInterruptedPush(t *testing.T) {
	a, b, c := plain("a"), zipped("b"), plain("c")
	p := picture{name: "shop:1", blobs: []blob{a, b, c}}
	all := p.messages()
	for n := range all {
		e := newEngine()
		s := newStore(t, e)
		_, _, err := s.Receive(t.Context(), p.start(), stream(append(slices.Clone(all[:n]), message{err: errors.New("connection reset")})))
		wantFault(t, err, faults.Interrupted, "the push of shop:1 was interrupted")
		present, err := s.Present(t.Context(), p.digests())
		if err != nil || len(present) != len(files(t, s)) {
			t.Fatalf("after %d messages: %q, %v, files %q", n, present, err, files(t, s))
		}
		sent, err := push(t, s, p)
		if err != nil || len(sent)+len(present) != 3 || !e.has(p) {
			t.Errorf("after %d messages: sent %q, %v", n, sent, err)
		}
	}
}

func TestEndedContext(t *testing.T) {
	p := picture{name: "shop:1", blobs: []blob{plain("a")}}
	s := newStore(t, newEngine())
	ctx, cancel := context.WithCancel(t.Context())
	next := stream(p.messages())
	_, received, err := s.Receive(ctx, p.start(), func() (string, []byte, error) {
		d, c, err := next()
		if len(c) > 0 {
			cancel()
		}
		return d, c, err
	})
	wantFault(t, err, faults.Interrupted, "interrupted")
	if received != chunkSize || len(files(t, s)) != 0 {
		t.Errorf("received %d, the spool keeps %q", received, files(t, s))
	}
}
