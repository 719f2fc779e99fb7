package hostos

import (
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
	if b.twin.MakeDefault(t.Context(), Generation{System: third}) != nil || b.twin.Try(t.Context(), third) != nil {
		t.Fatal()
	}
	b.live()
	if b.attempt().Step != Failed || b.twin.Loader() != third || b.twin.Running() != third {
		t.Errorf("runs %s, would boot %s, %+v", b.twin.Running(), b.twin.Loader(), b.attempt())
	}
}
