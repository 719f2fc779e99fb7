package podman

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
)

// standIn answers as much of Podman's API as images need, and notes what was asked.
type standIn struct {
	storage string
	listed  string // a container
	asked   []string
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body) //nolint:errcheck // what is sent does not matter
	_, path, _ := strings.Cut(r.URL.Path, "/libpod")
	s.asked = append(s.asked, path)
	switch path {
	case "/info":
		fmt.Fprintf(w, `{"store":{"graphRoot":%q}}`, s.storage)
	case "/containers/json":
		fmt.Fprintf(w, "[%s]", s.listed)
	case "/images/load":
		fmt.Fprint(w, `{"Names":["localhost/web:1"]}`)
	case "/images/pull":
		fmt.Fprint(w, `{"images":["0123"],"id":"0123"}`)
	default:
		w.Header().Set("Libpod-API-Version", "5.4.2")
	}
}

// startStandIn serves on a socket of its own until the test ends.
func startStandIn(t *testing.T, s *standIn) *Engine {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "podman.sock")
	l, err := net.Listen("unix", socket)
	must(t, err)
	srv := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }() //nolint:errcheck // it ends with the test
	t.Cleanup(func() { srv.Close(); <-done })
	return New(Config{Socket: "unix://" + socket})
}

// A container whose removal a full disk broke off has no files any more, and
// cannot be inspected. It is listed, so that it can be removed, as the others are.
func TestARemovalThatWasBrokenOffIsListed(t *testing.T) {
	const c = `{"Id":"0123","Names":["shop-web-1"],"State":"removing","Exited":true,"ExitCode":137,"StartedAt":1700000000,"Labels":{"uncloud.replica":"rep_1"}}`
	s := &standIn{listed: c}
	list, err := startStandIn(t, s).List(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != "0123" || list[0].State != runtime.Removing {
		t.Errorf("listed %+v, %v", list, err)
	}
	if slices.ContainsFunc(s.asked, func(path string) bool { return strings.HasPrefix(path, "/containers/0123") }) {
		t.Errorf("it was inspected: %q", s.asked)
	}
}

// TestImagesAreFlushed looks that an image is said to be here only when the
// file system of the storage has been flushed, and why it is not otherwise.
func TestImagesAreFlushed(t *testing.T) {
	for name, c := range map[string]struct {
		fails error
		code  faults.Code
		says  string
	}{
		"well":             {nil, "", ""},
		"the disk fails":   {syscall.EIO, faults.Internal, "image localhost/web:1 would not survive a power cut: input/output error"},
		"the disk is full": {syscall.ENOSPC, faults.DiskFull, "make image localhost/web:1 durable: no space left on the disk"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &standIn{storage: "/where/images/are"}
			e := startStandIn(t, s)
			var flushed []string
			e.flush = func(dir string) error { flushed = append(flushed, dir); return c.fails }
			take := map[string]func() error{
				"load": func() error { _, err := e.LoadImage(t.Context(), strings.NewReader("archive")); return err },
				"pull": func() error { return e.PullImage(t.Context(), "localhost/web:1") },
			}
			for verb, do := range take {
				err := do()
				if c.fails == nil {
					must(t, err)
				} else if f := faults.Of(err); err == nil || f.Code != c.code || f.Sentence != c.says {
					t.Errorf("%s: %v", verb, err)
				}
			}
			if !slices.Equal(flushed, []string{s.storage, s.storage}) {
				t.Errorf("flushed %v", flushed)
			}
			infos := slices.DeleteFunc(slices.Clone(s.asked), func(p string) bool { return p != "/info" })
			if len(infos) != 1 {
				t.Errorf("asked %v", s.asked)
			}
		})
	}
}

// TestFlushingEndsWithItsCaller: a disk may take minutes.
func TestFlushingEndsWithItsCaller(t *testing.T) {
	e := startStandIn(t, &standIn{storage: "/where/images/are"})
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	defer close(release)
	e.flush = func(string) error { cancel(); <-release; return nil }
	if _, err := e.LoadImage(ctx, strings.NewReader("archive")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestFlush(t *testing.T) {
	must(t, flush(t.TempDir()))
	if err := flush(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a directory that is not there was flushed")
	}
}
