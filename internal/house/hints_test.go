package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// hintless are the folders, files and functions that make faults without a
// hint, and why that is right. All others say what to do next.
var hintless = map[string]string{
	"agent/cmd/storenode":                            "a tool for experiments, for those who read its source",
	"agent/internal/runtime/fake_storage.go":         "a twin of the engine, for tests",
	"agent/internal/store/generic.go":                "a row that does not fit its table is a bug of its writer, and is logged",
	"agent/internal/store/store.go add":              "see generic.go",
	"agent/internal/store/update.go commit":          "see generic.go",
	"agent/internal/store/values.go":                 "see generic.go",
	"cli/internal/command/app.go usage":              "each call of usage adds its own, which is looked at too",
	"cli/internal/command/root.go noSuchCommand":     "both of its ways out add one",
	"cli/internal/fakeapi":                           "an API for tests",
	"internal/compose/sources.go explainOne":         "explain gives those without a hint a general one",
	"internal/compose/sources.go fault":              "see explainOne; refuse asks for one",
	"internal/compose/placeless.go explainFile":      "see explainOne",
	"internal/compose/placeless.go explainPlaceless": "see explainOne",
	"internal/compose/placeless.go faultAt":          "see explainOne",
}

// TestFaultsSayWhatToDoNext finds each fault that is made without a hint in the
// same expression. What was interrupted needs none: that was the person.
func TestFaultsSayWhatToDoNext(t *testing.T) {
	used, all := map[string]bool{}, 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(filepath.ToSlash(path), "../../")
		if name == ".cache" { // ./dev keeps a Go toolchain there, and copies of the sources
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			function := ""
			if f, ok := decl.(*ast.FuncDecl); ok {
				function = f.Name.Name
			}
			made, bare := faultsIn(decl)
			all += made
			if bare == 0 {
				continue
			}
			row := excused(name, function)
			used[row] = true
			if row == "" {
				t.Errorf("%s: %s makes %d faults without a hint", name, function, bare)
			}
		}
		return nil
	})
	if err != nil || all < 200 {
		t.Fatalf("only %d faults were found: the test does not see the source any more (%v)", all, err)
	}
	for row := range hintless {
		if !used[row] {
			t.Errorf("%s makes no fault without a hint any more: remove its row", row)
		}
	}
}

// faultsIn counts the faults that are made below a node, and those without hint.
func faultsIn(n ast.Node) (made, bare int) {
	hinted := map[ast.Expr]bool{}
	ast.Inspect(n, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		selector, ok := call.Fun.(*ast.SelectorExpr)
		if ok && (selector.Sel.Name == "WithHint" || selector.Sel.Name == "hint" || hinted[call]) {
			hinted[selector.X] = true // the outer calls of a chain are seen before the inner ones
		}
		if isFault(call) {
			made++
			if !hinted[call] {
				bare++
			}
		}
		return true
	})
	return made, bare
}

// isFault tells whether a call is faults.New, but for Interrupted, or usage.
func isFault(call *ast.CallExpr) bool {
	if f, ok := call.Fun.(*ast.Ident); ok {
		return f.Name == "usage"
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || f.Sel.Name != "New" {
		return false
	}
	if pkg, ok := f.X.(*ast.Ident); !ok || pkg.Name != "faults" {
		return false
	}
	code, literal := call.Args[0].(*ast.SelectorExpr)
	return !literal || code.Sel.Name != "Interrupted"
}

// excused is the row that speaks for a function of a file, or nothing.
func excused(file, function string) string {
	for _, row := range []string{file + " " + function, file, filepath.Dir(file)} {
		if hintless[row] != "" {
			return row
		}
	}
	return ""
}
