package ingress

import (
	"bytes"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uncloud/internal/spec"
)

var update = flag.Bool("update", false, "write what the code makes into the golden files")

var compileCases = map[string]func(w *world){
	"empty": func(*world) {},
	"http-and-https": func(w *world) {
		id := w.service("web", "", ingressPort("http", "plain.example.com", 8080), ingressPort("https", "app.shop.net", 8080),
			ingressPort("https", "App.Shop.Internal", 8080))
		w.replica(id, "self", "10.210.0.2")
		w.replica(id, "near", "10.210.1.2")
		w.replica(id, "far", "10.210.2.2")
	},
	"not-eligible": func(w *world) {
		id := w.service("web", "", ingressPort("http", "app.shop.net", 80))
		w.drain(w.replica(id, "self", "10.210.0.2"))
		sick := w.replica(id, "self", "10.210.0.3")
		c := w.state.Containers[sick]
		c.Health = spec.HealthUnhealthy
		w.state.Containers[sick] = c
		w.replica(id, "near", "10.210.1.2")
		w.replica(id, "far", "10.210.2.2")
		w.alive["far"] = false
	},
	"default-name": func(w *world) {
		w.state.Cluster.Domain = "home.example.net"
		w.service("web", "", ingressPort("https", "", 8080))
	},
	"no-name": func(w *world) {
		w.service("web", "", ingressPort("http", "", 8080))
		w.service("secure", "", ingressPort("https", "", 8080))
	},
	"own-ports": func(w *world) {
		port := ingressPort("https", "app.shop.net", 8080)
		port.Published = 8443
		w.service("web", "", port)
		plain := ingressPort("http", "app.shop.net", 8080)
		plain.Published = 8081
		w.service("plain", "", plain)
	},
	"conflict": func(w *world) {
		w.service("first", "", ingressPort("https", "app.shop.net", 8080))
		w.service("second", "", ingressPort("https", "app.shop.net", 9090))
	},
	"tcp-is-not-served": func(w *world) {
		w.service("db", "", spec.Port{Mode: spec.IngressPort, Container: 5432, Published: 5432, Protocol: "tcp"})
	},
	"settings": func(w *world) {
		w.set = Settings{
			Address: "127.0.0.1", HTTPPort: 8080, HTTPSPort: 8443, ACMEEmail: "ops@shop.net",
			ACMEDirectory: "https://acme.test/dir", ACMERoots: []string{"/root.pem"}, PrivateSuffixes: []string{"corp.shop.net"},
		}
		w.service("web", "", ingressPort("https", "app.corp.shop.net", 80), ingressPort("https", "app.shop.net", 80))
	},
	"snippet": func(w *world) {
		id := w.service("web", "app.shop.net, http://plain.shop.net {\n\theader X-From {{.Name}}\n\treverse_proxy {{upstreams 8080}}\n}\n"+
			"api.shop.internal {\n\ttls internal\n\treverse_proxy {{upstreams \"api\" 9090}}\n\thandle_errors {\n\t\trespond \"sorry\"\n\t}\n}\n")
		w.replica(id, "near", "10.210.1.2")
		w.replica(id, "self", "10.210.0.2")
		w.replica(w.service("api", ""), "far", "10.210.2.9")
	},
	"snippet-without-upstreams": func(w *world) {
		w.service("web", "app.shop.net {\n\treverse_proxy {{upstreams 8080}}\n}\n")
	},
	"snippet-refused": func(w *world) {
		w.service("owner", "", ingressPort("https", "app.shop.net", 80))
		for name, text := range map[string]string{
			"a-syntax":   "app.a.net {\n\trespond",
			"b-template": "app.b.net {\n\treverse_proxy {{upstreams \"nobody\" 80}}\n}\n",
			"c-global":   "{\n\tadmin :2019\n}\napp.c.net {\n\trespond hi\n}\n",
			"d-debug":    "{\n\tdebug\n}\napp.d.net {\n\trespond hi\n}\n",
			"e-any-name": ":443 {\n\trespond hi\n}\n",
			"f-port":     "app.f.net:9443 {\n\trespond hi\n}\n",
			"g-log":      "app.g.net {\n\tlog {\n\t\toutput file /etc/passwd\n\t}\n}\n",
			"h-file":     "app.h.net {\n\trespond {file./etc/shadow}\n}\n",
			"i-env":      "app.i.net {\n\trespond {$HOME}\n}\n",
			"j-import":   "import /etc/passwd\n",
			"k-taken":    "app.shop.net {\n\trespond mine\n}\n",
			"l-files":    "app.l.net {\n\tfile_server\n}\n",
		} {
			w.service(name, text)
			id := spec.ServiceID("shop", name)
			svc := w.state.Services[id]
			svc.CreatedAt = w.clock // the order of a map must not show
			w.state.Services[id] = svc
		}
	},
	"snippets-of-one-name": func(w *world) {
		w.service("first", "app.shop.net {\n\trespond first\n}\n")
		w.service("second", "app.shop.net {\n\trespond second\n}\n")
	},
}

