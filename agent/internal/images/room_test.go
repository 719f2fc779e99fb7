package images

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"uncloud/internal/faults"
)

// leave has a push fail after its layers have come, so that they stay.
func leave(t *testing.T, s *Store, blobs ...blob) {
	t.Helper()
	missing := plain("z")
	p := picture{name: "left:1", blobs: append(slices.Clone(blobs), missing)}
	_, _, err := s.Receive(t.Context(), p.start(), stream(p.messages(missing.digest())))
	wantFault(t, err, faults.Invalid, "1 of the layers")
}

func kept(s *Store, blobs ...blob) string {
	out := ""
	for i, b := range blobs {
		if _, err := os.Lstat(s.spool.path(b.digest())); err == nil {
			out += string(rune('a' + i))
		}
	}
	return out
}

func TestLimitOfBytes(t *testing.T) {
	a, b, c, d := plain("a"), plain("b"), plain("c"), plain("d")
	length := int64(len(a.content))
	s := newStore(t, newEngine(), func(o *Options) { o.MaxBytes = 2 * length })
	leave(t, s, a)
	leave(t, s, b)
	s.Present(t.Context(), []string{a.digest()}) // a use
	leave(t, s, c)
	if got := kept(s, a, b, c, d); got != "ac" {
		t.Errorf("kept %q", got)
	}
	leave(t, s, a, b, c, d) // more than fits; all are needed until the push ends
	if got := kept(s, a, b, c, d); len(got) != 2 {
		t.Errorf("kept %q", got)
	}
	first := s.spool.path(b.digest()) // after a start the oldest go first
	leave(t, s, a, b)
	if err := os.Chtimes(first, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	again := newStore(t, newEngine(), func(o *Options) { o.Dir, o.MaxBytes = s.spool.dir, length })
	if err := again.Tidy(); err != nil || kept(again, a, b, c, d) != "a" {
		t.Errorf("kept %q, %v", kept(again, a, b, c, d), err)
	}
	again = newStore(t, newEngine(), func(o *Options) { o.Dir, o.MaxBytes = s.spool.dir, length-1 })
	if err := again.Tidy(); err != nil || kept(again, a, b, c, d) != "" {
		t.Errorf("kept %q, %v", kept(again, a, b, c, d), err)
	}
}

func TestLimitOfEntries(t *testing.T) {
	e := newEngine()
	s := newStore(t, e, func(o *Options) { o.MaxEntries = 3 })
	var all []blob
	for n := range 5 {
		b := zipped(fmt.Sprint(n))
		all = append(all, b)
		mustPush(t, s, picture{name: fmt.Sprintf("shop:%d", n), blobs: []blob{b}}, b)
	}
	if got := kept(s, all...); got != "cde" {
		t.Errorf("kept %q", got)
	}
}

func TestReserveOfTheDisk(t *testing.T) {
	const reserve = 100
	a, b, c := plain("a"), plain("b"), plain("c")
	length := int64(len(a.content))
	disk := reserve + 2*length
	var s *Store
	free := func(dir string) (int64, error) {
		list, err := os.ReadDir(dir)
		left := disk
		for _, f := range list {
			if info, err := f.Info(); err == nil && info.Mode().IsRegular() {
				left -= info.Size()
			}
		}
		return left, err
	}
	e := newEngine()
	s = newStore(t, e, func(o *Options) { o.MinFree, o.Free = reserve, free })

	_, err := push(t, s, picture{name: "large:1", blobs: []blob{a, b, c}})
	wantFault(t, err, faults.DiskFull, "too little for")
	if got := files(t, s); len(got) != 0 {
		t.Errorf("something was stored: %q", got)
	}

	leave(t, s, a)                                                                    // claims the space of two
	mustPush(t, s, picture{name: "other:1", blobs: []blob{b, c}}, b, c)               // evicts a
	mustPush(t, s, picture{name: "shop:1", blobs: []blob{b, plain("x")}}, plain("x")) // the engine has b

	leave(t, s, a) // the disk fills while a push is under way
	p := picture{name: "late:1", blobs: []blob{a, plain("y")}}
	messages := p.messages(a.digest())
	n := 0
	_, _, err = s.Receive(t.Context(), p.start(), func() (string, []byte, error) {
		if n++; n == 4 {
			disk = reserve + length
		}
		return stream(messages[min(n-1, len(messages)):])()
	})
	wantFault(t, err, faults.DiskFull, "too little for")
	if faults.Of(err).Hint == "" {
		t.Error("no hint")
	}
	if got := kept(s, a); got != "a" {
		t.Errorf("what the push needed is gone: %q", files(t, s))
	}
	disk = 0
	s.Tidy()
	if got := files(t, s); len(got) != 0 {
		t.Errorf("the spool keeps %q of a full disk", got)
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("needs to mount a small disk: %s", out)
	}
	defer exec.Command("umount", dir).Run()
	s := newStore(t, newEngine(), func(o *Options) { o.Dir = filepath.Join(dir, "images") })
	p := picture{name: "shop:1", blobs: []blob{plain("a"), plain("b"), plain("c"), plain("d"), plain("e"), plain("f")}}
	_, err := push(t, s, p)
	wantFault(t, err, faults.DiskFull, "no space left on the disk")
	for _, f := range files(t, s) {
		if _, err := os.Stat(filepath.Join(dir, "images", f)); err != nil || f[:5] == partPrefix {
			t.Errorf("%s is left, %v", f, err)
		}
	}
	honest := newStore(t, newEngine(), func(o *Options) { o.Dir, o.Free, o.MinFree = s.spool.dir, nil, 1 })
	_, err = push(t, honest, picture{name: "shop:1", blobs: append(p.blobs, plain("g"), plain("h"))})
	wantFault(t, err, faults.DiskFull, "too little for")
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 4 << 20: "4 MiB", 3 << 40: "3 TiB", 5000 << 40: "5000 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
