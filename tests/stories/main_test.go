package stories

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uncloud/tests/lab"
)

// image is the one image of all stories; its source is in app/.
const image = "story:1"

// cluster is a lab for the length of one test.
type cluster struct {
	*lab.Lab
	t *testing.T
}

var shared struct {
	sync.Once
	lab *lab.Lab
	err error
}

func TestMain(m *testing.M) {
	if lab.Ready() == nil {
		queue()
	}
	code := m.Run()
	if shared.lab != nil {
		if err := shared.lab.Down(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// turn is the lock of the process that tells stories. It is gone with it.
var turn *os.File

// queue waits until no other process tells stories: they use the same labs.
func queue() {
	f, err := os.OpenFile("/run/uclab-stories.turn", os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil && unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		fmt.Fprintln(os.Stderr, "stories: another run is under way, waiting for its end")
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stories:", err)
		os.Exit(1)
	}
	turn = f
}

// together gives the cluster that stories share: m1, m2, m3, all up.
func together(t *testing.T) *cluster {
	t.Helper()
	ready(t)
	shared.Do(func() { shared.lab, shared.err = up(context.Background(), "stories", 3) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	c := &cluster{Lab: shared.lab, t: t}
	t.Cleanup(c.explain)
	return c
}

// alone gives a cluster of its own to a story that harms machines.
func alone(t *testing.T, machines int) *cluster {
	t.Helper()
	ready(t)
	l, err := up(t.Context(), "story", machines)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Lab: l, t: t}
	t.Cleanup(func() {
		c.explain()
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// ready skips the test on a host that can run no lab, or fails it where a lab
// is required.
func ready(t *testing.T) {
	t.Helper()
	if err := lab.Ready(); err != nil {
		lab.SkipOrFail(t, err)
	}
	for _, program := range []string{"uc", "uncloudd"} {
		if _, err := os.Stat(filepath.Join(lab.Bin(), program)); err != nil {
			lab.SkipOrFail(t, fmt.Errorf("%s is not built; ./dev build does: %w", program, err))
		}
	}
}

func up(ctx context.Context, name string, machines int) (*lab.Lab, error) {
	opts := lab.Options{Name: name, Machines: machines}
	l, err := lab.Open(opts)
	if err != nil {
		return nil, err
	}
	if err := l.Down(ctx); err != nil { // of a test that was killed
		return nil, err
	}
	if l, err = lab.Up(ctx, opts); err != nil {
		return nil, err
	}
	return l, l.Image(ctx, filepath.Join(lab.Repository(), "tests/stories/app"), image)
}

// explain fails a story in which an agent raced, and shows for one that failed
// what the agents said.
func (c *cluster) explain() {
	c.t.Helper()
	c.races()
	if !c.t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	machines, _ := c.Machines()
	for _, m := range machines {
		if !m.Running() {
			continue
		}
		r, err := m.Exec(ctx, "journalctl", "-u", "uncloud", "-o", "cat", "-n", "60", "--no-pager")
		c.t.Logf("--- agent of %s (%v)\n%s", m.Name, err, r.Stdout)
	}
	r, _ := c.M(1).Exec(ctx, "uc", "ps")
	c.t.Logf("--- uc ps on m1\n%s%s", r.Stdout, r.Stderr)
}

// races fails the story for each machine whose agent saw a data race.
func (c *cluster) races() {
	c.t.Helper()
	machines, err := c.Machines()
	if err != nil {
		c.t.Error(err)
	}
	for _, m := range machines {
		if report, err := m.Races(); err != nil || report != "" {
			c.t.Errorf("races in the agent of %s: %v\n%.5000s", m.Name, err, report)
		}
	}
}

// project is a project name of this test's own.
func project(t *testing.T) string {
	var b strings.Builder
	for _, r := range t.Name() {
		switch {
		case r >= 'A' && r <= 'Z' && b.Len() > 0:
			b.WriteString("-" + strings.ToLower(string(r)))
		case r == '/' || r == '_':
			b.WriteByte('-')
		default:
			b.WriteString(strings.ToLower(string(r)))
		}
	}
	name := strings.TrimPrefix(b.String(), "test-")
	return strings.Trim(name[:min(len(name), 30)], "-")
}

// try ends the story when a step of it could not be taken.
func try(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until seen returns nil, and fails with what it said last.
func eventually(t *testing.T, limit time.Duration, what string, seen func(context.Context) error) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	last := fmt.Errorf("never asked")
	for {
		if err := seen(ctx); err == nil {
			return time.Since(began)
		} else if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s: %v", limit, what, last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// always fails the story when seen is not nil at any time of a period. It is
// for what must not happen, where there is no condition to wait for.
func always(t *testing.T, period time.Duration, what string, seen func(context.Context) error) {
	t.Helper()
	for end := time.Now().Add(period); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err := seen(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// long is the limit of what should take seconds on a machine with nothing
// else to do, and may take far more on one that runs everything at once.
const long = 90 * time.Second
