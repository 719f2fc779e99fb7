package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"uncloud/internal/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a Prober over containers that are told how to behave.
type bench struct {
	*Prober
	mu       sync.Mutex
	behave   func(ctx context.Context, container string) (int, string, error)
	probes   int
	at, most int // under way now, and at most
	verdicts []string
	began    time.Time
}

// lastOutput is what the last failed probe of a watched replica said.
func (b *bench) lastOutput(replica string) string {
	b.Prober.mu.Lock()
	defer b.Prober.mu.Unlock()
	if w := b.watches[replica]; w != nil {
		return w.output
	}
	return ""
}

// health is the verdict of a replica; false when it is not watched.
func (b *bench) health(replica string) (spec.Health, bool) {
	b.Prober.mu.Lock()
	defer b.Prober.mu.Unlock()
	if w := b.watches[replica]; w != nil {
		return w.health, true
	}
	return "", false
}

// run starts a bench within a bubble of virtual time. Its end is awaited.
func run(t *testing.T, behave func(ctx context.Context, container string) (int, string, error), test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{behave: behave, began: time.Now()}
		b.Prober = New(Options{
			Log: slog.New(slog.DiscardHandler),
			Exec: func(ctx context.Context, container string, _ []string) (int, string, error) {
				b.mu.Lock()
				b.probes++
				b.at++
				b.most = max(b.most, b.at)
				behave := b.behave
				b.mu.Unlock()
				defer func() { b.mu.Lock(); b.at--; b.mu.Unlock() }()
				return behave(ctx, container)
			},
			OnChange: func(v Verdict) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.verdicts = append(b.verdicts, fmt.Sprintf("%gs %s/%s %s", v.At.Sub(b.began).Seconds(), v.Replica, v.ContainerID, v.Health))
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		test(b)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (b *bench) said() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.verdicts)
}

func (b *bench) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.probes
}

func well(context.Context, string) (int, string, error) { return 0, "", nil }
func ill(context.Context, string) (int, string, error)  { return 1, "no database\n", nil }

func execTarget(container string) Target {
	return Target{ContainerID: container, Check: spec.HealthCheck{Exec: []string{"true"}, Interval: seconds(10), Timeout: seconds(5), Retries: 3}}
}

func wait(d time.Duration) {
	time.Sleep(d) // virtual
	synctest.Wait()
}

func TestLife(t *testing.T) {
	run(t, ill, func(b *bench) {
		b.Watch("rep_a", execTarget("c1"))
		wait(1900 * time.Millisecond)
		if got := b.lastOutput("rep_a"); got != "exit code 1: no database" {
			t.Errorf("output %q", got)
		}
		b.mu.Lock()
		b.behave = well
		b.mu.Unlock()
		wait(20 * time.Second)
		b.mu.Lock()
		b.behave = ill
		b.mu.Unlock()
		wait(30 * time.Second)
		want := []string{"0s rep_a/c1 starting", "2s rep_a/c1 healthy", "42s rep_a/c1 unhealthy"}
		if got := b.said(); !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		if h, ok := b.health("rep_a"); h != spec.HealthUnhealthy || !ok {
			t.Error(h, ok)
		}
	})
}

func TestWatchAgain(t *testing.T) {
	run(t, well, func(b *bench) {
		b.Watch("rep_a", execTarget("c1"))
		wait(time.Second)
		before := b.count()
		for range 5 {
			again := execTarget("c1")
			again.Known = spec.HealthHealthy
			b.Watch("rep_a", again)
		}
		wait(time.Second)
		if b.count() != before {
			t.Errorf("watching what is watched made %d probes", b.count()-before)
		}
		b.mu.Lock()
		b.behave = ill
		b.mu.Unlock()
		changed := execTarget("c1")
		changed.Check.Interval = seconds(7)
		b.Watch("rep_a", changed)
		wait(time.Second)
		if h, _ := b.health("rep_a"); h != spec.HealthHealthy {
			t.Errorf("a new check made the same container %s", h)
		}
		b.Watch("rep_a", execTarget("c2"))
		wait(time.Second)
		want := []string{"0s rep_a/c1 starting", "0s rep_a/c1 healthy", "3s rep_a/c2 starting"}
		if got := b.said(); !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
	})
}

