package images

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"uncloud/internal/faults"
)

func TestPush(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	a, b, c := plain("a"), plain("b"), plain("c")
	first := picture{name: "shop:1", blobs: []blob{a, b}}
	mustPush(t, s, first, a, b)
	second := picture{name: "shop:2", blobs: []blob{b, c, a, c}}
	mustPush(t, s, second, c)
	if !e.has(first) || !e.has(second) {
		t.Errorf("the engine has %v", e.names)
	}
	if slices.Contains(e.loaded, a.digest()) || !slices.Contains(e.loaded, c.digest()) {
		t.Errorf("the archive held %q", e.loaded)
	}
	if left := files(t, s); len(left) != 0 {
		t.Errorf("the spool keeps %q, which the engine has", left)
	}
	mustPush(t, s, second) // again: only the name is told
	e.prune()
	mustPush(t, s, second, b, c, a)
}

// The engine knows compressed layers by other digests than the client.
func TestPushOfCompressedLayers(t *testing.T) {
	for _, docker := range []bool{false, true} {
		e := newEngine()
		s := newStore(t, e)
		a, b := zipped("a"), zipped("b")
		first := picture{"shop:1", []blob{a, b}, docker}
		mustPush(t, s, first, a, b)
		if got := files(t, s); len(got) != 2 || !slices.Contains(got, fileName(a.digest())+" -> "+fileName(a.diffID)) {
			t.Errorf("spool: %q", got)
		}
		again := newStore(t, e, func(o *Options) { o.Dir = s.spool.dir }) // what it knows survives
		c := zipped("c")
		second := picture{"shop:2", []blob{a, c, b}, docker}
		mustPush(t, again, second, c)
		if !e.has(first) || !e.has(second) {
			t.Errorf("docker %v: the engine has %v", docker, e.names)
		}
		mustPush(t, again, picture{name: "shop:3", blobs: []blob{plain("a"), c}, docker: docker}) // by its content
		e.prune()
		mustPush(t, again, first, a, b)
	}
}

// A client may have asked for what a layer unpacks to.
func TestCompressedLayerThatTheEngineHasOtherwise(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	mustPush(t, s, picture{name: "base:1", blobs: []blob{plain("a")}}, plain("a"))
	p := picture{name: "shop:1", blobs: []blob{zipped("a"), zipped("b")}}
	_, _, err := s.Receive(t.Context(), p.start(), stream(p.messages(zipped("a").digest())))
	if err != nil || !e.has(p) {
		t.Errorf("%v; the engine has %v", err, e.names)
	}
}

// One layer in two forms: one of them in the archive, the other left out.
func TestLayerInTwoForms(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	a, z := plain("a"), zipped("a")
	base := picture{name: "base:1", blobs: []blob{z}}
	mustPush(t, s, base, z)
	leave(t, s, a)
	p := picture{name: "shop:1", blobs: []blob{a, z}}
	mustPush(t, s, p)
	if !e.has(p) || !slices.Contains(e.loaded, a.digest()) {
		t.Errorf("the archive held %q", e.loaded)
	}
}

