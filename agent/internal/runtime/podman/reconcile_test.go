package podman

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"uncloud/agent/internal/reconcile"
	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// The reconciler is proven with the twin of an engine. Here it meets Podman:
// that what it believes of engines holds for this one, and how long it takes.

// rows is a store in memory, and the recorder that writes to it.
type rows struct {
	mu    sync.Mutex
	state *spec.State
	wake  chan struct{}
	ran   chan struct{} // of one: something was recorded
}

func newRows() *rows {
	return &rows{wake: make(chan struct{}, 1), ran: make(chan struct{}, 1), state: &spec.State{
		Machines: map[string]spec.Machine{"mch_1": {ID: "mch_1", Subnet: testNetwork.Subnet}},
		Services: map[string]spec.Service{}, Revisions: map[string]spec.Revision{}, Replicas: map[string]spec.Replica{}, Containers: map[string]spec.Container{},
	}}
}

func (r *rows) State() *spec.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

func (r *rows) Ready() bool                          { return true }
func (r *rows) Subscribe() (<-chan struct{}, func()) { return r.wake, func() {} }
func (r *rows) Watch(string, reconcile.Target)       {}
func (r *rows) Forget(string)                        {}
func (r *rows) update(change func(*spec.State)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := *r.state
	s.Services, s.Revisions, s.Replicas, s.Containers = maps.Clone(s.Services), maps.Clone(s.Revisions), maps.Clone(s.Replicas), maps.Clone(s.Containers)
	change(&s)
	r.state = &s
	offer(r.wake)
}

func offer(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *rows) Record(_ context.Context, changed []spec.Container, gone []string) error {
	r.update(func(s *spec.State) {
		for _, c := range changed {
			s.Containers[c.Replica] = c
		}
		for _, id := range gone {
			delete(s.Containers, id)
		}
	})
	offer(r.ran)
	return nil
}

// want writes a service with one replica that runs a verb of the app.
func (r *rows) want(id string, change func(*spec.ServiceSpec), verb ...string) {
	rev := spec.Revision{ID: "rev_" + id, Service: "svc_" + id, Spec: spec.ServiceSpec{Name: id, Container: spec.ContainerSpec{Image: testImage, Command: verb}}}
	if change != nil {
		change(&rev.Spec)
	}
	r.update(func(s *spec.State) {
		s.Revisions[rev.ID] = rev
		s.Services["svc_"+id] = spec.Service{ID: "svc_" + id, Project: "shop", Name: id, Wanted: spec.WantRunning, Revision: rev.ID}
		s.Replicas["rep_"+id] = spec.Replica{ID: "rep_" + id, Name: id + "-1", Service: "svc_" + id, Revision: rev.ID, Machine: "mch_1", Wanted: spec.WantRunning}
	})
}

// await waits until a replica's row is as wanted.
func (r *rows) await(t testing.TB, replica string, ok func(spec.Container) bool) spec.Container {
	t.Helper()
	deadline := time.After(patience)
	for {
		if c := r.State().Containers[replica]; ok(c) {
			return c
		}
		select {
		case <-r.ran:
		case <-deadline:
			t.Fatalf("replica is still %+v", r.State().Containers[replica])
		}
	}
}

