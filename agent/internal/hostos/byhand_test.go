package hostos

import (
	"errors"
	"testing"
	"time"
)

// Who goes back by hand, for now, from a generation that was booted and not
// confirmed does not find it again after the next loss of power.
func TestWhatIsGoneBackFromByHandIsNotBootedNext(t *testing.T) {
	for _, seen := range []bool{true, false} { // before the power is lost
		b := newBench(t, t.TempDir())
		b.order(Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Restart: true, Within: time.Hour})
		if waits := b.live(); !waits || b.twin.Running() != newSystem {
			t.Fatalf("%+v", b.attempt())
		}
		if err := b.twin.Try(t.Context(), oldSystem); err != nil {
			t.Fatal(err)
		}
		if seen {
			b.live()
			if b.attempt().Step != Failed || b.twin.Loader() != oldSystem {
				t.Errorf("would boot %s, %+v", b.twin.Loader(), b.attempt())
			}
		}
		b.twin.Boot()
		b.live()
		if b.attempt().Step != Failed || b.twin.Loader() != oldSystem || b.twin.Running() != oldSystem {
			t.Errorf("seen %t: runs %s, would boot %s, %+v", seen, b.twin.Running(), b.twin.Loader(), b.attempt())
		}
	}
}

// Whoever took another one with everything, as nixos-rebuild switch does, keeps it.
func TestADefaultThatWasSetByHandStays(t *testing.T) {
	const third = "/nix/store/ccc-nixos-3"
	b := newBench(t, t.TempDir())
	b.order(Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Restart: true, Within: time.Hour})
	b.live()
	if b.twin.MakeDefault(t.Context(), Generation{System: third}, Made{}) != nil || b.twin.Try(t.Context(), third) != nil {
		t.Fatal()
	}
	b.live()
	if b.attempt().Step != Failed || b.twin.Loader() != third || b.twin.Running() != third {
		t.Errorf("runs %s, would boot %s, %+v", b.twin.Running(), b.twin.Loader(), b.attempt())
	}
}

// Whoever activates another system while the attempt is at something keeps it,
// and the machine is not restarted.
func TestWhatIsActivatedByHandInTheMiddleStays(t *testing.T) {
	const third, byHand = "/nix/store/ccc-nixos-3", "ccc-nixos-3 was activated by hand in the meantime"
	for name, c := range map[string]struct {
		moment string // when it is activated
		cut    bool   // and the process ends then
		back   bool   // the attempt is on the way back already
		want   string
	}{
		"the switch fails":              {moment: "after try " + newSystem, want: "no; " + byHand},
		"the process ends in it":        {moment: "after try " + newSystem, cut: true, want: byHand},
		"the boot loader is told":       {moment: "after loader " + oldSystem, back: true, want: "no; " + byHand},
		"the former is activated again": {moment: "after try " + oldSystem, back: true, want: "no; " + byHand},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, t.TempDir())
			done := false
			b.twin.OnMoment(func(moment string) {
				if moment != c.moment || done {
					return
				}
				done = true
				if err := b.twin.Try(t.Context(), third); err != nil {
					t.Fatal(err)
				}
				if c.cut {
					panic(cut{})
				}
			})
			b.twin.Refuse("try "+newSystem, errors.New("no"))
			if c.back {
				b.twin.current = newSystem
				a := Attempt{ID: "upg_1", Step: Returning, New: newSystem, Former: oldSystem, Default: Generation{1, oldSystem}, Boot: "boot-1",
					Armed: true, Newest: 1, WentBack: true, Error: "no"}
				if err := b.host.files.saveAttempt(a); err != nil {
					t.Fatal(err)
				}
			}
			b.order(Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Hour})
			b.live()
			if a := b.attempt(); a.Step != Failed || a.Stuck || a.Error != c.want || b.twin.Running() != third || b.restarts > 0 {
				t.Errorf("runs %s after %d restarts, %+v", b.twin.Running(), b.restarts, a)
			}
		})
	}
}

// What it set for the next boot stays as well.
func TestTheDefaultThatWasSetByHandInTheMiddleStays(t *testing.T) {
	const third = "/nix/store/ccc-nixos-3"
	b := newBench(t, t.TempDir())
	if err := b.host.files.saveAttempt(Attempt{ID: "upg_1", Step: Returning, New: newSystem, Former: oldSystem, Default: Generation{1, oldSystem},
		Boot: "boot-1", Armed: true, Newest: 1, Error: "no"}); err != nil {
		t.Fatal(err)
	}
	if b.twin.MakeDefault(t.Context(), Generation{System: third}, Made{}) != nil || b.twin.Try(t.Context(), third) != nil {
		t.Fatal()
	}
	b.order(Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Hour})
	b.live()
	if b.attempt().Step != Failed || b.twin.Loader() != third || b.twin.Running() != third || b.restarts > 0 {
		t.Errorf("runs %s, would boot %s, %+v", b.twin.Running(), b.twin.Loader(), b.attempt())
	}
}
