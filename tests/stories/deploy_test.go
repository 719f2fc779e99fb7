package stories

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"uncloud/tests/lab"
)

func TestDeployUpdateFailReturnRollback(t *testing.T) {
	c := together(t)
	one := web{project: project(t), version: "one", replicas: 3, host: "rollback.test"}
	c.deployed(c.M(1), one)
	c.healthyOn(c.M(2), one.name(), "m1", "m2", "m3")
	for _, m := range c.all() {
		c.serves(m, one.host, "one")
	}

	// An update from another machine; while it goes on, every page that is asked for is there.
	asked := c.ask(one.host, "one", "two")
	two := one.with("two")
	c.deployed(c.M(2), two)
	if pages, failures := asked(); len(failures) > 0 {
		t.Errorf("%d of %d pages failed during the update, the first: %v", len(failures), pages, failures[0])
	}
	before := c.healthyOn(c.M(3), two.name(), "m1", "m2", "m3")
	for _, m := range c.all() {
		c.serves(m, one.host, "two")
	}

	// Equal content is no change.
	if r := c.deploy(c.M(3), two); r.Code != 0 || !strings.Contains(r.Stdout, "up to date") {
		t.Errorf("a second deploy of the same: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}

	// A revision that does not start, and one that never gets healthy.
	for name, env := range map[string]string{"three": "CRASH=1", "four": "SICK=1"} {
		r := c.deploy(c.M(1), one.with(name, env))
		refused(t, r, "web")
		want := "cannot read the settings of three"
		if name == "four" {
			want = "not healthy yet"
		}
		if !strings.Contains(r.Stdout+r.Stderr, want) {
			t.Errorf("the container's last lines are not shown: no %q in\n%s%s", want, r.Stdout, r.Stderr)
		}
		c.settled(c.M(1), one.name())
		after := c.healthyOn(c.M(2), one.name(), "m1", "m2", "m3")
		if after[0].GetRevision() != before[0].GetRevision() {
			t.Errorf("after the failed deploy %s runs, before it %s did", after[0].GetRevision(), before[0].GetRevision())
		}
		c.serves(c.M(3), one.host, "two")
	}

	if _, err := c.M(3).Output(t.Context(), "uc", "rollback", "-y", one.name()); err != nil {
		t.Fatal(err)
	}
	c.healthyOn(c.M(1), one.name(), "m1", "m2", "m3")
	for _, m := range c.all() {
		c.serves(m, one.host, "one")
	}
}

// ask asks for a page over and over, through all machines in turn, until the
// returned function is called. That tells how many pages there were, and what
// went wrong.
func (c *cluster) ask(host string, versions ...string) func() (int, []error) {
	ctx, stop := context.WithCancel(c.t.Context())
	machines := c.all()
	var failures []error
	pages, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; pages++ {
			if err := c.anyPage(machines[pages%len(machines)], host, versions); err != nil {
				failures = append(failures, err)
			}
		}
	}()
	return func() (int, []error) {
		stop()
		<-done
		return pages, failures
	}
}

func (c *cluster) anyPage(m *lab.Machine, host string, versions []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.t.Context()), 5*time.Second)
	defer cancel()
	body, err := c.Outside().Get(ctx, m.Address().String()+":80", host, "/")
	if err != nil {
		return fmt.Errorf("through %s: %w", m.Name, err)
	}
	for _, version := range versions {
		if strings.HasPrefix(body, version+" ") {
			return nil
		}
	}
	return fmt.Errorf("through %s: %q", m.Name, body)
}

func TestScaleStopStartRemove(t *testing.T) {
	c := together(t)
	w := web{project: project(t), version: "one", replicas: 2}
	c.deployed(c.M(1), w)
	c.healthy(c.M(1), w.name(), 2)
	run := func(m *lab.Machine, argv ...string) {
		t.Helper()
		if _, err := m.Output(t.Context(), argv...); err != nil {
			t.Fatal(err)
		}
	}
	run(c.M(2), "uc", "scale", "-y", w.name(), "4")
	c.healthy(c.M(3), w.name(), 4)
	run(c.M(3), "uc", "scale", "-y", w.name(), "1")
	c.healthy(c.M(1), w.name(), 1)
	run(c.M(1), "uc", "stop", w.name())
	c.nothingRuns(w)
	run(c.M(2), "uc", "start", w.name())
	c.healthy(c.M(1), w.name(), 1)
	run(c.M(3), "uc", "rm", "-y", w.name())
	c.nothingRuns(w)
	r, err := c.M(1).Exec(t.Context(), "uc", "inspect", w.name())
	try(t, err)
	refused(t, r, "web")
}

// nothingRuns waits until no machine's engine runs a container of the service.
func (c *cluster) nothingRuns(w web) {
	c.t.Helper()
	eventually(c.t, long, "no container of "+w.name()+" runs", func(ctx context.Context) error {
		for _, m := range c.all() {
			out, err := m.Output(ctx, "podman", "ps", "--format", "{{.Names}} {{.Labels}}")
			if err != nil {
				return err
			}
			for line := range strings.Lines(out) {
				if strings.Contains(line, w.project) {
					return fmt.Errorf("on %s: %s", m.Name, line)
				}
			}
		}
		return nil
	})
}

