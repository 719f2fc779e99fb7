package agent

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzPast reads any file that says how far the store was. A machine is taken
// to have all only where it said so, and who wrote it reads the same again.
func FuzzPast(f *testing.F) {
	for _, text := range []string{"", "ready", "ready\n", "restored", "READY", "ready\x00", "re"} {
		f.Add([]byte(text))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		p := parsePast(text)
		if said := string(text) == "ready"; said && p != pastReady || p != pastReady && p != pastRestored {
			t.Fatalf("%q is %q", text, p)
		}
		must(t, writePast(dir, p))
		if again, err := readPast(dir); err != nil || again != p {
			t.Fatalf("%q is %q, and again %q, %v", text, p, again, err)
		}
	})
}

// TestAPastThatIsSpoilt is not taken for that of a machine which was never a
// member: it would act on whatever it has.
func TestAPastThatIsSpoilt(t *testing.T) {
	dir := t.TempDir()
	if p, err := readPast(dir); p != pastNone || err != nil {
		t.Errorf("no file: %q %v", p, err)
	}
	for text, want := range map[string]past{"": pastRestored, "\x00\x00\x00\x00\x00": pastRestored, "rea": pastRestored, "ready\n": pastReady} {
		must(t, os.WriteFile(filepath.Join(dir, pastFile), []byte(text), 0o600))
		if p, err := readPast(dir); p != want || err != nil {
			t.Errorf("%q: %q %v", text, p, err)
		}
	}
}
