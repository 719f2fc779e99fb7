package images

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"uncloud/internal/faults"
)

// world is a machine that images are pushed to, in good and bad ways.
type world struct {
	t      *rapid.T
	engine *engine
	store  *Store
	dir    string
	limits func(*Options)
}

func (w *world) Context() context.Context { return context.Background() }

func (w *world) start(t testing.TB) { w.store = newStore(t, w.engine, w.limits) }

// blobs are the layers of all pictures, by the names that a failure prints.
var blobs = func() map[string]blob {
	out := map[string]blob{}
	for _, n := range []string{"a", "b", "c", "d"} {
		out[n], out[n+".gz"] = plain(n), zipped(n)
	}
	return out
}()

func (w *world) picture() picture {
	p := picture{
		name:   rapid.SampledFrom([]string{"shop:1", "shop:2", "localhost/web:1"}).Draw(w.t, "name"),
		docker: rapid.Bool().Draw(w.t, "docker"),
	}
	for _, n := range rapid.SliceOfN(rapid.SampledFrom(slices.Sorted(maps.Keys(blobs))), 0, 5).Draw(w.t, "layers") {
		p.blobs = append(p.blobs, blobs[n])
	}
	return p
}

// disturb makes a push go wrong somewhere.
func (w *world) disturb(messages []message) []message {
	out := slices.Clone(messages)
	at := rapid.IntRange(0, len(out)).Draw(w.t, "at")
	switch rapid.SampledFrom([]string{"cut", "break", "drop", "flip", "double"}).Draw(w.t, "how") {
	case "cut":
		return out[:at]
	case "break":
		return append(out[:at], message{err: errors.New("reset")})
	case "drop":
		return slices.Delete(out, at, min(at+1, len(out)))
	case "flip":
		if at < len(out) && len(out[at].chunk) > 0 {
			out[at].chunk = slices.Clone(out[at].chunk)
			out[at].chunk[0] ^= 1
		}
	case "double":
		out = slices.Insert(out, at, out[:at]...)
	}
	return out
}

// badPush may end in any way, but with a fault, and not with a wrong image.
func (w *world) badPush() {
	p := w.picture()
	present, err := w.store.Present(w.Context(), p.digests())
	if err != nil {
		w.t.Fatal(err)
	}
	_, _, err = w.store.Receive(w.Context(), p.start(), stream(w.disturb(p.messages(present...))))
	if err == nil && !w.engine.has(p) {
		w.t.Fatalf("%s is said to have arrived", p.name)
	}
	if err != nil && faults.CodeOf(err) == faults.Internal {
		w.t.Fatalf("unexplained: %v", err)
	}
}

func (w *world) goodPush() {
	p := w.picture()
	if _, err := push(w, w.store, p); err != nil || !w.engine.has(p) {
		w.t.Fatalf("push of %s: %v", p.name, err)
	}
}

// check holds whenever no push is under way.
func (w *world) check() {
	list, _ := os.ReadDir(w.dir)
	var sum int64
	for _, f := range list {
		digest := strings.Replace(f.Name(), "-", ":", 1)
		if f.Type().IsRegular() {
			content, _ := os.ReadFile(filepath.Join(w.dir, f.Name()))
			sum += int64(len(content))
			if digestOf(content) != digest {
				w.t.Fatalf("%s has other content", f.Name())
			}
			continue
		}
		target, _ := os.Readlink(filepath.Join(w.dir, f.Name()))
		if !slices.ContainsFunc(slices.Collect(maps.Values(blobs)), func(b blob) bool { return b.digest() == digest && fileName(b.diffID) == target }) {
			w.t.Fatalf("%s is said to unpack to %q", f.Name(), target)
		}
	}
	if o := w.store.spool; sum > o.maxBytes || len(list) > o.maxEntries || len(list) != len(o.entries) || len(o.pins) != 0 {
		w.t.Fatalf("%d bytes in %d files, %d entries, %d pins", sum, len(list), len(o.entries), len(o.pins))
	}
}

// However pushes end, the spool tells the truth and stays in its limits, what
// is said to have arrived has, and a push that is not disturbed succeeds.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: rt, engine: newEngine()}
		w.dir = filepath.Join(t.TempDir(), "images")
		maxBytes, maxEntries := rapid.Int64Range(1, 20_000).Draw(rt, "bytes"), rapid.IntRange(1, 8).Draw(rt, "entries")
		w.limits = func(o *Options) { o.Dir, o.MaxBytes, o.MaxEntries = w.dir, maxBytes, maxEntries }
		w.start(t)
		rt.Repeat(map[string]func(*rapid.T){
			"good push": func(*rapid.T) { w.goodPush() },
			"bad push":  func(*rapid.T) { w.badPush() },
			"prune":     func(*rapid.T) { w.engine.prune() },
			"restart": func(*rapid.T) {
				w.start(t)
				if err := w.store.Tidy(); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(*rapid.T) { w.check() },
		})
	})
}
