package stories

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/tests/lab"
)

// agentPorts are what agents speak on among themselves.
var agentPorts = []string{"51000", "51001", "51002", "51003", "51004"}

func TestFromOutsideOnlyWireGuardAndIngressAnswer(t *testing.T) {
	c := together(t)
	w := web{project: project(t), version: "one", host: "outside.test"}
	c.deployed(c.M(1), w)
	container := on(c.healthyOn(c.M(1), w.name(), "m1", "m2", "m3"), "m1").GetAddress()
	c.serves(c.M(1), w.host, "one")
	members, err := c.M(1).Members(t.Context())
	try(t, err)

	// An attacker on the same network routes the cluster's addresses to a machine.
	via, err := c.M(1).Shell(t.Context(), `ip -j -6 addr show dev eth0 scope link | jq -r '.[0].addr_info[] | select(.scope == "link") | .local' | head -1`)
	try(t, err)
	targets := []string{c.M(1).Address().String()}
	var routes []string
	for _, m := range members {
		targets = append(targets, m.GetAddress(), m.GetManagementAddress())
		routes = append(routes, fmt.Sprintf("ip route replace %s via %s", m.GetSubnet(), c.M(1).Address()),
			fmt.Sprintf("ip -6 route replace %s/128 via %s dev eth0", m.GetManagementAddress(), strings.TrimSpace(via)))
	}
	_, err = c.Outside().Shell(t.Context(), strings.Join(routes, "\n"))
	try(t, err)
	t.Cleanup(func() {
		undo := strings.ReplaceAll(strings.Join(routes, "\n"), "replace", "del")
		if _, err := c.Outside().Shell(context.Background(), undo); err != nil {
			t.Error(err)
		}
	})

	listening, err := c.M(1).Shell(t.Context(), `ss -Hltn | awk '{n = split($4, a, ":"); print a[n]}' | sort -u`)
	try(t, err)
	ports := append(strings.Fields(listening), agentPorts...)
	ports = append(ports, "53", "8080")
	var ask []string
	for _, target := range targets {
		for _, port := range ports {
			ask = append(ask, net.JoinHostPort(target, port))
		}
	}
	ask = append(ask, net.JoinHostPort(container, "8080"))
	underlay := c.M(1).Address().String()
	expected := []string{underlay + ":22", underlay + ":443", underlay + ":80"} // 22: the host's own sshd
	open := c.open(c.Outside(), ask)
	slices.Sort(open)
	if !slices.Equal(open, expected) {
		t.Errorf("from outside %v answer, want %v", open, expected)
	}
	c.echoes(c.M(1), underlay, members[0].GetAddress())
	for _, address := range []string{underlay + ":53", underlay + ":51001", members[0].GetAddress() + ":51001", members[0].GetAddress() + ":53"} {
		if c.answersUDP(c.Outside(), address) {
			t.Errorf("from outside UDP %s answers", address)
		}
	}
	// The control: what is not there to be found is found from inside.
	if open := c.open(c.M(1), []string{net.JoinHostPort(members[0].GetManagementAddress(), "51000")}); len(open) != 1 {
		t.Error("the API does not answer inside the mesh either, so this story shows nothing")
	}
}

// echoes answers all that comes by UDP to gossip's port, on those addresses of
// a machine where gossip does not listen. Gossip itself says nothing to
// strangers, so that nothing comes back would show nothing.
func (c *cluster) echoes(m *lab.Machine, addresses ...string) {
	c.t.Helper()
	for _, address := range addresses {
		address = net.JoinHostPort(address, "51001")
		conn, err := m.ListenPacket(c.t.Context(), "udp4", address)
		try(c.t, err)
		c.t.Cleanup(func() { conn.Close() })
		go func() {
			for b := make([]byte, 512); ; {
				n, from, err := conn.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = conn.WriteTo(b[:n], from)
			}
		}()
		if !c.answersUDP(m, address) {
			c.t.Fatalf("%s itself gets no answer by UDP from %s", m.Name, address)
		}
	}
}

