package hostos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const thirdSystem = "/nix/store/ccc-nixos-3"

// systemdBoot gives the double a boot loader that keeps the newest three
// generations, has room for some systems, and names the default if it has it.
func (d *double) systemdBoot(room int) {
	d.write(loaderInfo, "\x06\x00\x00\x00"+strings.Join(strings.Split("systemd-boot 258", ""), "\x00")+"\x00")
	d.write("bin/install-loader", fmt.Sprintf(`#!/bin/sh
p=$ROOT/nix/var/nix/profiles l=$ROOT/boot/loader
mkdir -p "$l/entries"
newest=$(ls "$p" | sed -n 's/^system-\([0-9]*\)-link$/\1/p' | sort -n | tail -3)
for e in "$l"/entries/*; do
	n=${e##*/}
	echo "$newest" | grep -qx "$n" || rm -f "$e"
done
for n in $newest; do
	[ -e "$l/entries/$n" ] || [ $(ls "$l/entries" | wc -l) -lt %d ] || { echo "No space left on device" >&2; exit 1; }
	readlink "$p/system-$n-link" >"$l/entries/$n"
	[ "$(readlink "$p/system-$n-link")" != "$1" ] || echo "default nixos-generation-$n.conf" >"$l/loader.conf"
done
`, room))
}

// boots is the system that the next boot boots.
func (d *double) boots() string {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.root, "boot/loader/loader.conf"))
	if err != nil {
		d.t.Fatal(err)
	}
	number := strings.TrimSuffix(strings.TrimPrefix(string(text), "default nixos-generation-"), ".conf\n")
	system, err := os.ReadFile(filepath.Join(d.root, "boot/loader/entries", number))
	if err != nil {
		d.t.Fatal(err)
	}
	return strings.TrimSpace(string(system))
}

func (d *double) boot() {
	d.t.Helper()
	system := d.boots()
	for _, link := range []string{bootedLink, currentLink} {
		if err := os.Remove(filepath.Join(d.root, link)); err != nil {
			d.t.Fatal(err)
		}
		d.link(link, system)
	}
	id, err := os.ReadFile(filepath.Join(d.root, "proc/sys/kernel/random/boot_id"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.write("proc/sys/kernel/random/boot_id", string(id)+"+")
}

// restarter is the double's machine, where a restart ends the process.
type restarter struct {
	NixOS
	boot func()
}

func (r restarter) Restart(context.Context) error {
	r.boot()
	panic(cut{power: true})
}

func (r restarter) Seen(ctx context.Context) (Seen, error) {
	s, err := r.NixOS.Seen(ctx)
	s.InMemory = "" // where this test runs
	return s, err
}

// attempt goes through one, with a verdict when it waits.
func (d *double) attempt(o Order, verdict Want) Attempt {
	d.t.Helper()
	h := New(Options{Dir: d.os.Dir, Machine: restarter{d.os, d.boot}, Log: slog.New(slog.DiscardHandler)})
	order := func() {
		if err := h.files.saveOrder(o); err != nil {
			d.t.Fatal(err)
		}
	}
	order()
	for range 60 {
		switch idle, err := d.step(h); {
		case errors.Is(err, errLater):
			o.Want, o.Reason = verdict, "it was bad"
			order()
		case err != nil:
			d.t.Fatal(err)
		case idle:
			a, err := h.files.attempt()
			if err != nil {
				d.t.Fatal(err)
			}
			return a
		}
	}
	d.t.Fatal("no end")
	return Attempt{}
}

func (d *double) step(h *Host) (idle bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(cut); !ok {
				panic(r)
			}
		}
	}()
	return h.step(d.t.Context())
}

// numbers are those of the generations.
func (d *double) numbers() []int {
	d.t.Helper()
	all, err := d.os.numbers()
	if err != nil {
		d.t.Fatal(err)
	}
	return all
}

// order is one for a restart into a system, with an id of its own.
func restartInto(n int, system string) Order {
	return Order{ID: "upg_" + strconv.Itoa(n), Want: WantGo, Target: Target{System: system}, Within: time.Hour, Restart: true}
}

