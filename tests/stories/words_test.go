package stories

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/tests/lab"
)

// web is a service in the words of Compose, with what stories vary.
type web struct {
	project  string
	version  string
	replicas int               // 0: global
	env      map[string]string // besides VERSION
	host     string            // name on the ingress; empty: none
	grace    string            // to stop in; empty: 2s
	lines    []string          // more lines of the service
	tail     string            // more of the file
}

func (w web) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nservices:\n  web:\n    image: %s\n    environment:\n      VERSION: %q\n", w.project, image, w.version)
	for key, value := range w.env {
		fmt.Fprintf(&b, "      %s: %q\n", key, value)
	}
	b.WriteString("    x-healthcheck: {http: \":8080/healthy\"}\n    healthcheck: {interval: 1s, timeout: 2s, retries: 3, start_period: 10s}\n")
	fmt.Fprintf(&b, "    stop_grace_period: %s\n", cmp.Or(w.grace, "2s"))
	if w.host != "" {
		fmt.Fprintf(&b, "    x-ports: [\"%s:8080/http\"]\n", w.host)
	}
	for _, line := range w.lines {
		b.WriteString("    " + line + "\n")
	}
	if w.replicas == 0 {
		b.WriteString("    deploy: {mode: global}\n")
	} else {
		fmt.Fprintf(&b, "    deploy: {replicas: %d}\n", w.replicas)
	}
	b.WriteString(w.tail)
	return b.String()
}

func (w web) name() string { return w.project + "/web" }

// with is w in another version.
func (w web) with(version string, env ...string) web {
	w.version, w.env = version, map[string]string{}
	for _, pair := range env {
		key, value, _ := strings.Cut(pair, "=")
		w.env[key] = value
	}
	return w
}

// file lays a Compose file on a machine and returns its path.
func (c *cluster) file(m *lab.Machine, text fmt.Stringer) string {
	c.t.Helper()
	path := "/root/" + project(c.t) + "/compose.yaml"
	try(c.t, m.WriteFile(c.t.Context(), path, text.String()))
	return path
}

type text string

func (t text) String() string { return string(t) }

// deploy deploys from a machine, whatever comes of it.
func (c *cluster) deploy(m *lab.Machine, file fmt.Stringer, flags ...string) lab.Result {
	c.t.Helper()
	argv := append([]string{"uc", "deploy", "-y", "-f", c.file(m, file)}, flags...)
	r, err := m.Exec(c.t.Context(), argv...)
	try(c.t, err)
	return r
}

// deployed deploys, which must work, and removes the services at the end.
func (c *cluster) deployed(m *lab.Machine, w web, flags ...string) {
	c.t.Helper()
	r := c.deploy(m, w, flags...)
	if r.Code != 0 {
		c.t.Fatalf("uc deploy of %s %s on %s: exit code %d\n%s%s", w.name(), w.version, m.Name, r.Code, r.Stdout, r.Stderr)
	}
	c.tidy(w.project)
}

// tidy removes all services of a project when the story ends.
func (c *cluster) tidy(project string) {
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		var answer uncloudv1.ListServicesResponse
		if c.M(1).Query(ctx, &answer, "uc", "ls", "--project", project) != nil {
			return // a cluster that is broken, or gone, goes with its lab
		}
		for _, s := range answer.GetServices() {
			_, _ = c.M(1).Exec(ctx, "uc", "rm", "-y", "--volumes", project+"/"+s.GetName())
		}
	})
}

// refused asserts that a command ended as wrong input does: one clear
// sentence with these words in it, a hint, and a non-zero exit.
func refused(t *testing.T, r lab.Result, words ...string) {
	t.Helper()
	var sentence, hint string
	for line := range strings.Lines(r.Stderr) {
		if _, after, ok := strings.Cut(line, ": error: "); ok {
			if sentence != "" {
				t.Errorf("more than one error:\n%s", r.Stderr)
			}
			sentence = after
		}
		if _, after, ok := strings.Cut(line, ": hint: "); ok {
			hint = after
		}
	}
	if r.Code == 0 {
		t.Errorf("exit code 0; it said\n%s%s", r.Stdout, r.Stderr)
	}
	if sentence == "" || hint == "" {
		t.Errorf("no sentence, or no hint what to do:\n%s", r.Stderr)
	}
	for _, word := range words {
		if !strings.Contains(strings.ToLower(sentence), strings.ToLower(word)) {
			t.Errorf("%q is not in the sentence: %s", word, sentence)
		}
	}
}

// service is a service as a machine tells it.
func (c *cluster) service(ctx context.Context, m *lab.Machine, name string) (*uncloudv1.Service, error) {
	var s uncloudv1.Service
	return &s, m.Query(ctx, &s, "uc", "inspect", name)
}

// replicas are the replicas of a service as a machine tells them.
func (c *cluster) replicas(ctx context.Context, m *lab.Machine, name string) ([]*uncloudv1.Replica, error) {
	var answer uncloudv1.ListReplicasResponse
	err := m.Query(ctx, &answer, "uc", "ps", name)
	return answer.GetReplicas(), err
}

