package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// fieldsAt says at which argument of a logger's method the fields begin.
var fieldsAt = map[string]int{"With": 0, "Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2, "Log": 3}

// spoken are the fields and subsystems that the agent's source logs, each with
// a place.
type spoken struct{ fields, subsystems map[string]string }

// TestLoggingIsDocumented holds the fields of LOGGING.md against the source,
// both ways.
func TestLoggingIsDocumented(t *testing.T) {
	said := spoken{map[string]string{}, map[string]string{}}
	err := filepath.WalkDir("../../agent", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "storenode") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			return said.read(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(said.fields) < 20 || len(said.subsystems) < 8 {
		t.Fatalf("only %d fields and %d subsystems were found: the test does not see the source any more", len(said.fields), len(said.subsystems))
	}
	fields, subsystems := documented(t)
	compare(t, "field", said.fields, fields)
	compare(t, "subsystem", said.subsystems, subsystems)
}

func compare(t *testing.T, what string, said map[string]string, documented []string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(said)) {
		if !slices.Contains(documented, name) {
			t.Errorf("%s %q is logged at %s, and LOGGING.md does not know it", what, name, said[name])
		}
	}
	for _, name := range documented {
		if said[name] == "" {
			t.Errorf("%s %q is in LOGGING.md, and nothing logs it", what, name)
		}
	}
}

// documented reads the table of LOGGING.md: the names in the first column, and
// the subsystems that its first row lists.
func documented(t *testing.T) (fields, subsystems []string) {
	t.Helper()
	text, err := os.ReadFile("../../LOGGING.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		columns := strings.Split(line, "|")
		if len(columns) < 3 || !strings.Contains(columns[1], "`") {
			continue
		}
		names := regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(columns[1], -1)
		for _, n := range names {
			fields = append(fields, n[1])
		}
		if _, list, ok := strings.Cut(columns[2], ": "); ok && names[0][1] == "subsystem" {
			subsystems = strings.Split(strings.TrimSpace(list), ", ")
		}
	}
	return fields, subsystems
}

func (s spoken) read(path string) error {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			s.call(call, strings.TrimPrefix(set.Position(call.Pos()).String(), "../../"))
		}
		return true
	})
	return nil
}

func (s spoken) call(call *ast.CallExpr, place string) {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	if f.Sel.Name == "sub" && len(call.Args) == 1 { // a member's logger for one organ
		s.note(s.subsystems, call.Args[0], place)
	}
	at, logs := fieldsAt[f.Sel.Name]
	if !logs || !isLogger(f.X) {
		return
	}
	for i := at; i+1 < len(call.Args); i += 2 {
		s.note(s.fields, call.Args[i], place)
		if text(call.Args[i]) == "subsystem" {
			s.note(s.subsystems, call.Args[i+1], place)
		}
	}
}

func (s spoken) note(into map[string]string, e ast.Expr, place string) {
	if name := text(e); name != "" {
		into[name] = place
	}
}

// isLogger goes by how loggers are called here.
func isLogger(e ast.Expr) bool {
	name := ""
	switch e := e.(type) {
	case *ast.Ident:
		name = e.Name
	case *ast.SelectorExpr:
		name = e.Sel.Name
	}
	name = strings.ToLower(name)
	return name == "log" || name == "logger" || name == "slog"
}

// text is a string literal's value, or nothing.
func text(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	value, _ := strconv.Unquote(lit.Value)
	return value
}