// What failed is no generation any more: going back from a good one does not
// lead to it.
func TestARollbackDoesNotLeadToWhatFailed(t *testing.T) {
	d := newDouble(t)
	d.systemdBoot(9)
	d.system("ccc-nixos-3", "")
	if a := d.attempt(restartInto(1, newSystem), WantStop); a.Step != Failed || a.Error != "it was bad" {
		t.Fatalf("%+v", a)
	}
	if a := d.attempt(restartInto(2, thirdSystem), WantKeep); a.Step != Done || d.boots() != thirdSystem {
		t.Fatalf("%+v", a)
	}
	all, err := d.os.Generations()
	if before, ok := Before(all); err != nil || !ok || before.System != oldSystem || len(all) != 2 {
		t.Errorf("%+v %v, it would go back to %+v", all, err, before)
	}
}

// A boot loader that keeps three generations has the good one still after three
// that failed.
func TestWhatFailsPushesNothingOutOfTheBootLoader(t *testing.T) {
	d := newDouble(t)
	d.systemdBoot(9)
	for i, name := range []string{"bbb-nixos-2", "ccc-nixos-3", "ddd-nixos-4"} {
		d.system(name, "")
		a := d.attempt(restartInto(i, storeDir+name), WantStop)
		if a.Step != Failed || a.Stuck || a.Error != "it was bad" || d.boots() != oldSystem || !slices.Equal(d.numbers(), []int{1}) {
			t.Fatalf("%+v, it boots %s, generations %v", a, d.boots(), d.numbers())
		}
	}
}

// What did not fit the boot partition is not in the way of the way back.
func TestWhatDoesNotFitGoes(t *testing.T) {
	d := newDouble(t)
	d.systemdBoot(1)
	if err := d.os.MakeDefault(t.Context(), Generation{1, oldSystem}, Made{}); err != nil {
		t.Fatal(err)
	}
	o := restartInto(1, newSystem)
	o.Restart = false
	a := d.attempt(o, WantKeep)
	if a.Step != Failed || a.Error != "the boot loader cannot be set to bbb-nixos-2: No space left on device" || d.boots() != oldSystem {
		t.Errorf("%+v, it boots %s", a, d.boots())
	}
}

// A generation that was there before is not the attempt's.
func TestAGenerationOfBeforeStays(t *testing.T) {
	d := newDouble(t)
	d.systemdBoot(9)
	d.link("nix/var/nix/profiles/system-2-link", newSystem)
	if a := d.attempt(restartInto(1, newSystem), WantStop); a.Step != Failed || d.boots() != oldSystem || !slices.Equal(d.numbers(), []int{1, 2}) {
		t.Errorf("%+v, it boots %s, generations %v", a, d.boots(), d.numbers())
	}
}

// A boot loader that cannot be told may boot what failed, so the garbage
// collector does not get it.
func TestWhatMayBeBootedStays(t *testing.T) {
	d := newDouble(t)
	d.systemdBoot(9)
	d.system("aaa-nixos-1", `[ $1 = test ] || { echo "Read-only file system"; exit 1; }`)
	if a := d.attempt(restartInto(1, newSystem), WantStop); a.Step != Failed || !strings.Contains(a.Error, "on the way back: the boot loader cannot be set to aaa-nixos-1: Read-only") {
		t.Fatalf("%+v", a)
	}
	if standard, err := d.os.defaultGeneration(); d.boots() != newSystem || !slices.Equal(d.numbers(), []int{1, 2}) || standard.Number != 1 || err != nil {
		t.Errorf("it boots %s, generations %v, the default is %+v, %v", d.boots(), d.numbers(), standard, err)
	}
}

// An old generation is booted, also where the boot loader has it no longer.
func TestAnOldGenerationIsBootedNext(t *testing.T) {
	for to, c := range map[int]struct {
		boots   string
		numbers []int
	}{
		1: {oldSystem, []int{1, 2, 3, 4, 5, 6}}, // as a new one
		4: {"/nix/store/ddd-nixos-4", []int{1, 2, 3, 4, 5}},
	} {
		d := newDouble(t)
		d.systemdBoot(9)
		for i, name := range []string{"bbb-nixos-2", "ccc-nixos-3", "ddd-nixos-4", "eee-nixos-5"} {
			d.system(name, "")
			d.link(fmt.Sprintf("nix/var/nix/profiles/system-%d-link", i+2), storeDir+name)
		}
		if err := d.os.MakeDefault(t.Context(), Generation{5, "/nix/store/eee-nixos-5"}, Made{}); err != nil {
			t.Fatal(err)
		}
		d.boot()
		o := restartInto(1, "")
		o.Target, o.Restart = Target{Generation: to}, false
		if a := d.attempt(o, WantKeep); a.Step != Done || d.boots() != c.boots || !slices.Equal(d.numbers(), c.numbers) {
			t.Errorf("%+v, it boots %s, generations %v", a, d.boots(), d.numbers())
		}
		all, err := d.os.Generations()
		if s := Summary(all); err != nil || s != fmt.Sprintf("%d (booted 5)", map[int]int{1: 6, 4: 4}[to]) {
			t.Error(s, err)
		}
	}
}