// TestAnotherRun: a container that was stopped and started is as unknown as a
// new one, and the verdicts name the run that they are of.
func TestAnotherRun(t *testing.T) {
	run(t, well, func(b *bench) {
		var runs []time.Time
		b.options.OnChange = func(v Verdict) { runs = append(runs, v.StartedAt) }
		first := execTarget("c1")
		first.StartedAt = time.Now().Add(-time.Minute)
		b.Watch("rep_a", first)
		wait(time.Second)
		second := first
		second.StartedAt = time.Now().Add(time.Hour) // by a clock that was set back since
		b.Watch("rep_a", second)
		wait(time.Second)
		b.Watch("rep_a", second)
		wait(time.Second)
		want := []time.Time{first.StartedAt, first.StartedAt, second.StartedAt, second.StartedAt}
		if !slices.Equal(runs, want) {
			t.Errorf("verdicts of the runs %v, not of %v", runs, want)
		}
	})
}

func TestForget(t *testing.T) {
	var cut bool
	hang := func(ctx context.Context, _ string) (int, string, error) {
		<-ctx.Done()
		cut = true
		return 0, "", ctx.Err()
	}
	run(t, hang, func(b *bench) {
		b.Watch("rep_a", execTarget("c1"))
		wait(time.Second)
		b.Forget("rep_a")
		b.Forget("rep_a")
		synctest.Wait()
		if !cut {
			t.Error("the probe goes on")
		}
		wait(time.Minute)
		if got := b.said(); len(got) != 1 || b.count() != 1 || b.lastOutput("rep_a") != "" {
			t.Errorf("%q, %d probes", got, b.count())
		}
		if _, ok := b.health("rep_a"); ok {
			t.Error("still watched")
		}
	})
}

func TestAgentRestart(t *testing.T) {
	run(t, ill, func(b *bench) {
		target := execTarget("c1")
		target.StartedAt, target.Known = time.Now().Add(-time.Hour), spec.HealthHealthy
		b.Watch("rep_a", target)
		wait(25 * time.Second)
		if got := b.said(); !slices.Equal(got, []string{"20s rep_a/c1 unhealthy"}) {
			t.Errorf("%q", got)
		}
	})
}

func TestTimeoutIsAFailure(t *testing.T) {
	hang := func(ctx context.Context, _ string) (int, string, error) {
		<-ctx.Done()
		return 0, "", ctx.Err()
	}
	run(t, hang, func(b *bench) {
		target := execTarget("c1")
		target.Known = spec.HealthHealthy
		b.Watch("rep_a", target)
		wait(34 * time.Second)
		if got := b.said(); len(got) != 0 {
			t.Errorf("too early: %q", got)
		}
		wait(2 * time.Second) // 5 s each, 10 s between
		if got := b.said(); !slices.Equal(got, []string{"35s rep_a/c1 unhealthy"}) || b.lastOutput("rep_a") != "no answer within 5s" {
			t.Errorf("%q %q", got, b.lastOutput("rep_a"))
		}
	})
}

// TestEngineAway: an engine that restarts makes nobody unhealthy who was well,
// and nobody healthy who never was.
func TestEngineAway(t *testing.T) {
	away := func(context.Context, string) (int, string, error) { return 0, "", errors.New("connection refused") }
	run(t, away, func(b *bench) {
		known := execTarget("c1")
		known.Known = spec.HealthHealthy
		b.Watch("rep_a", known)
		b.Watch("rep_b", execTarget("c2"))
		wait(time.Minute)
		if h, _ := b.health("rep_a"); h != spec.HealthHealthy {
			t.Error(h)
		}
		if h, _ := b.health("rep_b"); h != spec.HealthUnhealthy {
			t.Error(h)
		}
	})
}

