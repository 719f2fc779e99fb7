package compose

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"uncloud/internal/faults"
)

var update = flag.Bool("update", false, "write what the code makes into the golden files and docs/compose.md")

// TestGolden runs each file of testdata: a compose.yaml, other files under
// dashed lines with their names, and last what is expected: under `-- specs --`
// the specs, or under `-- error --` the errors and hints. Settings stand in the
// `# set:` line: env K=V, service NAME, profile NAME, file NAME.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { golden(t, file) })
	}
}

func golden(t *testing.T, file string) {
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	archive := txtar.Parse(content)
	dir := filepath.Join(t.TempDir(), "app")
	write(t, dir, "compose.yaml", archive.Comment)
	want := archive.Files[len(archive.Files)-1]
	for _, f := range archive.Files[:len(archive.Files)-1] {
		write(t, dir, f.Name, f.Data)
	}
	got := outcome(t, dir, settings(dir, archive.Comment))
	if *update {
		archive.Files[len(archive.Files)-1] = got
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got.Name != want.Name || !bytes.Equal(got.Data, want.Data) {
		t.Errorf("got %s:\n%s\nwant %s:\n%s", got.Name, got.Data, want.Name, want.Data)
	}
}

func write(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func settings(dir string, content []byte) Options {
	opt := Options{WorkingDir: dir, Env: map[string]string{}}
	for line := range strings.Lines(string(content)) {
		words, ok := strings.CutPrefix(line, "# set: ")
		if !ok {
			continue
		}
		kind, value, _ := strings.Cut(strings.TrimSpace(words), " ")
		switch kind {
		case "env":
			name, v, _ := strings.Cut(value, "=")
			opt.Env[name] = v
		case "service":
			opt.Services = append(opt.Services, value)
		case "profile":
			opt.Profiles = append(opt.Profiles, value)
		case "file":
			opt.Files = append(opt.Files, filepath.Join(dir, value))
		case "project":
			opt.ProjectName = value
		}
	}
	return opt
}

// outcome is what a load gives, as the last part of a golden file.
func outcome(t *testing.T, dir string, opt Options) txtar.File {
	t.Helper()
	p, err := Load(t.Context(), opt)
	if err != nil {
		return txtar.File{Name: "error", Data: []byte(strings.ReplaceAll(describe(t, err), dir, "DIR"))}
	}
	var b bytes.Buffer
	shown := struct {
		Project  string
		Images   []string
		Builds   []Build  `json:",omitempty"`
		Warnings []string `json:",omitempty"`
		Context  string   `json:",omitempty"`
		Specs    any
	}{p.Name, p.Images, p.Builds, p.Warnings, p.Context, p.Specs}
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(shown); err != nil {
		t.Fatal(err)
	}
	return txtar.File{Name: "specs", Data: bytes.ReplaceAll(b.Bytes(), []byte(dir), []byte("DIR"))}
}

// describe is each fault of err with its hint. An error that is no fault.Invalid
// would be a bug: whatever is in a file, the user can mend it. So would one
// without a hint, or of several lines.
func describe(t *testing.T, err error) string {
	t.Helper()
	var b strings.Builder
	for _, err := range leaves(err) {
		f, ok := errors.AsType[*faults.Fault](err)
		if !ok || f.Code != faults.Invalid {
			t.Fatalf("not faults.Invalid: %v", err)
		}
		fmt.Fprintf(&b, "%s\n", f.Sentence)
		if f.Hint == "" || strings.Contains(f.Sentence, "\n") {
			t.Errorf("no hint, or more than one line: %q", f.Sentence)
		}
		fmt.Fprintf(&b, "    hint: %s\n", f.Hint)
	}
	return b.String()
}

func TestNoFile(t *testing.T) {
	// The search goes up to the root, so name a file that is not there as well.
	_, err := Load(t.Context(), Options{Files: []string{filepath.Join(t.TempDir(), "missing.yaml")}})
	if faults.CodeOf(err) != faults.NotFound {
		t.Errorf("got %v", err)
	}
}

// Each example is a test input: adding one adds a test.
func TestExamplesLoad(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/compose.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			p, err := Load(t.Context(), Options{Files: []string{file}})
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Specs) == 0 || len(p.Warnings) > 0 {
				t.Errorf("%d services, warnings %q", len(p.Specs), p.Warnings)
			}
		})
	}
}
