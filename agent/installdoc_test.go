package agent

import (
	"crypto/ed25519"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"uncloud/agent/internal/firstboot"
	"uncloud/agent/internal/join"
)

// TestTheLinesOfTheDocumentsMakeAFileThatIsTaken: what they have people type is
// typed, with a ticket as `uc machine ticket` writes it.
func TestTheLinesOfTheDocumentsMakeAFileThatIsTaken(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("there is no bash")
	}
	ticket, err := join.Ticket{ID: "tkt_1", ExpiresAt: time.Now()}.Sign(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGTxWcNPjEEsrdFVyEzAhZ4P3pVbP5FFbNxOPGK6A0qQ alice"
	lines := slices.Concat(
		linesThatMake(t, "../docs/install.md", "> uncloud.txt"),
		linesThatMake(t, "../README.md", "> /media/FIRMWARE/uncloud.txt"),
		// What also comes to mind: the whole ticket file as the value.
		[]string{`printf 'name = pi-1\nkey = %s\nticket = %s\n' "$(cat ~/.ssh/id_ed25519.pub)" "$(cat uncloud.ticket)" > uncloud.txt`},
	)
	for _, line := range lines {
		dir := t.TempDir()
		write(t, filepath.Join(dir, ".ssh", "id_ed25519.pub"), key+"\n")
		write(t, filepath.Join(dir, "uncloud.ticket"), ticket)
		script := "uc() { cat uncloud.ticket; }\n" + strings.ReplaceAll(line, "/media/FIRMWARE/", "")
		shell := exec.CommandContext(t.Context(), "bash", "-euc", script) //nolint:gosec // a line of this repository
		shell.Dir, shell.Env = dir, append(os.Environ(), "HOME="+dir)
		if said, err := shell.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, said)
		}
		content, err := os.ReadFile(filepath.Join(dir, "uncloud.txt"))
		if err != nil {
			t.Fatal(err)
		}
		got, troubles := firstboot.Parse(content, firstboot.Checks{Ticket: func(text string) error { _, err := join.Parse(text); return err }})
		if len(troubles) > 0 || got.Name != "pi-1" || strings.Contains(line, "key") != slices.Contains(got.Keys, key) || !strings.Contains(ticket, got.Ticket) || got.Ticket == "" {
			t.Errorf("%s\nmakes\n%s\nof which is said: %v; taken was %+v", line, content, troubles, got)
		}
	}
}

// linesThatMake are a document's commands that end with these words, or with
// them and a remark.
func linesThatMake(t *testing.T, document, end string) []string {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		command, is := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		command, _, _ = strings.Cut(command, "   #")
		if is && strings.HasSuffix(strings.TrimSpace(command), end) {
			out = append(out, command)
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no command that ends with %s", document, end)
	}
	return out
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