// open lists those addresses that accept a connection from a machine.
func (c *cluster) open(from *lab.Machine, addresses []string) []string {
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
	defer cancel()
	var mu sync.Mutex
	var open []string
	var wait sync.WaitGroup
	for _, address := range slices.Compact(addresses) {
		wait.Go(func() {
			conn, err := from.Dial(ctx, "tcp", address)
			if err != nil {
				return
			}
			conn.Close()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Contains(open, address) {
				open = append(open, address)
			}
		})
	}
	wait.Wait()
	return open
}

// answersUDP sends a DNS question, which is as good as anything, and tells
// whether something comes back.
func (c *cluster) answersUDP(from *lab.Machine, address string) bool {
	conn, err := from.Dial(c.t.Context(), "udp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	question := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x08internal\x00\x00\x01\x00\x01")
	try(c.t, conn.SetDeadline(time.Now().Add(time.Second)))
	if _, err := conn.Write(question); err != nil {
		return false
	}
	n, err := conn.Read(make([]byte, 512))
	return err == nil && n > 0
}

func TestFromAContainerNoAgentPortAnswers(t *testing.T) {
	c := together(t)
	w := web{project: project(t), version: "one"}
	c.deployed(c.M(1), w)
	c.healthyOn(c.M(1), w.name(), "m1", "m2", "m3")
	members, err := c.M(1).Members(t.Context())
	try(t, err)
	var ask []string
	for _, m := range members {
		for _, port := range agentPorts {
			ask = append(ask, net.JoinHostPort(m.GetAddress(), port), net.JoinHostPort(m.GetManagementAddress(), port))
		}
	}
	for _, m := range c.all() {
		for _, port := range agentPorts {
			ask = append(ask, net.JoinHostPort(m.Address().String(), port))
		}
		c.echoes(m, m.Address().String(), members[slices.IndexFunc(members, func(o *uncloudv1.Machine) bool { return o.GetName() == m.Name })].GetAddress())
	}
	for _, tcp := range slices.Clone(ask) {
		ask = append(ask, "udp "+tcp)
	}
	names := net.JoinHostPort(members[0].GetAddress(), "53")
	control := names + "\nudp " + names
	cmd := c.M(1).Command(t.Context(), "uc", "exec", "-T", w.name(), "/app", "dial")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(strings.Join(append(ask, control), "\n")), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &errs)
	}
	if got := strings.TrimSpace(out.String()); got != control {
		t.Errorf("from a container %q answer, want only the names: %q", got, control)
	}
}

// TestAFirewallInTheWayIsNamed: no rule of ours can overrule another table, so
// a person is told what to add there.
func TestAFirewallInTheWayIsNamed(t *testing.T) {
	c := together(t)
	ctx, m := t.Context(), c.M(3)
	notes := func(ctx context.Context) ([]*uncloudv1.HealthNote, error) {
		var answer uncloudv1.Machine
		err := c.M(1).Query(ctx, &answer, "uc", "machine", "inspect", "m3")
		return slices.DeleteFunc(answer.GetHealth(), func(n *uncloudv1.HealthNote) bool { return !strings.HasPrefix(n.GetCode(), "firewall.") }), err
	}
	said := func(want bool) func(context.Context) error {
		return func(ctx context.Context) error {
			got, err := notes(ctx)
			if err == nil && (len(got) > 0) != want {
				err = fmt.Errorf("m3 suffers from %v", got)
			}
			return err
		}
	}
	eventually(t, long, "no firewall is in the way at first", said(false))
	remove := "nft destroy table inet house"
	t.Cleanup(func() {
		if _, err := m.Shell(context.Background(), remove); err != nil {
			t.Error(err)
		}
	})
	// A careful owner's rules, who forgot the mesh.
	_, err := m.Shell(ctx, `nft 'table inet house { chain input { type filter hook input priority 0; policy drop;
		ct state established,related accept; iifname { "lo", "uncloud", "uncloud0" } accept; tcp dport 22 accept; }; }'`)
	try(t, err)
	eventually(t, long, "the chain that drops is named", said(true))
	got, err := notes(ctx)
	try(t, err)
	if len(got) != 1 || got[0].GetCode() != "firewall.input-drop" || got[0].GetHint() != "nft insert rule inet house input udp dport 51820 accept" {
		t.Fatalf("%v", got)
	}
	r, err := c.M(1).Exec(ctx, "uc", "machine", "ls")
	try(t, err)
	if !strings.Contains(r.Stderr, "table inet house, chain input") || !strings.Contains(r.Stderr, "uc: hint: "+got[0].GetHint()) {
		t.Errorf("uc machine ls says\n%s", r.Stderr)
	}
	_, err = m.Shell(ctx, got[0].GetHint())
	try(t, err)
	eventually(t, long, "what the hint said was all there was to do", said(false))
}