// healthyOn waits until exactly these machines run a healthy replica each, all
// of one revision, and returns the replicas. A machine may be named twice.
func (c *cluster) healthyOn(asked *lab.Machine, name string, machines ...string) []*uncloudv1.Replica {
	c.t.Helper()
	slices.Sort(machines)
	var replicas []*uncloudv1.Replica
	eventually(c.t, long, fmt.Sprintf("%s healthy on %s, as %s tells", name, strings.Join(machines, " "), asked.Name), func(ctx context.Context) error {
		var err error
		if replicas, err = c.replicas(ctx, asked, name); err != nil {
			return err
		}
		return healthyOn(replicas, machines)
	})
	return replicas
}

func healthyOn(replicas []*uncloudv1.Replica, machines []string) error {
	var on []string
	for _, r := range replicas {
		if r.GetState() != "running" || r.GetHealth() != "healthy" || r.GetWanted() != "running" {
			return fmt.Errorf("%s on %s is %s, %s, wanted %s %s", r.GetName(), r.GetMachine(), r.GetState(), r.GetHealth(), r.GetWanted(), r.GetError())
		}
		if r.GetRevision() != replicas[0].GetRevision() {
			return fmt.Errorf("revisions %s and %s", r.GetRevision(), replicas[0].GetRevision())
		}
		on = append(on, r.GetMachine())
	}
	slices.Sort(on)
	if !slices.Equal(on, machines) {
		return fmt.Errorf("replicas are on %v", on)
	}
	return nil
}

// healthy waits until a service has n healthy replicas of one revision, wherever.
func (c *cluster) healthy(asked *lab.Machine, name string, n int) []*uncloudv1.Replica {
	c.t.Helper()
	var replicas []*uncloudv1.Replica
	eventually(c.t, long, fmt.Sprintf("%d healthy replicas of %s, as %s tells", n, name, asked.Name), func(ctx context.Context) error {
		var err error
		if replicas, err = c.replicas(ctx, asked, name); err != nil {
			return err
		}
		if len(replicas) != n {
			return fmt.Errorf("%d replicas", len(replicas))
		}
		return healthyOn(replicas, places(replicas))
	})
	return replicas
}

func places(replicas []*uncloudv1.Replica) []string {
	var on []string
	for _, r := range replicas {
		on = append(on, r.GetMachine())
	}
	slices.Sort(on)
	return on
}

// settled waits until no rollout of a service is under way.
func (c *cluster) settled(asked *lab.Machine, name string) *uncloudv1.Service {
	c.t.Helper()
	var s *uncloudv1.Service
	eventually(c.t, long, "no rollout of "+name+" under way", func(ctx context.Context) error {
		var err error
		if s, err = c.service(ctx, asked, name); err != nil {
			return err
		}
		for _, r := range s.GetRollouts() {
			if r.GetStage() == "running" || r.GetStage() == "returning" {
				return fmt.Errorf("%s is %s", r.GetId(), r.GetStage())
			}
		}
		return nil
	})
	return s
}

// serves waits until a host name answers with a version through a machine's
// ingress, seen from outside.
func (c *cluster) serves(m *lab.Machine, host, version string) {
	c.t.Helper()
	eventually(c.t, long, fmt.Sprintf("%s serves %s of %s", m.Name, version, host), func(ctx context.Context) error {
		return c.page(ctx, m, host, version)
	})
}

// page asks an ingress once and wants one version.
func (c *cluster) page(ctx context.Context, m *lab.Machine, host, version string) error {
	body, err := c.Outside().Get(ctx, m.Address().String()+":80", host, "/")
	if err == nil && !strings.HasPrefix(body, version+" ") {
		err = fmt.Errorf("%s answers %q", m.Name, body)
	}
	return err
}

// lookup asks a machine's own names, as its containers do.
func (c *cluster) lookup(ctx context.Context, m *lab.Machine, name string) ([]string, error) {
	gateway, err := c.gateway(ctx, m)
	if err != nil {
		return nil, err
	}
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return m.Dial(ctx, network, net.JoinHostPort(gateway, "53"))
	}}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	addresses, err := resolver.LookupHost(ctx, name+".")
	slices.Sort(addresses)
	return addresses, err
}

// gateway is a machine's address in the cluster network.
func (c *cluster) gateway(ctx context.Context, m *lab.Machine) (string, error) {
	var info uncloudv1.Machine
	err := m.Query(ctx, &info, "uc", "machine", "inspect", m.Name)
	return info.GetAddress(), err
}

// agree waits until the stores of these machines hold the same rows.
func (c *cluster) agree(machines ...*lab.Machine) {
	c.t.Helper()
	eventually(c.t, long, "all stores are equal", func(ctx context.Context) error {
		digests := map[string][]string{}
		for _, m := range machines {
			var status uncloudv1.StoreStatusResponse
			if err := m.Query(ctx, &status, "uc", "store", "status"); err != nil {
				return err
			}
			digests[status.GetDigest()] = append(digests[status.GetDigest()], m.Name)
		}
		if len(digests) > 1 {
			return fmt.Errorf("%v", digests)
		}
		return nil
	})
}

// containers are the names of what runs on a machine for a project, asked of
// the engine and not of the product.
func (c *cluster) containers(ctx context.Context, m *lab.Machine, image string) ([]string, error) {
	out, err := m.Output(ctx, "podman", "ps", "--filter", "ancestor="+image, "--format", "{{.Names}}")
	return strings.Fields(out), err
}

func (c *cluster) all() []*lab.Machine {
	c.t.Helper()
	machines, err := c.Machines()
	try(c.t, err)
	return machines
}
