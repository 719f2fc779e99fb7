package house

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// standardOnly are packages whose code imports the standard library and
// nothing else, neither ours nor anybody's.
var standardOnly = map[string]string{
	"internal/spec":       "everybody speaks the vocabulary, so it depends on nobody",
	"internal/faults":     "everybody returns faults, so they depend on nobody",
	"internal/atomicfile": "both programs replace files, so it depends on nobody",
	"internal/build":      "what a program says of itself needs nobody",
	"agent/internal/crdt": "merge laws know no rows of ours",
}

// pure are packages that decide and do nothing else: time, randomness and the
// state of the world are arguments, so equal input gives equal output on every
// machine. See ARCHITECTURE.
var pure = map[string]string{
	"internal/spec":           "ids and validation are the same on every machine",
	"internal/faults":         "an error is its words",
	"internal/plan":           "a plan that is shown is the plan that is carried out",
	"agent/internal/crdt":     "two machines that merge the same records must get the same",
	"agent/internal/schedule": "every machine computes the same placement",
}

// impure are the packages of the standard library that bring the world in, and
// what they bring. A pattern may end in /... .
var impure = map[string]string{
	"os/...":           "files, processes and the environment",
	"syscall":          "the kernel",
	"io/ioutil":        "files",
	"path/filepath":    "the working directory and links; paths of ours have slashes",
	"net":              "packets",
	"net/http/...":     "packets",
	"net/rpc/...":      "packets",
	"net/smtp":         "packets",
	"crypto/rand":      "randomness",
	"crypto/tls":       "packets, randomness and the clock",
	"math/rand/...":    "randomness",
	"hash/maphash":     "randomness: a seed of each process",
	"log/...":          "output; who calls decides what is logged",
	"database/sql/...": "a database",
	"runtime/...":      "the process: its goroutines and memory",
	"unsafe":           "memory",
	"C":                "anything",
	"plugin":           "anything",
	"context":          "waiting; what is pure has nothing to wait for",
	"testing":          "flags of the process",
}

// impureNames are what else is impure of packages that a pure one may import.
var impureNames = map[string]map[string]string{
	"time": {
		"Now": "the clock", "Since": "the clock", "Until": "the clock", "Sleep": "waiting", "After": "waiting", "AfterFunc": "waiting",
		"Tick": "waiting", "NewTimer": "waiting", "NewTicker": "waiting", "Local": "the machine's time zone", "LoadLocation": "files",
	},
	"fmt": {"Print": "output", "Printf": "output", "Println": "output", "Scan": "input", "Scanf": "input", "Scanln": "input"},
}

func TestOnlyTheStandardLibrary(t *testing.T) {
	named := maps.Clone(standardOnly)
	for _, p := range listPackages(t) {
		for _, complaint := range notStandard(p, standardOnly) {
			t.Error(complaint)
		}
		delete(named, p.ImportPath)
	}
	for p := range named {
		t.Errorf("the table names %s, which there is not", p)
	}
}

func TestPurePackages(t *testing.T) {
	named := maps.Clone(pure)
	for _, p := range listPackages(t) {
		why, is := pure[p.ImportPath]
		if !is {
			continue
		}
		delete(named, p.ImportPath)
		complaints := impureImports(p)
		for _, file := range p.GoFiles {
			found, err := impureUses(filepath.Join(p.Dir, file), nil)
			if err != nil {
				t.Fatal(err)
			}
			complaints = append(complaints, found...)
		}
		for _, complaint := range complaints {
			t.Errorf("%s, but %s is pure: %s", complaint, p.ImportPath, why)
		}
	}
	for p := range named {
		t.Errorf("the table names %s, which there is not", p)
	}
}

// notStandard are the imports of a package that a table allows no others than
// those of the standard library.
func notStandard(p pkg, table map[string]string) (complaints []string) {
	why, named := table[p.ImportPath]
	for _, imp := range p.Imports {
		if named && !standard(imp) {
			complaints = append(complaints, fmt.Sprintf("%s imports %s: %s", p.ImportPath, imp, why))
		}
	}
	return complaints
}

