package hostos

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const (
	oldSystem = "/nix/store/aaa-nixos-1"
	newSystem = "/nix/store/bbb-nixos-2"
)

// cut is what a test's moment panics with: the process ends there, and with it
// the machine if power is set.
type cut struct{ power bool }

// bench is a host on a twin whose life a test cuts into pieces.
type bench struct {
	t     rapid.TB
	twin  *Twin
	clock time.Time
	host  *Host
	// restarts counts those that the host asked for.
	restarts int
	// kept is set when the order to keep was given.
	kept bool
}

func newBench(t rapid.TB, dir string) *bench {
	b := &bench{t: t, clock: time.Unix(1000, 0)}
	b.twin = NewTwin(oldSystem, func() time.Time { return b.clock })
	b.twin.OnRestart(func() { b.restarts++; panic(cut{power: true}) })
	o := Options{Dir: dir, Machine: b.twin, Log: slog.New(slog.DiscardHandler)}
	if b.host = New(o); dir == "" {
		b.host, _ = b.twin.Pair(o)
	}
	return b
}

func (b *bench) order(o Order) {
	b.t.Helper()
	if err := b.host.files.saveOrder(o); err != nil {
		b.t.Fatal(err)
	}
	b.kept = b.kept || o.Want == WantKeep
}

func (b *bench) attempt() Attempt {
	b.t.Helper()
	a, err := b.host.files.attempt()
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

// live runs the host until it has nothing to do or waits; a cut is survived.
func (b *bench) live() (waits bool) {
	for range 60 {
		waits, ended := b.once()
		b.check()
		if waits || ended {
			return waits
		}
	}
	b.t.Fatalf("no end: %+v", b.attempt())
	return false
}

func (b *bench) once() (waits, ended bool) {
	defer func() {
		switch c := recover().(type) {
		case nil:
		case cut:
			if c.power {
				b.twin.Boot()
			}
		default:
			panic(c)
		}
	}()
	idle, err := b.host.step(context.Background())
	if errors.Is(err, errLater) {
		return true, false
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return false, idle
}

// check is what is true at every moment.
func (b *bench) check() {
	b.t.Helper()
	a := b.attempt()
	if !a.Restart && !b.kept && b.twin.Loader() == newSystem {
		b.t.Fatalf("a switch that nobody confirmed would be booted: %+v", a)
	}
	if b.restarts > 2 {
		b.t.Fatalf("%d restarts", b.restarts)
	}
}

// TestEveryCut ends every attempt in one of two ways, wherever it is cut off,
// once or twice, by the end of the process or by a power cut.
func TestEveryCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBench(t, "") // papers in memory
		moments := append(Moments(oldSystem, newSystem), "waiting")
		cuts := map[string]cut{}
		for range rapid.IntRange(0, 2).Draw(t, "cuts") {
			cuts[rapid.SampledFrom(moments).Draw(t, "moment")] = cut{rapid.Bool().Draw(t, "power")}
		}
		for _, what := range []string{"try ", "profile ", "loader "} {
			if rapid.IntRange(0, 5).Draw(t, what) == 0 {
				b.twin.Refuse(what+newSystem, errors.New("no"))
			}
		}
		o := Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Minute, Restart: rapid.Bool().Draw(t, "restart")}
		verdict := rapid.SampledFrom([]Want{WantKeep, WantStop, WantGo}).Draw(t, "verdict")
		b.attemptOf(cuts, o, verdict)
		b.judge(t, o)
	})
}

// judge is what is true of an attempt that has ended.
func (b *bench) judge(t rapid.TB, o Order) {
	t.Helper()
	a := b.attempt()
	if _, left, err := b.host.files.orderOf(o.ID); left || err != nil {
		t.Fatal("the order is left", err)
	}
	if b.twin.kept != "" {
		t.Fatal("kept from the garbage collector:", b.twin.kept)
	}
	switch a.Step {
	case Done:
		if !b.kept || b.twin.Running() != newSystem || b.twin.Loader() != newSystem {
			t.Fatalf("done, but kept is %t, %s runs and %s would be booted", b.kept, b.twin.Running(), b.twin.Loader())
		}
	case Failed:
		if all, err := b.twin.Generations(); err != nil || len(all) != 1 {
			t.Fatalf("failed, and a generation of it is left: %+v %v", all, err)
		}
		if a.Stuck || a.Error == "" || b.twin.Running() != oldSystem || b.twin.Loader() != oldSystem {
			t.Fatalf("%+v; %s runs and %s would be booted", a, b.twin.Running(), b.twin.Loader())
		}
	default:
		t.Fatalf("ended as %s", a.Step)
	}
	b.twin.Boot() // and it stays so
	if running := b.twin.Running(); (running == newSystem) != (a.Step == Done) {
		t.Fatalf("%s, and boots %s", a.Step, running)
	}
}