func TestExecsAreBounded(t *testing.T) {
	slow := func(ctx context.Context, _ string) (int, string, error) {
		time.Sleep(4 * time.Second)
		return 0, "", ctx.Err()
	}
	run(t, slow, func(b *bench) {
		for i := range 3 * execLimit {
			b.Watch(fmt.Sprint("rep_", i), execTarget(fmt.Sprint("c", i)))
		}
		wait(13 * time.Second) // waiting for a slot takes 8 s, more than the timeout of 5 s
		healthy := 0
		for _, v := range b.said() {
			if strings.HasSuffix(v, " healthy") {
				healthy++
			}
		}
		if b.most != execLimit || healthy != 3*execLimit {
			t.Errorf("%d at once, %d healthy", b.most, healthy)
		}
	})
}

func TestWatchBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan Verdict, 4)
		p := New(Options{Log: slog.New(slog.DiscardHandler), OnChange: func(v Verdict) { told <- v },
			TCP: func(_ context.Context, address string) error {
				if address != "10.210.7.2:5432" {
					t.Error(address)
				}
				return nil
			}})
		p.Watch("rep_a", Target{ContainerID: "c1", Address: netip.MustParseAddr("10.210.7.2"), Check: spec.HealthCheck{TCP: ":5432"}})
		p.Watch("rep_b", Target{ContainerID: "c2"})
		p.Forget("rep_b")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		if a, b := <-told, <-told; a.Health != spec.HealthStarting || b.Health != spec.HealthHealthy || b.Replica != "rep_a" {
			t.Error(a, b)
		}
		cancel()
		<-done
	})
}

// TestOverTheNetwork probes real sockets.
func TestOverTheNetwork(t *testing.T) {
	paths := make(chan string, 1)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths <- r.URL.RequestURI()
		switch r.URL.Path {
		case "/", "/ok":
		case "/moved":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		default:
			http.Error(w, "out of tea"+strings.Repeat(" and coffee", 1000), http.StatusServiceUnavailable)
		}
	}))
	defer web.Close()
	addr := web.Listener.Addr().(*net.TCPAddr).AddrPort()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	tests := []struct {
		check      spec.HealthCheck
		path, want string // a part of the failure; empty: healthy
	}{
		{spec.HealthCheck{HTTP: fmt.Sprintf(":%d", addr.Port())}, "/", ""},
		{spec.HealthCheck{HTTP: fmt.Sprintf(":%d/ok?a=b", addr.Port())}, "/ok?a=b", ""},
		{spec.HealthCheck{HTTP: fmt.Sprintf(":%d/moved", addr.Port())}, "/moved", ""},
		{spec.HealthCheck{HTTP: fmt.Sprintf(":%d/broken", addr.Port())}, "/broken", "503 Service Unavailable: out of tea"},
		{spec.HealthCheck{HTTP: fmt.Sprintf(":%d/slow", addr.Port()), Timeout: seconds(0.05)}, "/slow", "no answer within 50ms"},
		{spec.HealthCheck{TCP: fmt.Sprintf(":%d", addr.Port())}, "", ""},
		{spec.HealthCheck{TCP: fmt.Sprintf(":%d", gone.Addr().(*net.TCPAddr).Port)}, "", "connection refused"},
		{spec.HealthCheck{}, "", "asks for nothing"},
	}
	p := New(Options{Log: slog.New(slog.DiscardHandler)})
	for _, tt := range tests {
		err := p.probe(t.Context(), Target{Address: addr.Addr(), Check: tt.check})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v", tt.check, err)
		}
		if tt.path != "" {
			if path := <-paths; path != tt.path {
				t.Errorf("%+v asked for %q", tt.check, path)
			}
		}
		if err != nil && len(bounded(err.Error())) > outputLimit {
			t.Errorf("%+v: %d bytes are kept", tt.check, len(bounded(err.Error())))
		}
	}
}

func TestBounded(t *testing.T) {
	long := strings.Repeat("ä", outputLimit) + "the end"
	if got := bounded(long); len(got) > outputLimit || !strings.HasSuffix(got, "the end") || !strings.HasPrefix(got, "…") {
		t.Errorf("%d bytes, %q...%q", len(got), got[:10], got[len(got)-10:])
	}
	if got := bounded("a\xffb"); got != "ab" {
		t.Errorf("%q", got)
	}
}