func TestRewrittenManifestKeepsTheRest(t *testing.T) {
	p := picture{name: "shop:1", blobs: []blob{zipped("a"), zipped("b")}}
	img, err := parse(p.start())
	if err != nil {
		t.Fatal(err)
	}
	same, err := img.without(nil)
	if err != nil || string(same) != string(img.manifest) {
		t.Errorf("changed without need: %s, %v", same, err)
	}
	text, err := img.without(map[string]bool{p.blobs[0].digest(): true})
	if err != nil || !strings.Contains(string(text), `"annotations":{"kept":"yes"}`) || !strings.Contains(string(text), p.blobs[1].digest()) ||
		!strings.Contains(string(text), p.blobs[0].diffID) || strings.Contains(string(text), p.blobs[0].digest()) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestPresent(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	p := picture{name: "shop:1", blobs: []blob{plain("a"), zipped("b")}}
	mustPush(t, s, p, p.blobs...)
	config := "sha256:" + p.id()
	asked := e.asked
	got, err := s.Present(t.Context(), []string{plain("x").digest(), p.blobs[1].digest(), "", "sha256:../../x", config, p.blobs[1].diffID, p.blobs[0].digest()})
	if want := []string{p.blobs[1].digest(), config, p.blobs[1].diffID, p.blobs[0].digest()}; err != nil || !slices.Equal(got, want) {
		t.Errorf("present %q, %v, want %q", got, err, want)
	}
	s.Present(t.Context(), nil)
	if e.asked > asked+1 {
		t.Errorf("images were inspected %d times more", e.asked-asked)
	}
}

func TestEngineInTrouble(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	a, b := picture{name: "a:1", blobs: []blob{plain("a")}}, picture{name: "b:1", blobs: []blob{plain("a"), plain("b")}}
	mustPush(t, s, a, plain("a"))
	e.broken[a.id()] = errors.New("layer not known")
	again := newStore(t, e)
	mustPush(t, again, b, plain("a"), plain("b")) // one damaged image is in nobody's way

	e.down = faults.New(faults.Engine, "Podman does not answer")
	_, err := s.Present(t.Context(), a.digests())
	wantFault(t, err, faults.Engine, "does not answer")
	_, _, err = s.Receive(t.Context(), a.start(), func() (string, []byte, error) {
		t.Error("layers were asked for")
		return "", nil, errors.New("no")
	})
	wantFault(t, err, faults.Engine, "does not answer")
}

// The engine tells of a layer and does not find it, as when its storage is
// damaged. The second push must not trust it again.
func TestEngineThatLostALayer(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	a, b := plain("a"), plain("b")
	mustPush(t, s, picture{name: "base:1", blobs: []blob{a}}, a)
	e.lost[a.digest()] = true
	p := picture{name: "shop:1", blobs: []blob{a, b}}
	_, err := push(t, s, p)
	wantFault(t, err, faults.Engine, "no such file")
	mustPush(t, s, p, a) // b is in the spool
	delete(e.lost, a.digest())
	mustPush(t, s, picture{name: "shop:2", blobs: []blob{b, a}})
}

func TestLayersThatDoNotCome(t *testing.T) {
	s := newStore(t, newEngine())
	p := picture{name: "shop:1", blobs: []blob{plain("a"), plain("b"), plain("c")}}
	_, _, err := s.Receive(t.Context(), p.start(), stream(p.messages(plain("a").digest(), plain("c").digest())))
	wantFault(t, err, faults.Invalid, "2 of the layers of image shop:1 are neither on this machine nor were they sent")
	if hint := faults.Of(err).Hint; hint != "push again: uc image push shop:1" {
		t.Errorf("hint %q", hint)
	}
	mustPush(t, s, p, plain("a"), plain("c"))
}

// A digest is taken to unpack to what the engine found, not to what a later
// config says.
func TestConfigThatLies(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	a := zipped("a")
	mustPush(t, s, picture{name: "good:1", blobs: []blob{a, plain("b")}}, a, plain("b"))
	lie := picture{name: "bad:1", blobs: []blob{{a.content, a.mediaType, plain("b").diffID}}}
	_, err := push(t, s, lie)
	wantFault(t, err, faults.Invalid, "neither on this machine nor were they sent")
	_, err = push(t, s, lie)
	wantFault(t, err, faults.Engine, "does not match")
	mustPush(t, s, picture{name: "good:2", blobs: []blob{plain("b"), a}}) // it lies in the spool now
}

func TestDamagedSpool(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	a, b := plain("a"), plain("b")
	p := picture{name: "shop:1", blobs: []blob{a, b}}
	s.Receive(t.Context(), p.start(), stream(p.messages(b.digest())))
	damaged := slices.Clone(a.content)
	damaged[600] ^= 1
	if err := os.WriteFile(s.spool.path(a.digest()), damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := push(t, s, p)
	wantFault(t, err, faults.Internal, "damaged on the disk of this machine")
	mustPush(t, s, p, a)
}

func TestSpoolCleanedByHand(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	p := picture{name: "shop:1", blobs: []blob{plain("a"), zipped("b")}}
	s.Receive(t.Context(), p.start(), stream(p.messages(p.blobs[1].digest())))
	os.RemoveAll(s.spool.dir)
	mustPush(t, s, p, p.blobs...)
	os.RemoveAll(s.spool.dir)
	mustPush(t, s, p) // remembered
	mustPush(t, newStore(t, e, func(o *Options) { o.Dir = s.spool.dir }), p, p.blobs[1])
}

func TestConcurrentPushes(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	same := picture{name: "shop:1", blobs: []blob{plain("a"), zipped("b"), plain("c")}}
	var group sync.WaitGroup
	for n := range 12 {
		group.Go(func() {
			p := same
			if n%3 == 0 {
				p = picture{name: "other:" + string(rune('a'+n)), blobs: []blob{zipped("b"), plain("a"), plain(string(rune('a' + n)))}}
			}
			if _, err := push(t, s, p); err != nil {
				t.Errorf("push %d: %v", n, err)
			}
			if !e.has(p) {
				t.Errorf("image %d is not there", n)
			}
		})
	}
	group.Wait()
	if got := files(t, s); len(got) != 1 || got[0] != fileName(zipped("b").digest())+" -> "+fileName(zipped("b").diffID) {
		t.Errorf("the spool keeps %q", got)
	}
}

// Of two pushes that send one layer, the slower one discards the rest of it,
// and neither waits for the other.
func TestSlowerPushDiscards(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	p := picture{name: "shop:1", blobs: []blob{plain("a")}}
	messages := p.messages()
	n := 0
	_, received, err := s.Receive(t.Context(), p.start(), func() (string, []byte, error) {
		if n++; n == 3 {
			first := picture{name: "shop:0", blobs: []blob{plain("a"), plain("b")}}
			s.Receive(t.Context(), first.start(), stream(first.messages(plain("b").digest())))
			for i := range messages {
				messages[i].chunk = make([]byte, len(messages[i].chunk)) // nobody may read these
			}
		}
		return stream(messages[min(n-1, len(messages)):])()
	})
	if err != nil || received != int64(len(p.blobs[0].content)) || !e.has(p) {
		t.Errorf("received %d, %v", received, err)
	}
}

// The first to finish must not take layers away that the second is about to
// load, while the engine has lost them again.
func TestLayersStayForTheOtherPush(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	p := picture{name: "shop:1", blobs: []blob{plain("a"), zipped("b")}}
	messages := p.messages()
	n := 0
	_, _, err := s.Receive(t.Context(), p.start(), func() (string, []byte, error) {
		if n++; n == len(messages) {
			other := p
			other.name = "shop:2"
			if _, err := push(t, s, other); err != nil {
				t.Error(err)
			}
			e.prune()
		}
		return stream(messages[min(n-1, len(messages)):])()
	})
	if err != nil || !e.has(p) {
		t.Errorf("%v", err)
	}
	if got := files(t, s); len(got) != 1 {
		t.Errorf("the spool keeps %q", got)
	}
}

func TestCancelledLoad(t *testing.T) {
	e := newEngine()
	s := newStore(t, e)
	p := picture{name: "shop:1", blobs: []blob{plain("a")}}
	ctx, cancel := context.WithCancel(t.Context())
	e.onLoad = func() error { cancel(); return ctx.Err() }
	_, _, err := s.Receive(ctx, p.start(), stream(p.messages()))
	wantFault(t, err, faults.Interrupted, "interrupted")
	e.onLoad = nil
	mustPush(t, s, p) // all of it had arrived
}

func TestNothingIsTouchedBeforeItIsNeeded(t *testing.T) {
	s := newStore(t, newEngine())
	if _, err := os.Stat(s.spool.dir); !os.IsNotExist(err) {
		t.Errorf("New made the directory: %v", err)
	}
	for _, o := range []Options{{Engine: newEngine()}, {Dir: "relative", Engine: newEngine()}, {Dir: t.TempDir()}} {
		if _, err := New(o); err == nil {
			t.Errorf("New took %+v", o)
		}
	}
}

func TestStartAfterACut(t *testing.T) {
	e := newEngine()
	dir := t.TempDir()
	a := plain("a")
	write := func(name string, content []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("part-123", a.content[:100])
	write("notes.txt", []byte("not ours"))
	write(fileName(a.digest()), a.content)
	os.Symlink("/etc/passwd", filepath.Join(dir, fileName(plain("evil").digest())))
	s := newStore(t, e, func(o *Options) { o.Dir = dir })
	if err := s.Tidy(); err != nil {
		t.Fatal(err)
	}
	if got := files(t, s); len(got) != 3 || slices.Contains(got, "part-123") {
		t.Errorf("files %q", got)
	}
	mustPush(t, s, picture{name: "shop:1", blobs: []blob{a, plain("evil")}}, plain("evil"))
}