// standard tells whether an import is of the standard library: the first
// element of any other has a dot, besides ours.
func standard(imp string) bool {
	return !strings.Contains(first(imp), ".") && !strings.HasPrefix(imp, module) && imp != "C"
}

func impureImports(p pkg) (complaints []string) {
	for _, imp := range p.Imports {
		for pattern, what := range impure {
			if matches(pattern, imp) {
				complaints = append(complaints, fmt.Sprintf("%s imports %s, which is %s", p.ImportPath, imp, what))
			}
		}
	}
	return complaints
}

// impureUses are the uses of impureNames in a file. src is as for parser.ParseFile.
func impureUses(name string, src any) (complaints []string, err error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, src, 0)
	if err != nil {
		return nil, err
	}
	imports := map[string]string{} // by the name in this file
	for _, imp := range file.Imports {
		of, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			return nil, err
		}
		as := path.Base(of)
		if imp.Name != nil {
			as = imp.Name.Name
		}
		if as == "." && impureNames[of] != nil {
			complaints = append(complaints, fmt.Sprintf("%s imports the names of %s", files.Position(imp.Pos()), of))
		}
		imports[as] = of
	}
	ast.Inspect(file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := selector.X.(*ast.Ident); ok {
			if what := impureNames[imports[x.Name]][selector.Sel.Name]; what != "" {
				complaints = append(complaints, fmt.Sprintf("%s: %s.%s is %s", files.Position(selector.Pos()), x.Name, selector.Sel.Name, what))
			}
		}
		return true
	})
	return complaints, nil
}

// What the tables say is worth as much as the checks find in a package that
// breaks them.
func TestTheChecksFindWhatIsForbidden(t *testing.T) {
	bad := pkg{ImportPath: "internal/bad", Imports: []string{
		"strings", "net/netip", "net/url", "golang.org/x/sync/errgroup", "uncloud/internal/spec", "C",
		"os", "os/exec", "net", "net/http", "net/http/httputil", "math/rand", "math/rand/v2", "crypto/rand", "log/slog", "context",
	}, TestImports: []string{"uncloud/agent"}, XTestImports: []string{"uncloud/cli/cmd"}}
	imports := func(complaints []string) (out []string) {
		for _, c := range complaints {
			_, rest, _ := strings.Cut(c, " imports ")
			out = append(out, strings.TrimRight(strings.Fields(rest)[0], ":,"))
		}
		slices.Sort(out)
		return out
	}
	for name, c := range map[string]struct{ got, want []string }{
		"standard library only": {imports(notStandard(bad, map[string]string{"internal/bad": "why"})), []string{"C", "golang.org/x/sync/errgroup", "uncloud/internal/spec"}},
		"not in the table":      {imports(notStandard(bad, map[string]string{"internal/good": "why"})), nil},
		"pure":                  {imports(impureImports(bad)), []string{"C", "context", "crypto/rand", "log/slog", "math/rand", "math/rand/v2", "net", "net/http", "net/http/httputil", "os", "os/exec"}},
		"edges, tests too":      {imports(forbidden(bad, []edge{{"internal/...", "agent/...", nil, ""}, {"internal/bad", "cli/...", nil, ""}})), []string{"agent", "cli/cmd"}},
		"an edge excepted":      {imports(forbidden(bad, []edge{{"internal/...", "agent/...", []string{"internal/bad"}, ""}})), nil},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %q, want %q", name, c.got, c.want)
		}
	}
	uses, err := impureUses("bad.go", `package bad
		import ("fmt"; clock "time"; . "time")
		var a, b = clock.Now, fmt.Sprint(clock.Second)
		func f() { fmt.Println(clock.Since(clock.Time{})); a.Now() }`)
	if err != nil || len(uses) != 4 {
		t.Errorf("%d uses found, %v:\n%s", len(uses), err, strings.Join(uses, "\n"))
	}
}
