package firewall

import (
	"net/netip"
	"testing"
	"time"
)

func TestWhichFlowsAreStale(t *testing.T) {
	to := translations{subnet: prefix("10.210.7.0/24"), udp: []Publish{
		{HostPort: 9000, Protocol: "udp", ContainerAddr: addr("10.210.7.10"), ContainerPort: 53},
		{HostIP: prefix("192.0.2.7/32"), HostPort: 9001, Protocol: "udp", ContainerAddr: addr("10.210.7.11"), ContainerPort: 53},
	}}
	local := []netip.Addr{addr("192.0.2.7"), addr("192.0.2.8"), addr("10.210.7.1")}
	for _, c := range []struct {
		to, from, why string
		stale         bool
	}{
		{"192.0.2.7:9000", "10.210.7.10:53", "as a new one", false},
		{"192.0.2.7:9000", "10.210.7.99:53", "a container that is gone", true},
		{"192.0.2.7:9000", "10.210.7.10:54", "another port of the container", true},
		{"192.0.2.7:9000", "192.0.2.7:9000", "from before it was published", true},
		{"192.0.2.7:9001", "10.210.7.11:53", "on the one address", false},
		{"192.0.2.8:9001", "192.0.2.8:9001", "another address: not published there", false},
		{"192.0.2.7:9009", "10.210.7.11:53", "published no more", true},
		{"192.0.2.7:9009", "192.0.2.7:9009", "the machine's own", false},
		{"198.51.100.1:9000", "198.51.100.1:9000", "somebody else's port of that number", false},
		{"10.210.7.11:9000", "10.210.7.11:9000", "between containers", false},
		{"192.0.2.7:9000", "172.17.0.2:53", "led away by another engine", false},
	} {
		if got := to.stale(flow{netip.MustParseAddrPort(c.to), netip.MustParseAddrPort(c.from)}, local); got != c.stale {
			t.Errorf("%s: %t", c.why, got)
		}
	}
}

// TestAClientThatKeepsItsPortFollowsTheContainer: by UDP there is no new
// connection at which the rules would be asked again.
func TestAClientThatKeepsItsPortFollowsTheContainer(t *testing.T) {
	w := newWorld(t)
	w.serve("c2", socket{"udp", "", "10.210.7.11:8080"})
	agent := w.actor("m", "own")
	ask := func() string {
		return w.dial("outside", 500*time.Millisecond, socket{"udp", "192.0.2.1:4999", "192.0.2.7:18080"})[0]
	}
	p := kernelPolicy()
	p.Published = nil
	agent.apply(p)
	if got := ask(); got != "" {
		t.Fatalf("nothing is published, and %q answers", got)
	}
	for _, c := range []struct{ container, seen string }{{"10.210.7.10", ""}, {"10.210.7.11", "192.0.2.1"}, {"10.210.7.10", ""}, {"10.210.7.11", "192.0.2.1"}} {
		p.Published = []Publish{{HostPort: 18080, Protocol: "udp", ContainerAddr: addr(c.container), ContainerPort: 8080}}
		agent.apply(p)
		if got := ask(); got != c.seen {
			t.Errorf("led to %s, seen as %q", c.container, got)
		}
	}
	p.Published = nil
	agent.apply(p)
	if got := ask(); got != "" {
		t.Errorf("published no more, and %q answers", got)
	}
}
