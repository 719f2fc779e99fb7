package stories

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/tests/lab"
)

// TestAnIdleMachineLogsNothing: the agent asks Podman what runs once a minute,
// and probes what runs, but nobody writes a line about it. Podman's service
// leaves when it was not asked for some seconds, so each look is a new one.
func TestAnIdleMachineLogsNothing(t *testing.T) {
	c := together(t)
	m := c.M(1)
	w := web{project: project(t), version: "one", replicas: 1, lines: []string{"x-machines: m1"}}
	c.deployed(m, w)
	c.healthyOn(m, w.name(), "m1")
	cursor := ""
	logged := func(ctx context.Context) error {
		out, err := m.Output(ctx, "journalctl", "-q", "-o", "cat", "-u", "podman.service", "-u", "uncloud.service", "--after-cursor", cursor)
		if err == nil && out != "" {
			err = fmt.Errorf("podman and the agent say %s", out)
		}
		return err
	}
	eventually(t, long, "what was begun before is over", func(ctx context.Context) error {
		out, err := m.Shell(ctx, "journalctl -n 0 --show-cursor -q | sed -n 's/^-- cursor: //p'")
		if err != nil {
			return err
		}
		cursor = strings.TrimSpace(out)
		time.Sleep(5 * time.Second)
		return logged(ctx)
	})
	looks := map[string]bool{}
	always(t, 50*time.Second, "nothing is logged of a machine where nothing happens", func(ctx context.Context) error {
		time.Sleep(time.Second)
		id, err := m.Output(ctx, "systemctl", "show", "--value", "-p", "InvocationID", "podman.service")
		looks[strings.TrimSpace(id)] = true
		return errors.Join(err, logged(ctx))
	})
	// The last one before the story, one a minute, and one for who is slow.
	if len(looks) > 3 {
		t.Errorf("podman was started %d times in 50 s", len(looks)-1)
	}
}