// TestAPrivateNameIsSignedByTheMachineThatAnswers: a browser that was given the
// certificates of all machines trusts a page by https wherever it ends up.
func TestAPrivateNameIsSignedByTheMachineThatAnswers(t *testing.T) {
	c := together(t)
	ctx := t.Context()
	c.deployed(c.M(1), web{project: project(t), version: "one", lines: []string{`x-ports: ["signed.internal:8080/https"]`}})
	page := func(ctx context.Context, m *lab.Machine, roots *x509.CertPool) error {
		client := c.Outside().HTTP()
		client.Transport = &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return c.Outside().Dial(ctx, "tcp", m.Address().String()+":443")
			},
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://signed.internal/", http.NoBody)
		if err != nil {
			return err
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err == nil && !strings.HasPrefix(string(body), "one ") {
			err = fmt.Errorf("%s answers %q", m.Name, body)
		}
		return err
	}
	pools := map[string]*x509.CertPool{}
	for _, m := range []*lab.Machine{c.M(1), c.M(2)} {
		eventually(t, long, m.Name+" serves a page that its own authority signed", func(ctx context.Context) error {
			pem, err := c.M(3).Output(ctx, "uc", "machine", "ca", m.Name)
			if err != nil {
				return err
			}
			pools[m.Name] = x509.NewCertPool()
			if !pools[m.Name].AppendCertsFromPEM([]byte(pem)) {
				return fmt.Errorf("no certificate: %q", pem)
			}
			return page(ctx, m, pools[m.Name])
		})
	}
	if err := page(ctx, c.M(1), pools["m2"]); err == nil {
		t.Error("what one machine signed is trusted for the certificate of another")
	}
}

func TestAFirewallReloadLosesNothing(t *testing.T) {
	c := alone(t, 2)
	ctx := t.Context()
	w := web{project: project(t), version: "one", host: "reload.test", lines: []string{`ports: ["18080:8080"]`}}
	c.deployed(c.M(1), w)
	replicas := c.healthyOn(c.M(1), w.name(), "m1", "m2")
	works := func(ctx context.Context) error {
		if err := c.page(ctx, c.M(1), w.host, "one"); err != nil {
			return err
		}
		if _, err := c.Outside().Get(ctx, c.M(1).Address().String()+":18080", "any", "/"); err != nil {
			return fmt.Errorf("published port: %w", err)
		}
		if _, err := c.M(1).Output(ctx, "uc", "exec", "-T", "--replica", on(replicas, "m1").GetName(), w.name(), "/app",
			"get", "http://"+on(replicas, "m2").GetAddress()+":8080/"); err != nil {
			return fmt.Errorf("container to container: %w", err)
		}
		if open := c.open(c.Outside(), []string{net.JoinHostPort(c.M(1).Address().String(), "51000")}); len(open) > 0 {
			return fmt.Errorf("%v is open to the outside", open)
		}
		return nil
	}
	eventually(t, long, "all works at first", works)

	_, err := c.M(1).Output(ctx, "nft", "flush", "ruleset")
	try(t, err)
	if err := works(ctx); err != nil {
		t.Errorf("right after nft flush ruleset: %v", err)
	}

	// While no agent owns the table a flush takes it; the next agent puts it back.
	_, err = c.M(1).Shell(ctx, "systemctl stop uncloud; nft flush ruleset; systemctl start uncloud")
	try(t, err)
	eventually(t, long, "all works after a flush without an agent", works)
}
