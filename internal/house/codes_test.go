package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Where the agent writes the code of a health note.
var codeForms = regexp.MustCompile(`\bCode: +"([a-z]+\.[a-z-]+)"|Note\{+Code: "([a-z.-]+)"|\bnote\("([a-z.-]+)", |setError\("\w+", "([a-z.-]+)"|serviceNote\(.*, "([a-z.-]+)", `)

// TestHealthCodesAreDocumented: scripts may rely on the codes, so each has a
// row in docs/cli-json.md, and each row has its code.
func TestHealthCodesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/cli-json.md")
	if err != nil {
		t.Fatal(err)
	}
	_, codes, _ := strings.Cut(string(text), "## Codes of health notes")
	documented, said := map[string]string{}, map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z.-]+)` ").FindAllStringSubmatch(codes, -1) {
		documented[m[1]] = "docs/cli-json.md"
	}
	err = filepath.WalkDir("../../agent", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range codeForms.FindAllStringSubmatch(string(source), -1) {
			said[strings.Join(m[1:], "")] = path
		}
		return err
	})
	if err != nil || len(said) < 12 {
		t.Fatalf("only %d codes were found: the test does not see the source any more (%v)", len(said), err)
	}
	for code, path := range said {
		if documented[code] == "" {
			t.Errorf("%s writes the code %q, and docs/cli-json.md does not know it", path, code)
		}
	}
	for code := range documented {
		if said[code] == "" {
			t.Errorf("docs/cli-json.md has the code %q, and nothing writes it", code)
		}
	}
}