func TestCtrlCDuringADeployReturnsToWhatRanBefore(t *testing.T) {
	c := together(t)
	one := web{project: project(t), version: "one", replicas: 2, host: "ctrlc.test"}
	c.deployed(c.M(1), one)
	before := c.healthy(c.M(1), one.name(), 2)

	cmd := c.M(1).Command(t.Context(), "uc", "deploy", "-y", "-f", c.file(c.M(1), one.with("two", "SLOW=60s")))
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	try(t, cmd.Start())
	eventually(t, long, "the rollout is under way", func(ctx context.Context) error { return c.newContainer(ctx, one.name(), before[0].GetRevision()) })
	try(t, cmd.Process.Signal(syscall.SIGINT))
	code := lab.ExitCode(cmd.Wait())
	if code != 130 || !strings.Contains(said.String(), "interrupted") {
		t.Errorf("exit code %d, want 130; it said\n%s", code, &said)
	}

	c.settled(c.M(2), one.name())
	after := c.healthy(c.M(2), one.name(), 2)
	if after[0].GetRevision() != before[0].GetRevision() {
		t.Errorf("%s runs, before %s did", after[0].GetRevision(), before[0].GetRevision())
	}
	c.serves(c.M(3), one.host, "one")
}

// newContainer is nil when a replica of another revision than old has a container.
func (c *cluster) newContainer(ctx context.Context, name, old string) error {
	replicas, err := c.replicas(ctx, c.M(1), name)
	if err != nil {
		return err
	}
	for _, r := range replicas {
		if r.GetRevision() != old && r.GetState() == "running" {
			return nil
		}
	}
	return fmt.Errorf("no container of a new revision among %d", len(replicas))
}

func TestOfTwoDeploysOfOneServiceAtOnceOneIsRefused(t *testing.T) {
	c := together(t)
	one := web{project: project(t), version: "one", replicas: 2, host: "two.test"}
	c.deployed(c.M(1), one)
	before := c.healthy(c.M(1), one.name(), 2)

	first := c.M(1).Command(t.Context(), "uc", "deploy", "-y", "-f", c.file(c.M(1), one.with("two", "SLOW=5s")))
	var said strings.Builder
	first.Stdout, first.Stderr = &said, &said
	try(t, first.Start())
	eventually(t, long, "the first is under way", func(ctx context.Context) error { return c.newContainer(ctx, one.name(), before[0].GetRevision()) })
	refused(t, c.deploy(c.M(2), one.with("three")), "web")
	if code := lab.ExitCode(first.Wait()); code != 0 {
		t.Errorf("the first: exit code %d\n%s", code, &said)
	}
	c.healthy(c.M(3), one.name(), 2)
	c.serves(c.M(3), one.host, "two")
}

func TestAServiceIsReachedByNameOnAnotherMachineAndKeepsItsVolume(t *testing.T) {
	c := together(t)
	name := project(t)
	w := web{project: name, version: "one", replicas: 1, host: "volume.test", lines: []string{"x-machines: m3", "volumes: [\"data:/data\"]"}, tail: `  asker:
    image: ` + image + `
    environment: {VERSION: asker}
    x-machines: m1
volumes:
  data: {}
`}
	c.deployed(c.M(1), w)
	c.healthyOn(c.M(1), w.name(), "m3")
	eventually(t, long, "the asker reaches web by name", func(ctx context.Context) error {
		out, err := c.M(2).Output(ctx, "uc", "exec", name+"/asker", "/app", "get", "http://web:8080/")
		if err == nil && !strings.HasPrefix(out, "one ") {
			err = fmt.Errorf("it got %q", out)
		}
		return err
	})
	must(t, c.M(2), "uc", "exec", "-T", w.name(), "/app", "write", "/data/kept", "as", "it", "was")
	c.deployed(c.M(2), w.with("two"))
	replicas := c.healthyOn(c.M(2), w.name(), "m3")
	if got := must(t, c.M(2), "uc", "exec", "-T", "--replica", replicas[0].GetName(), w.name(), "/app", "read", "/data/kept"); got != "as it was" {
		t.Errorf("after an update the file of the volume says %q", got)
	}
	c.serves(c.M(2), w.host, "two")
}

// A database may take its time to write down what it has: when its service is
// removed, as much as when it is updated.
func TestARemovedServiceEndsInItsOwnTime(t *testing.T) {
	c := together(t)
	w := web{project: project(t), replicas: 1, grace: "60s", lines: []string{"x-machines: m3", "volumes: [\"data:/data\"]"}, tail: "volumes:\n  data: {}\n"}
	w = w.with("one", "LINGER=15s") // more than is given to one that says nothing
	c.deployed(c.M(1), w)
	c.healthyOn(c.M(1), w.name(), "m3")
	must(t, c.M(1), "uc", "rm", "-y", w.name())
	c.noOrphans(w, 0)
	c.deployed(c.M(1), w.with("two")) // its volume is still there
	c.healthyOn(c.M(1), w.name(), "m3")
	if got := must(t, c.M(1), "uc", "exec", "-T", w.name(), "/app", "read", "/data/ended"); got != "well" {
		t.Errorf("it was killed before it had ended: %q", got)
	}
}
