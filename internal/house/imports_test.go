package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
)

// engines are the third-party libraries that do the product's heavy work. Each
// is imported by exactly one place, so that it can be understood, tested and
// replaced there. Sub-packages of the importer count as the importer.
var engines = []struct {
	path string
	only []string
	why  string
}{
	{"github.com/mattn/go-sqlite3", []string{"agent/internal/store"}, "the only SQL: nothing may bypass the capture of changes"},
	{"database/sql", []string{"agent/internal/store", "agent/cmd/storenode", "tests/bench"}, "the only SQL: nothing may bypass the capture of changes; storenode's benchmark has a plain table as its control"},
	{"github.com/hashicorp/serf", []string{"agent/internal/gossip"}, "membership carries no data; one place knows Serf's limits"},
	{"github.com/hashicorp/memberlist", []string{"agent/internal/gossip"}, "see serf"},
	{"golang.zx2c4.com/wireguard", []string{"agent/internal/mesh"}, "one owner of links, peers and keys"},
	{"gvisor.dev/gvisor", []string{"agent/internal/mesh"}, "the join device has its own network stack, and nothing else needs one"},
	{"github.com/vishvananda/netlink", []string{"agent/internal/mesh", "agent/internal/firewall"}, "one owner of links, addresses and routes; the firewall ends the flows that its rules lead elsewhere"},
	{"github.com/containers/podman", []string{"agent/internal/runtime/podman", "tests/bench"}, "the traps of Podman's API are handled once; the benchmark calls it as its control"},
	{"github.com/compose-spec/compose-go", []string{"internal/compose"}, "Compose is a format at the rim; inside there is only spec"},
	{"github.com/miekg/dns", []string{"agent/internal/names"}, "one owner of port 53"},
	{"github.com/caddyserver", []string{"agent/internal/ingress"}, "Caddy's global state has one owner"},
	{"github.com/coreos/go-systemd", []string{"agent"}, "readiness and watchdog speak for the whole agent"},
	{"connectrpc.com/connect", []string{"api", "internal/wire", "agent/internal/server", "cli/internal", "agent/cmd/uncloudd"}, "messages stay at the rim; inside there are only the product's own types"},
	{"github.com/spf13/cobra", []string{"cli", "agent/cmd/uncloudd"}, "flags are for programs, not for packages"},
	{"charm.land", []string{"cli/internal"}, "only the CLI draws"},
	{"github.com/google/go-containerregistry", []string{"agent/internal/images", "cli/internal/push", "tests"}, "one place at each end of an image push"},
	{"github.com/prometheus/client_golang", []string{"agent"}, "metrics are registered where everything is known"},
}

type edge struct {
	from, to string
	except   []string
	why      string
}

// edges are imports between our own packages that must not happen. A pattern
// is a package or, with a trailing /..., everything below it too.
// They hold for tests too.
var edges = []edge{
	{"internal/plan", "agent/...", nil, "a plan is pure and is shown by the CLI"},
	{"internal/...", "agent/...", []string{"internal/house"}, "what is shared may not know the agent"},
	{"internal/...", "cli/...", []string{"internal/house"}, "what is shared may not know the CLI"},
	{"cli/...", "agent/...", nil, "the CLI talks to machines through the API only"},
	{"agent/...", "cli/...", nil, "a machine needs no CLI"},
	{"api/...", "internal/...", nil, "the contract stands alone"},
	{"agent/internal/...", "agent", nil, "nobody but main knows the composition root"},
	{"agent/internal/firstboot", "agent/...", nil, "it runs before there is an agent, and is told what it needs"},
}

// siblings are the packages under agent/internal that others of them may
// import, because they hold contracts or pure functions and no engine.
var siblings = map[string]string{
	"crdt":     "merge laws: store and sync speak of records and versions in its types",
	"runtime":  "the contract of a container engine, which podman fulfils and reconcile uses",
	"schedule": "pure placement, used by the rollout driver",
	"stall":    "how long a loop has been at one turn, for the watchdog to ask",
}

// mayImport are edges between siblings that the table above does not cover.
var mayImport = map[[2]string]string{
	{"sync", "store"}: "sync moves what store exports; there is one store",
}

const module = "uncloud/"

type pkg struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// all are the imports of a package and of its tests.
func (p pkg) all() []string { return slices.Concat(p.Imports, p.TestImports, p.XTestImports) }

var listed = sync.OnceValues(func() ([]pkg, error) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,TestImports,XTestImports", module+"...").Output()
	if err != nil {
		return nil, err
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, err
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		pkgs = append(pkgs, p)
	}
})

func listPackages(t *testing.T) []pkg {
	t.Helper()
	pkgs, err := listed()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return pkgs
}

func TestEnginesHaveOneImporter(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, imp := range p.Imports {
			for _, e := range engines {
				if (imp == e.path || strings.HasPrefix(imp, e.path+"/")) && !allowed(p.ImportPath, e.only) {
					t.Errorf("%s imports %s, which belongs to %s: %s", p.ImportPath, imp, strings.Join(e.only, ", "), e.why)
				}
			}
		}
	}
}

// allowed tells whether a package is one of the importers or below one. The
// composition root is "agent" alone, not everything below it.
func allowed(p string, only []string) bool {
	return slices.ContainsFunc(only, func(o string) bool {
		return p == o || (o != "agent" && strings.HasPrefix(p, o+"/"))
	})
}

func TestForbiddenEdges(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, complaint := range forbidden(p, edges) {
			t.Error(complaint)
		}
	}
}

// forbidden are the edges of a package that a table forbids.
func forbidden(p pkg, table []edge) (complaints []string) {
	for _, imp := range p.all() {
		to, ours := strings.CutPrefix(imp, module)
		for _, e := range table {
			if ours && matches(e.from, p.ImportPath) && matches(e.to, to) && !slices.Contains(e.except, p.ImportPath) {
				complaints = append(complaints, fmt.Sprintf("%s imports %s: %s", p.ImportPath, to, e.why))
			}
		}
	}
	return complaints
}

func TestSiblingsDoNotKnowEachOther(t *testing.T) {
	const root = "agent/internal/"
	for _, p := range listPackages(t) {
		from, ok := strings.CutPrefix(p.ImportPath, root)
		if !ok {
			continue
		}
		for _, imp := range p.Imports {
			to, ok := strings.CutPrefix(imp, module+root)
			if !ok {
				continue
			}
			a, b := first(from), first(to)
			if a == b || siblings[to] != "" || mayImport[[2]string{a, b}] != "" {
				continue
			}
			t.Errorf("agent/internal/%s imports its sibling %s: state what is needed as an interface and let agent.go fit them together", from, to)
		}
	}
}

func first(p string) string {
	head, _, _ := strings.Cut(p, "/")
	return head
}

func matches(pattern, p string) bool {
	if dir, ok := strings.CutSuffix(pattern, "..."); ok {
		return strings.HasPrefix(p+"/", dir) || dir == ""
	}
	ok, err := path.Match(pattern, p)
	return err == nil && ok
}
