package hostos

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// awaits looks until something is so; a build in another process wakes nobody.
func (d *double) awaits(what string, so func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatal("waited in vain:", what)
		}
	}
}

func (d *double) there(path string) bool {
	_, err := os.Lstat(filepath.Join(d.root, path))
	return err == nil
}

// begins runs a host on the double with an order; the error of its end follows.
func (d *double) begins(o Order) (*Client, chan error) {
	d.t.Helper()
	h := New(Options{Dir: d.os.Dir, Machine: d.os, Log: slog.New(slog.DiscardHandler)})
	client := NewClient(d.root, d.os.Dir)
	if err := client.Order(o); err != nil {
		d.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(d.t.Context()) }()
	return client, ended
}

// A build that takes long is broken off when the upgrade is ended, with all
// that it started: also what does not listen, or outlives its parent.
func TestABuildIsBrokenOff(t *testing.T) {
	for name, parent := range map[string]string{"ends with its parent": "", "deaf parent": "trap '' TERM"} {
		t.Run(name, func(t *testing.T) {
			d := newDouble(t)
			d.os.grace = 200 * time.Millisecond
			d.program("nix", parent+`
				(trap '' TERM; echo $(sh -c 'echo $PPID') >"$ROOT/child.new"; mv "$ROOT/child.new" "$ROOT/child"; while :; do sleep 60; done) &
				wait; while :; do sleep 60; done`)
			o := Order{ID: "upg_1", Want: WantStage, Target: Target{Flake: "good", Name: "m1"}, Within: time.Minute}
			client, ended := d.begins(o)
			d.awaits("it builds", func() bool { return d.there("child") })
			o.Want, o.Reason = WantStop, "the upgrade was ended"
			if err := client.Order(o); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			if a, err := client.Attempt(); err != nil || a.Step != Failed || a.Error != "the upgrade was ended" {
				t.Errorf("%+v %v", a, err)
			}
			d.awaits("its child ends", func() bool { return !d.lives("child") })
		})
	}
}

// lives tells whether the process whose id a file holds runs; one that has
// ended may still wait for its parent to be asked for.
func (d *double) lives(file string) bool {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.root, file))
	if err != nil {
		d.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		d.t.Fatal(err)
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return unix.Kill(pid, 0) == nil && err == nil && !strings.Contains(string(stat), ") Z ")
}

// stuck is a machine whose builds never end.
type stuck struct{ *Twin }

func (stuck) Stage(ctx context.Context, _ Target) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

func TestABuildThatHangsFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		twin := NewTwin(oldSystem, time.Now)
		h, client := twin.Pair(Options{Log: slog.New(slog.DiscardHandler)})
		h.Machine = stuck{twin}
		if err := client.Order(Order{ID: "upg_1", Want: WantGo, Target: Target{Flake: "good"}, Within: time.Minute}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := h.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		a, err := client.Attempt()
		if err != nil || a.Step != Failed || !strings.HasPrefix(a.Error, "it was not built or fetched within 12h;") {
			t.Errorf("%+v %v", a, err)
		}
		if took := time.Since(began); took != h.StageWithin {
			t.Error("it took", took)
		}
	})
}

// The system of an attempt is kept from the garbage collector as long as the
// attempt may go on with it.
func TestAStagedSystemIsReleased(t *testing.T) {
	d := newDouble(t)
	o := Order{ID: "upg_1", Want: WantStage, Target: Target{Flake: "good", Name: "m1"}, Within: time.Minute}
	client, ended := d.begins(o)
	d.awaits("it is staged", func() bool {
		a, err := client.Attempt()
		return err == nil && a.Step == Staged
	})
	if !d.there("host/staged") {
		t.Error("it is not kept")
	}
	o.Want = WantStop
	if err := client.Order(o); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || d.there("host/staged") {
		t.Error("it is still kept", err)
	}
	if a := d.goes(Order{ID: "upg_2", Want: WantGo, Target: Target{System: newSystem}, Within: time.Minute}); a.Step != Done || d.there("host/staged") {
		t.Errorf("kept though it is the default now: %+v", a)
	}
	if err := os.Remove(filepath.Join(d.root, newSystem, switchTo)); err != nil {
		t.Fatal(err)
	}
	if a := d.goes(Order{ID: "upg_3", Want: WantGo, Target: Target{System: newSystem}, Within: time.Minute}); a.Step != Failed || d.there("host/staged") {
		t.Errorf("kept though it was refused: %+v", a)
	}
}

// A switch may start what holds on to its output. It is over all the same, and
// it was good.
func TestASwitchThatLeavesSomethingRunning(t *testing.T) {
	d := newDouble(t)
	d.os.grace = 50 * time.Millisecond
	d.program("leaves", `echo good; sleep 30 & echo $! >"$ROOT/left"`)
	out, err := d.os.output(t.Context(), "it failed", filepath.Join(d.root, "bin/leaves"))
	if err != nil || out != "good" {
		t.Errorf("%q %v", out, err)
	}
	if !d.lives("left") {
		t.Error("what it started was ended")
	}
	text, _ := os.ReadFile(filepath.Join(d.root, "left"))
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // it ends by itself too
	}
}