func TestAContainerRemovedOrStoppedByHandReturns(t *testing.T) {
	c := together(t)
	w := web{project: project(t), version: "one", replicas: 0}
	c.deployed(c.M(1), w)
	for name, verb := range map[string][]string{
		"removed": {"rm", "-f", "-t", "0"}, "stopped": {"stop", "-t", "0"}, "killed": {"kill"},
	} {
		replicas := c.healthyOn(c.M(1), w.name(), "m1", "m2", "m3")
		old := on(replicas, "m2")
		if _, err := c.M(2).Output(t.Context(), append(append([]string{"podman"}, verb...), old.GetContainerId())...); err != nil {
			t.Fatal(err)
		}
		eventually(t, long, "the "+name+" container of m2 is back", func(ctx context.Context) error {
			replicas, err := c.replicas(ctx, c.M(1), w.name())
			if err != nil {
				return err
			}
			r := on(replicas, "m2")
			if r == nil || r.GetState() != "running" || r.GetHealth() != "healthy" || !r.GetSince().AsTime().After(old.GetSince().AsTime()) {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
	}
}

func on(replicas []*uncloudv1.Replica, machine string) *uncloudv1.Replica {
	i := slices.IndexFunc(replicas, func(r *uncloudv1.Replica) bool { return r.GetMachine() == machine })
	if i < 0 {
		return nil
	}
	return replicas[i]
}

func TestAnAgentRestartTouchesNoContainer(t *testing.T) {
	c := together(t)
	w := web{project: project(t), version: "one", replicas: 0, host: "restart.test"}
	c.deployed(c.M(1), w)
	c.healthyOn(c.M(1), w.name(), "m1", "m2", "m3")
	c.serves(c.M(2), w.host, "one")
	for name, command := range map[string]string{
		"stop and start": "systemctl restart uncloud",
		"kill -9":        "systemctl kill -s KILL --kill-whom=main uncloud",
	} {
		before := c.started(c.M(2), w)
		_, err := c.M(2).Shell(t.Context(), command)
		try(t, err)
		eventually(t, long, "the agent of m2 answers after "+name, func(ctx context.Context) error {
			_, err := c.M(2).Members(ctx)
			return err
		})
		c.serves(c.M(2), w.host, "one")
		c.healthyOn(c.M(2), w.name(), "m1", "m2", "m3")
		if after := c.started(c.M(2), w); after != before {
			t.Errorf("after %s the container started at %s, before at %s", name, after, before)
		}
	}
}

// started is when the engine started the containers of a service on a machine.
func (c *cluster) started(m *lab.Machine, w web) string {
	c.t.Helper()
	replicas, err := c.replicas(c.t.Context(), m, w.name())
	try(c.t, err)
	out, err := m.Output(c.t.Context(), "podman", "inspect", "-f", "{{.Id}} {{.State.StartedAt}}", on(replicas, m.Name).GetContainerId())
	try(c.t, err)
	return out
}

func TestAnAgentKilledDuringADeployLosesAndOrphansNothing(t *testing.T) {
	c := together(t)
	for _, victim := range []*lab.Machine{c.M(1), c.M(2)} { // the driver, and one that runs a replica
		t.Run(victim.Name, func(t *testing.T) {
			c := &cluster{Lab: c.Lab, t: t}
			t.Cleanup(c.explain)
			one := web{project: project(t), version: "one", replicas: 0, host: victim.Name + ".killed.test"}
			c.deployed(c.M(1), one)
			before := c.healthyOn(c.M(1), one.name(), "m1", "m2", "m3")

			two := one.with("two", "SLOW=3s")
			cmd := c.M(1).Command(t.Context(), "uc", "deploy", "-y", "-f", c.file(c.M(1), two))
			var said strings.Builder
			cmd.Stdout, cmd.Stderr = &said, &said
			try(t, cmd.Start())
			eventually(t, long, "the rollout is under way", func(ctx context.Context) error { return c.newContainer(ctx, one.name(), before[0].GetRevision()) })
			_, err := victim.Shell(t.Context(), "systemctl kill -s KILL --kill-whom=main uncloud")
			try(t, err)
			_ = cmd.Wait() // it may end either way; what counts is what is left

			eventually(t, long, "the agent is back", func(ctx context.Context) error {
				_, err := victim.Members(ctx)
				return err
			})
			c.settled(c.M(3), one.name())
			c.healthyOn(c.M(3), one.name(), "m1", "m2", "m3")
			c.noOrphans(one, 1)
			// It ended, or can be repeated.
			c.deployed(c.M(1), two)
			c.healthyOn(c.M(3), one.name(), "m1", "m2", "m3")
			c.serves(c.M(3), one.host, "two")
			c.noOrphans(one, 1)
			c.agree(c.all()...)
		})
	}
}

// noOrphans waits until each machine's engine holds exactly n containers of
// the project, running or not.
func (c *cluster) noOrphans(w web, n int) {
	c.t.Helper()
	eventually(c.t, long, fmt.Sprintf("%d container of %s on each machine", n, w.project), func(ctx context.Context) error {
		for _, m := range c.all() {
			out, err := m.Output(ctx, "podman", "ps", "-a", "--format", "{{.Names}} {{.Status}} {{.Labels}}")
			if err != nil {
				return err
			}
			var mine []string
			for line := range strings.Lines(out) {
				if strings.Contains(line, w.project) {
					mine = append(mine, line)
				}
			}
			if len(mine) != n {
				return fmt.Errorf("%s has %d: %v", m.Name, len(mine), mine)
			}
		}
		return nil
	})
}

func TestADeadMachineLeavesNamesAndIngressWithinFiveSecondsAndComesBack(t *testing.T) {
	const bound = 5 * time.Second // the promise
	c := alone(t, 3)
	w := web{project: project(t), version: "one", host: "dead.test"}
	c.deployed(c.M(1), w)
	replicas := c.healthyOn(c.M(1), w.name(), "m1", "m2", "m3")
	dead := on(replicas, "m3").GetAddress()
	name := "web." + w.project + ".internal"
	for _, m := range c.all()[:2] {
		c.serves(m, w.host, "one")
		eventually(t, long, m.Name+" names all three", func(ctx context.Context) error { return c.names(ctx, m, name, 3) })
	}

	killed := time.Now()
	try(t, c.M(3).Kill(t.Context()))
	for _, m := range c.all()[:2] {
		eventually(t, long, m.Name+" no longer names the dead", func(ctx context.Context) error {
			addresses, err := c.lookup(ctx, m, name)
			if err == nil && slices.Contains(addresses, dead) {
				err = fmt.Errorf("%v has %s", addresses, dead)
			}
			return err
		})
	}
	if took := time.Since(killed); took > bound {
		t.Errorf("the dead left names after %s, promised are %s", took.Round(time.Millisecond), bound)
	} else {
		t.Logf("the dead left names after %s", took.Round(time.Millisecond))
	}
	time.Sleep(time.Until(killed.Add(bound))) // the promise is about what is true from then on
	always(t, 3*time.Second, "a page through a living ingress", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return errors.Join(c.page(ctx, c.M(1), w.host, "one"), c.page(ctx, c.M(2), w.host, "one"))
	})

	// A deploy that needs the dead machine says so at once, and changes nothing.
	needs := web{project: w.project + "-2", version: "one", replicas: 1, lines: []string{"x-machines: m3"}}
	refused(t, c.deploy(c.M(1), needs), "m3")

	try(t, c.M(3).Start(t.Context()))
	try(t, lab.AwaitUp(t.Context(), c.all()...))
	c.healthyOn(c.M(1), w.name(), "m1", "m2", "m3")
	for _, m := range c.all() {
		eventually(t, long, m.Name+" names all three again", func(ctx context.Context) error { return c.names(ctx, m, name, 3) })
		c.serves(m, w.host, "one")
	}
	c.noOrphans(w, 1)
	c.agree(c.all()...)
}

func (c *cluster) names(ctx context.Context, m *lab.Machine, name string, n int) error {
	addresses, err := c.lookup(ctx, m, name)
	if err == nil && len(addresses) != n {
		err = fmt.Errorf("%s is %v", name, addresses)
	}
	return err
}

func TestARebootedMachineRunsWhatItRan(t *testing.T) {
	c := alone(t, 2)
	w := web{project: project(t), version: "one", host: "reboot.test"}
	c.deployed(c.M(1), w)
	c.healthyOn(c.M(1), w.name(), "m1", "m2")
	for name, again := range map[string]func(context.Context) error{
		"a reboot":    c.M(2).Reboot,
		"a power cut": func(ctx context.Context) error { return errors.Join(c.M(2).Kill(ctx), c.M(2).Start(ctx)) },
	} {
		// Alone: what a machine ran comes back from its own copy of the intent.
		try(t, c.Cut(t.Context(), "m2"))
		try(t, again(t.Context()))
		eventually(t, long, "after "+name+" m2 serves by itself", func(ctx context.Context) error { return c.page(ctx, c.M(2), w.host, "one") })
		try(t, c.Heal(t.Context()))
		try(t, lab.AwaitUp(t.Context(), c.all()...))
		c.healthyOn(c.M(1), w.name(), "m1", "m2")
		c.noOrphans(w, 1)
	}
}
