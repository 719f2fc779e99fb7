package firstboot

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestThePowerMayGoAtAnyPoint cuts it before every operation, in many worlds
// of what had reached the disk, and boots again: the result is that of a boot
// without a cut.
func TestThePowerMayGoAtAnyPoint(t *testing.T) {
	lay := map[string]func(*crashDisk){
		"all of it":       func(d *crashDisk) { d.lay("/mnt/FIRMWARE/uncloud.txt", whole) },
		"a bare ticket":   func(d *crashDisk) { d.lay("/mnt/UNCLOUD/uncloud.ticket", "# Lets a machine join.\n"+ticket+"\n") },
		"without secrets": func(d *crashDisk) { d.lay("/mnt/ESP/uncloud.txt", "name = pi-1\nkey = "+pubkey+"\n") },
		"two files": func(d *crashDisk) {
			d.lay("/mnt/FIRMWARE/uncloud.txt", "name=pi-1\r\nwifi=a / 12345678")
			d.lay("/mnt/FIRMWARE/UNCLOUD.TICKET", ticket)
		},
		"a second file": func(d *crashDisk) {
			d.lay("/var/lib/first/config.json", `{"name":"old","labels":{"a":"b"}}`)
			d.lay("/var/lib/first/wifi/old.psk", "[Security]\nPassphrase=oldoldold\n")
			d.lay("/var/lib/first/wifi-given", "old.psk\n")
			d.lay("/applied/var/lib/iwd/old.psk", "[Security]\nPassphrase=oldoldold\n")
			d.lay("/mnt/ESP/uncloud.txt.read", "#read\nname = old\n")
			d.lay("/mnt/ESP/uncloud.txt", "#read\nwifi = new / "+password+"\nticket = "+ticket)
		},
		"a credential": func(d *crashDisk) { d.lay("/creds/uncloud.txt", whole) },
		"refused":      func(d *crashDisk) { d.lay("/mnt/ESP/uncloud.txt", "nam = pi-1\nticket = "+ticket) },
	}
	for name, lay := range lay {
		t.Run(name, func(t *testing.T) {
			fresh := func() *world {
				w := newWorld(t)
				for _, label := range w.labels {
					w.disk.lay("/mnt/"+label+"/other", "data")
				}
				lay(w.disk)
				return w
			}
			w := fresh()
			w.boot(t)
			want, steps := w.kept(), w.disk.steps
			if steps < 5 {
				t.Fatalf("only %d operations: nothing was tried", steps)
			}
			if name != "refused" {
				noSecret(t, want)
			}
			for cut := 1; cut <= steps; cut++ {
				for seed := range int64(8) {
					w, what := fresh(), fmt.Sprintf("cut before operation %d of %d, chance %d", cut, steps, seed)
					w.disk.cutAt = cut
					if w.boot(t) {
						t.Fatalf("%s: the boot came to its end", what)
					}
					w.disk.restart(rand.New(rand.NewSource(seed))) //nolint:gosec // repeatable
					w.boot(t)
					same(t, w.kept(), want, what)
					if w.file("/applied/var/lib/iwd/old.psk") != "" {
						t.Errorf("%s: iwd has the former network", what)
					}
					if t.Failed() {
						return
					}
				}
			}
		})
	}
}

// noSecret finds what is left on the volumes.
func noSecret(t reporter, all map[string]string) {
	t.Helper()
	for at, content := range all {
		if strings.HasPrefix(at, "/mnt") && (strings.Contains(content, "c2Vjcm") || strings.Contains(content, "horse") || strings.Contains(content, "12345678")) {
			t.Errorf("a secret is still in %s: %q", at, content)
		}
	}
}

// TestThePowerMayGoAgainAndAgain is the same with several cuts in a row.
func TestThePowerMayGoAgainAndAgain(t *testing.T) {
	fresh := func() *world {
		w := newWorld(t)
		w.disk.lay("/mnt/FIRMWARE/uncloud.txt", whole)
		return w
	}
	w := fresh()
	w.boot(t)
	want, steps := w.kept(), w.disk.steps
	rapid.Check(t, func(rt *rapid.T) {
		w := fresh()
		for range rapid.IntRange(1, 6).Draw(rt, "cuts") {
			w.disk.cutAt = rapid.IntRange(1, steps).Draw(rt, "before")
			ended := w.boot(t)
			if !ended && rapid.IntRange(0, 3).Draw(rt, "only the process ends") > 0 {
				w.disk.restart(rand.New(rand.NewSource(rapid.Int64().Draw(rt, "chance")))) //nolint:gosec // repeatable
			}
			w.disk.steps = 0
		}
		w.disk.cutAt = 0
		w.boot(t)
		w.disk.restart(rand.New(rand.NewSource(rapid.Int64().Draw(rt, "chance at the end")))) //nolint:gosec // repeatable
		same(rt, w.kept(), want, "at the end")
		noSecret(rt, w.kept())
	})
}

// TestADiskThatFailsStopsNoBoot: whatever operation fails, and all after it in
// the same place, the boot ends with a sentence, and the next one with a good
// disk has the same result.
func TestADiskThatFailsStopsNoBoot(t *testing.T) {
	fresh := func() *world {
		w := newWorld(t)
		w.disk.lay("/mnt/FIRMWARE/uncloud.txt", whole)
		return w
	}
	w := fresh()
	w.boot(t)
	want, steps := w.kept(), w.disk.steps
	for _, place := range []string{"/mnt", "/var/lib/first"} {
		for _, kind := range []error{unix.ENOSPC, unix.EROFS, unix.EIO} {
			for at := range steps {
				w, n, failed := fresh(), 0, false
				w.disk.fail = func(_, path string) error {
					if n++; n > at && strings.HasPrefix(path, place) {
						failed = true
						return kind
					}
					return nil
				}
				w.boot(t)
				if failed && len(w.said) == 0 {
					t.Fatalf("%v in %s after %d operations, and nobody said so", kind, place, at)
				}
				w.disk.fail = nil
				w.boot(t)
				same(t, w.kept(), want, fmt.Sprintf("%v in %s after %d operations", kind, place, at))
				if t.Failed() {
					return
				}
			}
		}
	}
}