// TestEachCut cuts every kind of attempt off at every moment.
func TestEachCut(t *testing.T) {
	moments := append(Moments(oldSystem, newSystem), "waiting")
	for _, moment := range moments {
		for n := range 12 {
			c := cut{power: n%2 == 0}
			o := Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Minute, Restart: n/2%2 == 0}
			verdict := []Want{WantKeep, WantStop, WantGo}[n/4]
			b := newBench(t, "")
			b.attemptOf(map[string]cut{moment: c}, o, verdict)
			b.judge(t, o)
			if t.Failed() {
				t.Fatalf("cut %s, power %t, restart %t, %s", moment, c.power, o.Restart, verdict)
			}
		}
	}
}

// attemptOf goes through an attempt that is cut at moments.
func (b *bench) attemptOf(cuts map[string]cut, o Order, verdict Want) {
	b.t.Helper()
	b.twin.OnMoment(func(moment string) {
		if c, ok := cuts[moment]; ok {
			delete(cuts, moment)
			panic(c)
		}
	})
	b.order(o)
	for b.live() {
		if c, ok := cuts["waiting"]; ok && c.power {
			delete(cuts, "waiting")
			b.twin.Boot()
			continue
		}
		if a := b.attempt(); a.Step != Watching {
			b.t.Fatalf("waits in %s", a.Step)
		}
		if o.Want = verdict; verdict == WantGo {
			b.clock = b.clock.Add(time.Minute) // nobody says anything
		}
		b.order(o)
	}
}

// A boot loader that boots the new system whatever it is told: after one
// restart the former system runs at least, and it is told.
func TestABootLoaderThatDoesNotListen(t *testing.T) {
	b := newBench(t, "")
	b.order(Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Minute, Restart: true})
	b.live()
	b.twin.Refuse("loader "+oldSystem, errors.New("the boot loader is broken"))
	b.clock = b.clock.Add(time.Minute)
	b.live()
	a := b.attempt()
	want := "nobody confirmed it within 1m; on the way back: the boot loader is broken; on the way back: the boot loader is broken"
	if a.Step != Failed || b.restarts != 2 || b.twin.Running() != oldSystem || a.Error != want {
		t.Fatalf("%+v after %d restarts", a, b.restarts)
	}
}

func TestAGoodAttemptIsKept(t *testing.T) {
	for _, restart := range []bool{false, true} {
		b := newBench(t, t.TempDir())
		o := Order{ID: "upg_1", Want: WantStage, Target: Target{System: newSystem}, Within: time.Minute, Restart: restart}
		b.order(o)
		if !b.live() || b.attempt().Step != Staged {
			t.Fatalf("%+v", b.attempt())
		}
		o.Want = WantGo
		b.order(o)
		if !b.live() || b.attempt().Step != Watching || b.twin.Running() != newSystem {
			t.Fatalf("%+v", b.attempt())
		}
		o.Want = WantKeep
		b.order(o)
		if b.live() || b.attempt().Step != Done || b.twin.Loader() != newSystem {
			t.Fatalf("%+v", b.attempt())
		}
		if want := map[bool]int{true: 2, false: 1}[restart]; b.twin.Boots() != want {
			t.Errorf("%d boots", b.twin.Boots())
		}
	}
}

func TestASystemThatCannotBeHadChangesNothing(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.twin.Refuse("stage "+newSystem, &programError{"it does not build: no", []string{"one", "no"}})
	b.order(Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Minute})
	b.live()
	if a := b.attempt(); a.Step != Failed || a.Error != "it does not build: no" || len(a.Lines) != 2 {
		t.Fatalf("%+v", a)
	}
}

func TestWhatRunsAlreadyIsDoneAtOnce(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.twin.OnMoment(func(moment string) {
		if !strings.HasSuffix(moment, " release") {
			t.Errorf("changed: %s", moment)
		}
	})
	b.order(Order{ID: "upg_1", Want: WantGo, Target: Target{System: oldSystem}, Within: time.Minute})
	b.live()
	if a := b.attempt(); a.Step != Done {
		t.Fatalf("%+v", a)
	}
}

// A kernel that does not start by itself is not ours to find out; but a machine
// that is started three times and never confirmed boots the former system.
func TestASecondBootWithoutConfirmationReturns(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.order(Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Hour, Restart: true})
	b.live()
	b.twin.Boot()
	b.live()
	if a := b.attempt(); a.Step != Failed || b.twin.Running() != oldSystem {
		t.Fatalf("%+v", a)
	}
}

func TestWhatAPersonActivatesMeanwhileStays(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.order(Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Hour})
	b.live()
	if err := b.twin.Try(t.Context(), "/nix/store/ccc-nixos-3"); err != nil {
		t.Fatal(err)
	}
	b.live()
	if a := b.attempt(); a.Step != Failed || a.Error != "ccc-nixos-3 was activated by hand in the meantime" || b.twin.Running() != "/nix/store/ccc-nixos-3" {
		t.Fatalf("%+v", a)
	}
}

func TestARemovedOrderReturns(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.order(Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Hour})
	b.live()
	if err := b.host.files.removeOrder("upg_1"); err != nil {
		t.Fatal(err)
	}
	b.live()
	if a := b.attempt(); a.Step != Failed || a.Error != "its order was removed" || b.twin.Running() != oldSystem {
		t.Fatalf("%+v", a)
	}
}