func reconciling(t testing.TB, e *Engine) (*rows, *reconcile.Reconciler) {
	t.Helper()
	store := newRows()
	r := reconcile.New(reconcile.Config{
		Machine: "mch_1", Cluster: "cls_1", Engine: e, Store: store, Recorder: store, Health: store,
		Network: func(ctx context.Context, subnet netip.Prefix) error {
			return e.EnsureNetwork(ctx, runtime.Network{Name: testNetwork.Name, Bridge: testNetwork.Bridge, Subnet: subnet})
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		list, err := e.List(context.Background())
		must(t, err)
		for _, c := range list {
			must(t, e.Remove(context.Background(), c.ID))
		}
	})
	return store, r
}

func TestReconcilerOnPodman(t *testing.T) {
	e := realPodman(t)
	store, r := reconciling(t, e)
	none := spec.Duration(0)
	store.want("web", func(s *spec.ServiceSpec) { s.Update.Monitor = &none })
	res, err := r.EnsureReplica(t.Context(), "rep_web", false)
	must(t, err)
	if res.Fault != nil || res.Container.State != spec.ContainerRunning || !testNetwork.Subnet.Contains(res.Container.Address) {
		t.Fatalf("%+v", res)
	}
	first := res.Container

	command(t, "podman", "rm", "-f", "-t", "0", first.EngineID)
	again := store.await(t, "rep_web", func(c spec.Container) bool { return c.EngineID != first.EngineID && c.State == spec.ContainerRunning })

	conmon, _ := pids(t, e, again.EngineID)
	must(t, syscall.Kill(conmon, syscall.SIGKILL))
	// A cure may leave the row as it was, so Podman is asked.
	for deadline := time.Now().Add(patience); ; {
		now, _ := pids(t, e, again.EngineID)
		if now != conmon && now != 0 && inspect(t, e, again.EngineID).State == runtime.Running {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the container has no monitor again")
		}
	}

	store.update(func(s *spec.State) { delete(s.Replicas, "rep_web") })
	must(t, r.RetireReplica(t.Context(), "rep_web"))
	if _, err := e.Inspect(t.Context(), again.EngineID); !errors.Is(err, runtime.ErrNoContainer) {
		t.Errorf("after retirement: %v", err)
	}
}

func TestReconcilerTellsWhatIsWrong(t *testing.T) {
	e := realPodman(t)
	store, r := reconciling(t, e)
	for _, c := range []struct {
		name     string
		change   func(*spec.ServiceSpec)
		verb     []string
		code     faults.Code
		sentence string
		logs     string
	}{
		{"exits", nil, []string{"exit", "7"}, faults.Unhealthy, "replica exits-1 exited with code 7", "going to exit bye"},
		{"later", nil, []string{"lines", "2", "600ms", "4"}, faults.Unhealthy, "replica later-1 exited with code 4 after ", "line 0 err 0 line 1 err 1"},
		{"noimage", func(s *spec.ServiceSpec) { s.Container.Image, s.Container.PullPolicy = "localhost/absent:1", "never" }, nil,
			faults.NoImage, "replica noimage-1: image localhost/absent:1 is not on this machine", ""},
		{"badmount", func(s *spec.ServiceSpec) {
			s.Container.Mounts = []spec.Mount{{Type: spec.MountBind, Source: "/absent/here", Target: "/x"}}
		}, nil, faults.Engine, "/absent/here", ""},
		{"noprogram", func(s *spec.ServiceSpec) { s.Container.Entrypoint = []string{"/absent"} }, nil, faults.Engine, "/absent", ""},
	} {
		store.want(c.name, c.change, c.verb...)
		res, err := r.EnsureReplica(t.Context(), "rep_"+c.name, false)
		must(t, err)
		if faults.CodeOf(res.Fault) != c.code || !strings.Contains(res.Fault.Error(), c.sentence) {
			t.Errorf("%s: %v (%s), want %q", c.name, res.Fault, faults.CodeOf(res.Fault), c.sentence)
		}
		t.Logf("%s: %v [%s] %q", c.name, res.Fault, faults.Of(res.Fault).Hint, res.Logs)
		if got := strings.Join(res.Logs, " "); got != c.logs {
			t.Errorf("%s: logs %q, want %q", c.name, got, c.logs)
		}
		store.update(func(s *spec.State) { delete(s.Replicas, "rep_"+c.name) })
		must(t, r.RetireReplica(t.Context(), "rep_"+c.name))
	}
}

const dozen = 12

// BenchmarkTwelveRaw is the control: Podman alone, four at a time.
func BenchmarkTwelveRaw(b *testing.B) {
	e := realPodman(b)
	for b.Loop() {
		group := errgroup.Group{}
		group.SetLimit(4)
		ids := make([]string, dozen)
		for i := range dozen {
			group.Go(func() (err error) {
				if ids[i], err = e.Create(context.Background(), request(b)); err != nil {
					return err
				}
				return e.Start(context.Background(), ids[i])
			})
		}
		must(b, group.Wait())
		b.StopTimer()
		lastAddress.Add(-dozen)
		for _, id := range ids {
			must(b, e.Remove(context.Background(), id))
		}
		b.StartTimer()
	}
}

// BenchmarkTwelveReconciled is from the rows being written to twelve answers.
func BenchmarkTwelveReconciled(b *testing.B) {
	e := realPodman(b)
	store, r := reconciling(b, e)
	for b.Loop() {
		group := errgroup.Group{}
		for i := range dozen {
			id := fmt.Sprintf("web%d", i)
			store.want(id, nil)
			group.Go(func() error {
				res, err := r.EnsureReplica(context.Background(), "rep_"+id, true)
				return errors.Join(err, res.Fault)
			})
		}
		must(b, group.Wait())
		b.StopTimer()
		store.update(func(s *spec.State) { clear(s.Replicas) })
		for i := range dozen {
			must(b, r.RetireReplica(context.Background(), fmt.Sprintf("rep_web%d", i)))
		}
		b.StartTimer()
	}
}
