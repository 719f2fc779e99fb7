package compose

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/types"
)

// structured are keys whose one row speaks for named keys below it, each with
// the reason why none of those can be lost.
var structured = map[string]string{
	"include":             "the parser replaces it by what it includes",
	"services.*.extends":  "the parser replaces it by what it extends",
	"services.*.build":    "nothing is built; Build repeats what is needed to do it by hand",
	"services.*.develop":  "accepted whole: it concerns another command",
	"networks":            "checkNetworks refuses every key below it",
	"services.*.networks": "checkNetworks refuses every key below it",
}

// owner is the table's row for a path, and whether the path is the row's own.
func owner(path string) (row *key, exact bool) {
	at := root()
	for _, step := range strings.Split(path, ".") {
		if len(at.below) == 0 {
			return row, false
		}
		next := at.below[step]
		if next == nil {
			next = at.below["*"]
		}
		if next == nil {
			return nil, false
		}
		if at = next; at.key != nil {
			row = at.key
		}
		if row != nil && (row.verdict == refused || row.verdict == absent || structured[row.path] != "") {
			return row, true
		}
	}
	return row, row != nil || len(at.below) > 0
}

// covered says why the table does not speak for a path, or "".
func covered(path string) string {
	row, exact := owner(path)
	switch {
	case row == nil && !exact:
		return "no row speaks for it"
	case exact, strings.HasSuffix(path, ".*") && row.path == strings.TrimSuffix(path, ".*"):
		return "" // a free map such as labels
	}
	return fmt.Sprintf("it is structured, and %s has no rows below it", row.path)
}

// The schema and the types are the parser's two inventories. An upgrade that
// brings a key which is in either and not in the table fails here.
func TestTableCoversSchema(t *testing.T) {
	paths := schema.AttributePaths()
	if len(paths) < 500 {
		t.Fatalf("the schema has only %d paths", len(paths))
	}
	for _, path := range paths {
		if why := covered(string(path)); why != "" {
			t.Errorf("%s: %s", path, why)
		}
	}
}

func TestTableCoversTypes(t *testing.T) {
	count := 0
	visitFields(reflect.TypeFor[types.Config](), nil, map[reflect.Type]bool{}, func(path string) {
		count++
		if why := covered(path); why != "" {
			t.Errorf("%s: %s", path, why)
		}
	})
	visitFields(reflect.TypeFor[types.Project](), nil, map[reflect.Type]bool{}, func(path string) {
		if why := covered(path); why != "" {
			t.Errorf("%s: %s", path, why)
		}
	})
	if count < 300 {
		t.Errorf("saw only %d fields", count)
	}
}

// TestCoverageCanFail shows that the two tests above would see a new key.
func TestCoverageCanFail(t *testing.T) {
	for _, path := range []string{"services.*.brand_new", "services.*.deploy.brand_new", "services.*.ports.[].brand_new",
		"brand_new", "volumes.*.brand_new", "services.*.labels.brand_new.below"} {
		if covered(path) == "" {
			t.Errorf("%s passes", path)
		}
	}
}

// visitFields calls see with the path of each field that YAML may set.
func visitFields(t reflect.Type, path []string, above map[reflect.Type]bool, see func(string)) {
	switch t.Kind() {
	case reflect.Pointer:
		visitFields(t.Elem(), path, above, see)
	case reflect.Slice:
		visitFields(t.Elem(), append(slices.Clone(path), "[]"), above, see)
	case reflect.Map:
		visitFields(t.Elem(), append(slices.Clone(path), "*"), above, see)
	case reflect.Struct:
		if above[t] {
			return
		}
		above[t] = true
		defer delete(above, t)
		for i := range t.NumField() {
			visitField(t.Field(i), path, above, see)
		}
	}
}

func visitField(f reflect.StructField, path []string, above map[reflect.Type]bool, see func(string)) {
	name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	switch {
	case f.Type == reflect.TypeFor[types.Extensions](), name == "-", !f.IsExported():
	case strings.Contains(options, "inline"):
		visitFields(f.Type, path, above, see)
	default:
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		below := append(slices.Clone(path), name)
		see(strings.Join(below, "."))
		visitFields(f.Type, below, above, see)
	}
}

func TestTableIsTidy(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range keys {
		if seen[k.path] {
			t.Errorf("%s has two rows", k.path)
		}
		seen[k.path] = true
		if k.verdict == refused && k.note == "" || k.verdict == accepted && k.note == "" {
			t.Errorf("%s needs a note", k.path)
		}
	}
}

func TestMatrix(t *testing.T) {
	const file = "../../docs/compose.md"
	want := matrix()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/compose.md does not fit the table; run: go test ./internal/compose -update")
	}
}
