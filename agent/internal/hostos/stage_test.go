package hostos

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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
			d.program("nix", `[ $3 = build ] || { echo "{}"; exit; }
				`+parent+`
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

// hangs is a machine whose switches to some systems never end: a unit of them
// does not come to the end of its start. The system is the one that runs by then.
type hangs struct {
	*Twin
	at map[string]bool
}

func (h hangs) Try(ctx context.Context, system string) error {
	if err := h.Twin.Try(ctx, system); err != nil || !h.at[system] {
		return err
	}
	<-ctx.Done()
	return &programError{"the switch failed: " + ctx.Err().Error(), []string{"starting the following units: backup.service"}}
}

func TestASwitchThatHangsReturns(t *testing.T) {
	const late = " did not end within 7m: a unit of it may never end starting; see systemctl list-jobs, and journalctl -u uncloud-host"
	for name, c := range map[string]struct {
		at     []string
		stop   bool
		within time.Duration
		took   time.Duration
		want   string
	}{
		"in time":      {[]string{newSystem}, false, 7 * time.Minute, 7 * time.Minute, "the switch to bbb-nixos-2" + late},
		"a short time": {[]string{newSystem}, false, time.Second, leastSwitch, "the switch to bbb-nixos-2" + strings.Replace(late, "7m", "5m", 1)},
		"when told to": {[]string{newSystem}, true, 7 * time.Minute, time.Minute, "it was ended from m1"},
		"also back": {[]string{newSystem, oldSystem}, false, 7 * time.Minute, 14 * time.Minute,
			"the switch to bbb-nixos-2" + late + "; on the way back: the switch to aaa-nixos-1" + late},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				twin := NewTwin(oldSystem, time.Now)
				h, client := twin.Pair(Options{Log: slog.New(slog.DiscardHandler)})
				machine := hangs{twin, map[string]bool{}}
				for _, system := range c.at {
					machine.at[system] = true
				}
				h.Machine = machine
				o := Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: c.within}
				order := func() {
					if err := client.Order(o); err != nil {
						t.Error(err)
					}
				}
				order()
				if c.stop {
					time.AfterFunc(c.took, func() { o.Want, o.Reason = WantStop, c.want; order() })
				}
				began := time.Now()
				if err := h.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				a, err := client.Attempt()
				if err != nil || a.Step != Failed || a.Stuck || a.Error != c.want || twin.Running() != oldSystem || twin.Loader() != oldSystem {
					t.Errorf("%+v %v; %s runs", a, err, twin.Running())
				}
				if !slices.Equal(a.Lines, []string{"starting the following units: backup.service"}) {
					t.Errorf("%q", a.Lines)
				}
				if took := time.Since(began); took != c.took {
					t.Error("it took", took)
				}
			})
		})
	}
}

// The programs of a switch that is broken off end with it.
func TestASwitchThatIsBrokenOffEnds(t *testing.T) {
	d := newDouble(t)
	d.os.grace = 200 * time.Millisecond
	d.system("bbb-nixos-2", `[ $1 = boot ] || { ln -sfn /nix/store/bbb-nixos-2 "$ROOT/run/current-system"
		echo "starting the following units: backup.service"; sleep 600 & echo $! >"$ROOT/child.new"; mv "$ROOT/child.new" "$ROOT/child"; wait; }`)
	o := Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Minute}
	client, ended := d.begins(o)
	d.awaits("it switches", func() bool { return d.there("child") })
	o.Want, o.Reason = WantStop, "the upgrade was ended"
	if err := client.Order(o); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	a, err := client.Attempt()
	if err != nil || a.Step != Failed || a.Error != "the upgrade was ended" || len(a.Lines) != 1 || !strings.Contains(a.Lines[0], "backup.service") {
		t.Errorf("%+v %v", a, err)
	}
	if s, err := d.os.Seen(t.Context()); err != nil || s.Current != oldSystem || s.Default.System != oldSystem {
		t.Errorf("%+v %v", s, err)
	}
	d.awaits("its child ends", func() bool { return !d.lives("child") })
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