func TestCompileGolden(t *testing.T) {
	for name, build := range compileCases {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			build(w)
			got := show(t, w, Compile(w.input(), nil))
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// show is what differs from one case to the next, with names for ids.
func show(t *testing.T, w *world, c Compiled) []byte {
	t.Helper()
	var full map[string]any
	if err := json.Unmarshal(c.Config, &full); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(map[string]any{
		"apps": full["apps"], "upstreams": c.Upstreams, "notes": c.Notes, "snippets": c.Snippets,
	}); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for id, svc := range w.state.Services {
		text = strings.ReplaceAll(text, id, svc.Name)
	}
	return []byte(text)
}

// The configuration has nothing of this process in it: it is the same for the
// same state, whatever the order of maps, and does not change when only the
// upstreams of published ports do.
func TestCompileIsStable(t *testing.T) {
	for name, build := range compileCases {
		w := newWorld()
		build(w)
		first := Compile(w.input(), nil)
		for range 5 {
			if again := Compile(w.input(), nil); !bytes.Equal(first.Config, again.Config) {
				t.Fatalf("%s: not stable", name)
			}
		}
	}
	w := newWorld()
	id := w.service("web", "", ingressPort("https", "app.shop.net", 8080))
	before := Compile(w.input(), nil)
	w.replica(id, "self", "10.210.0.2")
	after := Compile(w.input(), nil)
	if !bytes.Equal(before.Config, after.Config) {
		t.Error("a new replica changed the configuration")
	}
	if len(after.Upstreams["https://app.shop.net"]) != 1 {
		t.Errorf("upstreams: %v", after.Upstreams)
	}
}

func TestAdminIsOffAndNothingPersists(t *testing.T) {
	var c struct {
		Admin struct {
			Disabled bool
			Config   struct{ Persist *bool }
		}
	}
	if err := json.Unmarshal(Compile(newWorld().input(), nil).Config, &c); err != nil {
		t.Fatal(err)
	}
	if !c.Admin.Disabled || c.Admin.Config.Persist == nil || *c.Admin.Config.Persist {
		t.Errorf("%+v", c)
	}
}

func TestPrivateName(t *testing.T) {
	for name, want := range map[string]bool{
		"app.shop.net": false, "example.dev": false, "myexample.com": false, "internal.shop.net": false,
		"app.internal": true, "app.local": true, "app.localhost": true, "x.test": true, "x.example": true,
		"hello.example.com": true, "example.org": true, "nas.home.arpa": true, "nas": true, "10.0.0.1": true, "::1": true,
		"App.INTERNAL.": true, "a.corp.shop.net": true, "corp.shop.net": true, "xcorp.shop.net": false,
	} {
		if got := PrivateName(name, []string{".corp.shop.net"}); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWeight(t *testing.T) {
	in := newWorld().input()
	in.RTT = map[string]time.Duration{"a": 999 * time.Microsecond, "b": time.Millisecond, "c": 100 * time.Millisecond, "d": time.Hour}
	for machine, want := range map[string]int{"self": 2000, "unknown": 1000, "a": 1000, "b": 500, "c": 7, "d": 1} {
		if got := in.weight(machine); got != want {
			t.Errorf("%s: %d, want %d", machine, got, want)
		}
	}
}

// draw gives each address once, and the first place in proportion to weights.
func TestDraw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(0, 2000), 0, 8).Draw(t, "weights")
		var ups []Upstream
		for i, w := range weights {
			ups = append(ups, Upstream{Address: string(rune('a' + i)), Weight: w})
		}
		seen := map[string]bool{}
		for _, address := range draw(ups, rand.New(rand.NewPCG(1, 2)).Float64) {
			if seen[address] {
				t.Fatalf("%s twice", address)
			}
			seen[address] = true
		}
		if len(seen) != len(ups) {
			t.Fatalf("%d of %d", len(seen), len(ups))
		}
	})
	random, first := rand.New(rand.NewPCG(3, 4)), 0
	for range 10000 {
		if draw([]Upstream{{"a", 300}, {"b", 100}}, random.Float64)[0] == "a" {
			first++
		}
	}
	if first < 7200 || first > 7800 {
		t.Errorf("a was first %d times of 10000, want about 7500", first)
	}
}
