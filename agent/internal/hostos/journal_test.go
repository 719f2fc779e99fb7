package hostos

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzJournal begins with any journal and any order: what a newer generation
// wrote, or what is left of a file. The host comes to an end, or waits for an
// order; it neither spins nor restarts the machine over and over.
func FuzzJournal(f *testing.F) {
	add := func(a Attempt, o Order) {
		journal, err := json.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		order, err := json.Marshal(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(journal), string(order))
	}
	o := Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Minute}
	add(Attempt{}, o)
	for _, step := range []Step{Staging, Staged, Trying, Arming, Restarting, Watching, Keeping, Returning, GoingBack, Done, Failed, "polishing"} {
		for _, boot := range []string{"boot-1", "boot-0"} {
			add(Attempt{ID: "upg_1", Step: step, New: newSystem, Former: oldSystem, Default: Generation{1, oldSystem}, Boot: boot, Restart: boot == "boot-0", Armed: true}, o)
		}
	}
	f.Add(`{"id": "upg_1", "step": "", "boot": "boot-0"}`, `{"id": "upg_1", "want": "give up"}`)
	f.Add(`{"id": "upg_1", "step": "returning", "default": {"number": -1}}`, `{"id": "upg_1", "want": "keep", "target": {"generation": -7}}`)
	f.Add(`{"id": "`, `null`)
	f.Fuzz(func(t *testing.T, journal, order string) {
		b := newBench(t, t.TempDir())
		papers := b.host.files.(files)
		if os.MkdirAll(papers.orders(), 0o700) != nil || os.WriteFile(papers.journal(), []byte(journal), 0o600) != nil ||
			os.WriteFile(papers.order("upg_1"), []byte(order), 0o600) != nil {
			t.Fatal("the papers cannot be written")
		}
		if _, err := papers.attempt(); err != nil {
			return // the host process does not begin, and its unit says so
		}
		for range 60 {
			if waits, ended := b.once(); waits || ended {
				if b.restarts > 2 {
					t.Fatalf("%d restarts", b.restarts)
				}
				return
			}
		}
		left, _ := filepath.Glob(papers.orders() + "/*")
		t.Fatalf("no end: %+v, orders %v", b.attempt(), left)
	})
}

// TestAStepOfANewerGeneration is not gone over and over: what was touched is
// brought back, and what was not is left.
func TestAStepOfANewerGeneration(t *testing.T) {
	for _, former := range []string{"", oldSystem} {
		for _, boot := range []string{"boot-1", "boot-0"} {
			b := newBench(t, t.TempDir())
			b.order(Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Minute})
			if former != "" {
				if err := b.twin.Try(t.Context(), newSystem); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.host.files.saveAttempt(Attempt{ID: "upg_1", Step: "polishing", New: newSystem, Former: former, Boot: boot}); err != nil {
				t.Fatal(err)
			}
			b.live()
			if a := b.attempt(); a.Step != Failed || a.Error != "its journal names a step that this generation does not know: polishing" || b.twin.Running() != oldSystem || b.restarts > 0 {
				t.Errorf("former %q, %s: %+v, runs %s", former, boot, a, b.twin.Running())
			}
		}
	}
}