// What another boot loader left behind is not believed.
func TestWhoBootsIsAsked(t *testing.T) {
	for name, c := range map[string]struct {
		info, at, text string
		known          bool
	}{
		"systemd-boot":        {"s\x00y\x00s\x00t\x00e\x00m\x00d\x00-\x00b\x00o\x00o\x00t\x00", "boot", "timeout 5\ndefault nixos-generation-1.conf\nconsole-mode keep\n", true},
		"counted boots":       {"systemd-boot", "efi", "default nixos-generation-1+3-0.conf\n", true},
		"another boot loader": {"GRUB 2.12", "boot", "default nixos-generation-1.conf\n", false},
		"none that says so":   {"", "boot", "default nixos-generation-1.conf\n", false},
		"another profile":     {"systemd-boot", "boot/efi", "default nixos-test-generation-1.conf\n", false},
		"a pattern":           {"systemd-boot", "boot", "default nixos-*\n", false},
	} {
		d := newDouble(t)
		if c.info != "" {
			d.write(loaderInfo, c.info)
		}
		d.write(c.at+"/loader/loader.conf", c.text)
		system, known := d.os.boots()
		if known != c.known || known && system != oldSystem {
			t.Errorf("%s: %q, known %t", name, system, known)
		}
	}
}

// What is booted next is on the disk before the boot loader names it.
func TestTheStoreIsOnTheDiskBeforeTheBootLoaderNamesIt(t *testing.T) {
	d := newDouble(t)
	var synced []string
	d.os.syncfs = func(dir string) error {
		synced = append(synced, fmt.Sprint(strings.TrimPrefix(dir, d.root), " after ", len(d.calls())))
		return nil
	}
	if err := d.os.MakeDefault(t.Context(), Generation{System: newSystem}, Made{}); err != nil {
		t.Fatal(err)
	}
	want := []string{"/nix/store after 1", "/nix/var/nix/profiles after 1", "/nix/store after 2", "/nix/var/nix/profiles after 2"}
	if !slices.Equal(synced, want) || len(d.calls()) != 2 {
		t.Errorf("%q, %q", synced, d.calls())
	}
	d.os.syncfs = func(string) error { return io.ErrClosedPipe }
	if err := d.os.MakeDefault(t.Context(), Generation{System: oldSystem}, Made{}); !errors.Is(err, io.ErrClosedPipe) || len(d.calls()) != 3 {
		t.Errorf("%v, %q", err, d.calls())
	}
	if err := syncFileSystem(d.root); err != nil {
		t.Error(err)
	}
}

// A journal that a restart would empty is not one to restart with.
func TestARestartThatWouldForgetIsRefused(t *testing.T) {
	for _, step := range []Step{Staging, Staged} {
		o := restartInto(1, newSystem)
		a := Begin(o, "b")
		a.Step = step
		a, act := Next(a, o, Seen{Boot: "b", Current: oldSystem, InMemory: "/x"})
		if want := "a restart would forget this upgrade, for /x is in memory: keep it on a disk, or leave out --reboot"; a.Step != Failed || act != Nothing || a.Error != want {
			t.Errorf("%s: %+v", step, a)
		}
		o.Restart = false
		a = Begin(o, "b")
		if a, _ = Next(a, o, Seen{Boot: "b", Current: oldSystem, InMemory: "/x"}); a.Step == Failed {
			t.Errorf("without a restart: %+v", a)
		}
	}
}

func TestWhatIsInMemoryIsKnown(t *testing.T) {
	const shm = "/dev/shm"
	if kind, err := os.ReadFile("/proc/mounts"); err != nil || !strings.Contains(string(kind), " "+shm+" tmpfs ") {
		t.Skip("no tmpfs on", shm, err)
	}
	if dir := (NixOS{Dir: shm}).inMemory(); dir != shm {
		t.Errorf("%s is not in memory: %q", shm, dir)
	}
	if dir := (NixOS{Dir: "/proc"}).inMemory(); dir != "" {
		t.Errorf("%q", dir)
	}
}
