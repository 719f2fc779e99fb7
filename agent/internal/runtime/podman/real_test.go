package podman

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/agent/internal/runtime/podman/podmantest"
	"uncloud/internal/spec"
)

const (
	testImage = "localhost/uncloud-test:1"
	patience  = 20 * time.Second
)

var testNetwork = runtime.Network{
	Name: runtime.NetworkName, Bridge: runtime.BridgeName, Subnet: netip.MustParsePrefix("10.210.7.0/24"),
}

// realPodman is a Podman with the test's image, network and bridge.
func realPodman(t testing.TB) *Engine {
	t.Helper()
	e := New(Config{Socket: podmantest.Socket(t)})
	prepare(t, e)
	return e
}

var prepareOnce sync.Once

func prepare(t testing.TB, e *Engine) {
	t.Helper()
	prepareOnce.Do(func() {
		removeAll(t, e)
		app, err := os.ReadFile(podmantest.File("app"))
		must(t, err)
		_, err = e.LoadImage(t.Context(), bytesReader(dockerArchive(testImage, []blob{tarBlob(map[string][]byte{"app": app})})))
		must(t, err)
	})
	must(t, e.EnsureNetwork(t.Context(), testNetwork))
	bridge(t, testNetwork)
}

// bridge makes the machine's bridge, which is the mesh's task in the product.
func bridge(t testing.TB, n runtime.Network) {
	t.Helper()
	if exec.Command("ip", "link", "show", n.Bridge).Run() == nil {
		return
	}
	command(t, "ip", "link", "add", n.Bridge, "type", "bridge")
	command(t, "ip", "link", "set", n.Bridge, "up")
	command(t, "ip", "addr", "add", netip.PrefixFrom(n.Gateway(), n.Subnet.Bits()).String(), "dev", n.Bridge)
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func removeAll(t testing.TB, e *Engine) {
	t.Helper()
	list, err := e.List(context.Background())
	must(t, err)
	for _, c := range list {
		must(t, e.Remove(context.Background(), c.ID))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var lastAddress atomic.Int32

// request asks for a container of the test's image that runs a verb of the app.
func request(_ testing.TB, verb ...string) runtime.ContainerRequest {
	n := lastAddress.Add(1)
	name := fmt.Sprintf("t%d", n)
	return runtime.ContainerRequest{
		Cluster: "cls_test", Project: "shop", Service: "svc_web", Replica: "rep_" + name, Revision: "rev_1",
		Name: name, Hostname: name, Network: testNetwork.Name,
		Address: netip.AddrFrom4([4]byte{10, 210, 7, byte(10 + n)}),
		DNS:     testNetwork.Gateway(), Search: []string{"shop.internal", "internal"},
		Spec: spec.ContainerSpec{Image: testImage, Command: verb},
	}
}

// create makes a container that goes with the test.
func create(t *testing.T, e *Engine, r runtime.ContainerRequest) string {
	t.Helper()
	id, err := e.Create(t.Context(), r)
	must(t, err)
	t.Cleanup(func() { must(t, e.Remove(context.Background(), id)) })
	return id
}

// run makes and starts a container.
func run(t *testing.T, e *Engine, r runtime.ContainerRequest) string {
	t.Helper()
	id := create(t, e, r)
	must(t, e.Start(t.Context(), id))
	return id
}

func inspect(t *testing.T, e *Engine, id string) runtime.Container {
	t.Helper()
	c, err := e.Inspect(t.Context(), id)
	must(t, err)
	return c
}

// listed is a container as List shows it.
func listed(t *testing.T, e *Engine, id string) runtime.Container {
	t.Helper()
	list, err := e.List(t.Context())
	must(t, err)
	for _, c := range list {
		if c.ID == id {
			return c
		}
	}
	t.Fatalf("container %.12s is not listed", id)
	return runtime.Container{}
}

// watcher hands each wake to a channel.
func watcher(t testing.TB, e *Engine) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	wakes, done := make(chan struct{}, 100), make(chan error, 1)
	go func() {
		done <- e.Watch(ctx, func() {
			select {
			case wakes <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return wakes
}

// awaitState waits, by wakes, until a container is in a state.
func awaitState(t *testing.T, e *Engine, wakes <-chan struct{}, id string, want runtime.State) runtime.Container {
	t.Helper()
	deadline := time.After(patience)
	for {
		c := listed(t, e, id)
		if c.State == want {
			return c
		}
		select {
		case <-wakes:
		case <-deadline:
			t.Fatalf("container is %s, want %s", c.State, want)
		}
	}
}

// output runs a verb of the app in a container.
func output(t *testing.T, e *Engine, id string, verb ...string) string {
	t.Helper()
	out := &strings.Builder{}
	code, err := e.Exec(t.Context(), id, runtime.ExecRequest{Command: append([]string{"/app"}, verb...), Stdout: out, Stderr: out})
	must(t, err)
	if code != 0 {
		t.Fatalf("%v: exit code %d: %s", verb, code, out)
	}
	return strings.TrimSpace(out.String())
}
