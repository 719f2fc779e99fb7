package firewall

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// kernelPolicy fits the world of the tests.
func kernelPolicy() Policy {
	p := testPolicy()
	p.Members = []netip.Addr{addr("fd00::7"), addr("fd00::8")}
	p.TicketHolders = []netip.Addr{addr("fdaa::1")}
	p.Ingress = true
	c1 := addr("10.210.7.10")
	p.Published = []Publish{
		{HostPort: 18080, Protocol: "tcp", ContainerAddr: c1, ContainerPort: 8080},
		{HostPort: 18080, Protocol: "udp", ContainerAddr: c1, ContainerPort: 8080},
		{HostIP: prefix("127.0.0.1/32"), HostPort: 18081, Protocol: "tcp", ContainerAddr: c1, ContainerPort: 8080},
		{HostPort: 53, Protocol: "tcp", ContainerAddr: c1, ContainerPort: 8080},
	}
	return p
}

// machineSockets are what a careless machine would listen on: everything, on
// every address. It is for the rules to sort out.
func machineSockets() []socket {
	var s []socket
	for _, port := range []string{"22", "53", "80", "443", "51000", "51001", "51002", "51003", "51004"} {
		s = append(s, socket{"tcp", "", "[::]:" + port})
	}
	return append(s, socket{"udp", "", "10.210.7.1:53"}, socket{"udp", "", "[::]:51001"}, socket{"udp", "", "[::]:51820"})
}

type call struct {
	from string // namespace
	socket
	seen string // as which address, behind the rules; empty: not reached
}

// calls is the whole policy, told from the places that it is about.
func calls() []call {
	c := []call{
		// A container reaches names, ingress, published ports and other containers.
		{"c1", socket{"tcp", "", "10.210.7.1:53"}, "10.210.7.10"},
		{"c1", socket{"udp", "", "10.210.7.1:53"}, "10.210.7.10"},
		{"c1", socket{"tcp", "", "10.210.7.1:443"}, "10.210.7.10"},
		{"c1", socket{"tcp", "", "192.0.2.7:80"}, "10.210.7.10"},
		{"c2", socket{"tcp", "", "10.210.7.10:8080"}, "10.210.7.11"},
		{"c2", socket{"tcp", "", "10.210.7.1:18080"}, "10.210.7.1"},
		{"c2", socket{"tcp", "", "192.0.2.7:18080"}, "10.210.7.1"},
		{"c1", socket{"tcp", "", "10.210.8.2:9000"}, "10.210.7.10"}, // keeps its address in the mesh
		{"c1", socket{"tcp", "", "192.0.2.1:9000"}, "192.0.2.7"},    // and not towards the internet
		// The machine's own processes.
		{"m", socket{"tcp", "", "127.0.0.1:18080"}, "10.210.7.1"},
		{"m", socket{"tcp", "", "127.0.0.1:18081"}, "10.210.7.1"},
		{"m", socket{"tcp", "", "192.0.2.7:18080"}, "192.0.2.7"},
		{"m", socket{"tcp", "", "10.210.7.1:53"}, "10.210.7.1"},
		{"m", socket{"tcp", "", "[fd00::7]:51000"}, "fd00::7"},
		{"m", socket{"tcp", "", "10.210.7.10:8080"}, "10.210.7.1"},
		// Members, and their containers.
		{"peer", socket{"tcp", "fd00::8", "[fd00::7]:51000"}, "fd00::8"},
		{"peer", socket{"udp", "fd00::8", "[fd00::7]:51001"}, "fd00::8"},
		{"peer", socket{"tcp", "10.210.8.1", "10.210.7.1:22"}, "10.210.8.1"},
		{"peer", socket{"tcp", "10.210.8.2", "10.210.7.1:18080"}, "10.210.8.2"},
		{"peer", socket{"udp", "10.210.8.2", "10.210.7.1:18080"}, "10.210.8.2"},
		{"peer", socket{"tcp", "10.210.8.2", "10.210.7.10:8080"}, "10.210.8.2"},
		{"peer", socket{"tcp", "10.210.8.2", "10.210.7.1:53"}, "10.210.8.2"},
		{"peer", socket{"tcp", "10.210.8.2", "10.210.7.1:22"}, ""},
		{"peer", socket{"tcp", "10.210.8.2", "10.210.7.1:51000"}, ""},
		{"peer", socket{"tcp", "10.210.8.1", "10.210.7.1:51000"}, ""},
		// Who holds a ticket is admitted, and nothing else; who is unknown is not there.
		{"peer", socket{"tcp", "fdaa::1", "[fd00::7]:51004"}, "fdaa::1"},
		{"peer", socket{"tcp", "fdaa::1", "[fd00::7]:51000"}, ""},
		{"peer", socket{"tcp", "fdaa::1", "[fd00::7]:22"}, ""},
		{"peer", socket{"tcp", "fd00::66", "[fd00::7]:51004"}, ""},
		// The outside reaches the mesh's port, published ports and whatever the machine's own firewall permits.
		{"outside", socket{"udp", "", "192.0.2.7:51820"}, "192.0.2.1"},
		{"outside", socket{"tcp", "", "192.0.2.7:18080"}, "192.0.2.1"},
		{"outside", socket{"tcp", "", "192.0.2.7:53"}, "192.0.2.1"}, // published by a container, though .1:53 is ours
		{"outside", socket{"tcp", "", "192.0.2.7:22"}, "192.0.2.1"},
		{"outside", socket{"tcp", "", "192.0.2.7:18081"}, ""},
		{"outside", socket{"tcp", "", "10.210.7.1:22"}, ""},
		{"outside", socket{"tcp", "", "10.210.7.10:8080"}, ""},
		{"outside", socket{"udp", "", "192.0.2.7:51001"}, ""},
		{"outside", socket{"tcp", "fd99::1", "[fd00::7]:51000"}, ""},
		{"outside", socket{"tcp", "fd99::1", "[fd00::7]:22"}, ""},
		{"outside", socket{"udp", "10.210.8.7", "192.0.2.7:51820"}, ""}, // a mesh address that does not come by the mesh
	}
	// Gossip speaks UDP as well. (An answer by UDP that was sent to another
	// address than the nearest does not come back in any case.)
	c = append(c, call{"c1", socket{"udp", "", "10.210.7.1:51001"}, ""}, call{"c1", socket{"udp", "", "10.210.7.1:51820"}, ""},
		call{"peer", socket{"udp", "10.210.8.2", "10.210.7.1:51001"}, ""}, call{"peer", socket{"udp", "10.210.8.1", "10.210.7.1:51001"}, ""})
	for _, port := range []string{"51000", "51001", "51002", "51003", "51004", "22"} {
		c = append(c,
			call{"c1", socket{"tcp", "", "10.210.7.1:" + port}, ""},
			call{"c1", socket{"tcp", "", "192.0.2.7:" + port}, ""})
		if port != "22" {
			c = append(c, call{"outside", socket{"tcp", "", "192.0.2.7:" + port}, ""})
		}
	}
	return c
}

func (w world) callAll(calls []call, wait time.Duration) map[call]string {
	w.t.Helper()
	got := map[call]string{}
	for _, ns := range []string{"m", "c1", "c2", "peer", "outside"} {
		var mine []call
		var sockets []socket
		for _, c := range calls {
			if c.from == ns {
				mine, sockets = append(mine, c), append(sockets, c.socket)
			}
		}
		for i, answer := range w.dial(ns, wait, sockets...) {
			got[mine[i]] = answer
		}
	}
	return got
}

// TestReachability first calls everything without rules, so that what is not
// reached afterwards is not reached because of them.
func TestReachability(t *testing.T) {
	w := newWorld(t)
	w.serve("m", machineSockets()...)
	w.serve("c1", socket{"tcp", "", "10.210.7.10:8080"}, socket{"udp", "", "10.210.7.10:8080"})
	w.serve("peer", socket{"tcp", "", "10.210.8.2:9000"})
	w.serve("outside", socket{"tcp", "", "192.0.2.1:9000"})

	var refused []call
	for _, c := range calls() {
		if c.seen == "" && !strings.HasSuffix(c.Address, ":18081") && c.From != "10.210.8.7" { // without rules, nothing listens or leads back
			refused = append(refused, c)
		}
	}
	for c, answer := range w.callAll(refused, 10*time.Second) {
		if answer == "" {
			t.Errorf("without rules, %s does not reach %s: the world is not right", c.from, c.socket)
		}
	}

	w.actor("m", "own").apply(kernelPolicy())
	var allowed []call
	for _, c := range calls() {
		if c.seen != "" {
			allowed = append(allowed, c)
		}
	}
	for wait, part := range map[time.Duration][]call{10 * time.Second: allowed, 700 * time.Millisecond: refused} {
		for c, answer := range w.callAll(part, wait) {
			if answer != c.seen {
				t.Errorf("%s, %s: seen as %q, want %q", c.from, c.socket, answer, c.seen)
			}
		}
	}
}

// TestOtherUsersAreNoMembers: the machine's address makes a member, so it must
// not be at the disposal of everybody with a shell on it.
func TestOtherUsersAreNoMembers(t *testing.T) {
	w := newWorld(t)
	w.serve("m", machineSockets()...)
	w.serve("peer", socket{"tcp", "", "[fd00::8]:51000"}, socket{"udp", "", "[fd00::8]:51001"})
	w.actor("m", "own").apply(kernelPolicy())
	sockets := []socket{{"tcp", "", "[fd00::7]:51000"}, {"tcp", "", "[fd00::8]:51000"}, {"udp", "", "[fd00::8]:51001"}, {"tcp", "", "[fd00::7]:51003"}}
	root := w.dialAs(0, "m", 10*time.Second, sockets...)
	nobody := w.dialAs(65534, "m", time.Second, sockets...)
	for i, want := range []string{"", "", "", "fd00::7"} { // metrics are for local collectors
		if root[i] != "fd00::7" || nobody[i] != want {
			t.Errorf("%s: root is seen as %q, nobody as %q, want %q", sockets[i], root[i], nobody[i], want)
		}
	}
}

func TestHairpin(t *testing.T) {
	w := newWorld(t)
	if out, err := w.command("m", "sysctl", "-n", "net.bridge.bridge-nf-call-iptables").Output(); err != nil || strings.TrimSpace(string(out)) != "1" {
		t.Skip("needs br_netfilter with bridge-nf-call-iptables=1")
	}
	w.serve("c1", socket{"tcp", "", "10.210.7.10:8080"})
	w.actor("m", "own").apply(kernelPolicy())
	own := socket{"tcp", "", "10.210.7.1:18080"}
	if got := w.dial("c1", 500*time.Millisecond, own); got[0] != "" {
		t.Errorf("without hairpin mode the container is reached, as %s: it is not needed", got[0])
	}
	w.in("m", "ip link set vc1 type bridge_slave hairpin on") // as the mesh does
	if got := w.dial("c1", 10*time.Second, own); got[0] != "10.210.7.1" {
		t.Errorf("seen as %q", got[0])
	}
}

// table is our table as the kernel has it, with handles, which change when it is loaded anew.
func (w world) table() string {
	out, err := w.nft("-a", "list", "table", "inet", Table)
	if err != nil {
		return ""
	}
	return out
}

func rules(table string) int { return strings.Count(table, "# handle") }

func (w world) eventually(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			w.t.Fatalf("not in time: %s\n%s", what, w.table())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestEqualPolicyLoadsNothing(t *testing.T) {
	w := newWorld(t)
	own := w.actor("m", "own")
	first := own.apply(kernelPolicy())
	before := w.table()
	if again := own.apply(kernelPolicy()); again != first || w.table() != before {
		t.Errorf("loaded again: %v, %v", first, again)
	}
	p := kernelPolicy()
	p.Published = nil
	if other := own.apply(p); other.Hash == first.Hash || rules(w.table()) >= rules(before) {
		t.Errorf("not changed: %v\n%s", other, w.table())
	}
}

func TestFlushByOthers(t *testing.T) {
	w := newWorld(t)
	status := w.actor("m", "own").apply(kernelPolicy())
	before := w.table()
	if _, err := w.nft("flush", "ruleset"); err != nil {
		t.Fatal(err)
	}
	if status.Can.Persistent {
		if w.table() != before {
			t.Errorf("an owned table was changed:\n%s", w.table())
		}
		if out, err := w.nft("delete", "table", "inet", Table); err == nil || !strings.Contains(out, "not permitted") {
			t.Errorf("delete by others: %v %s", err, out)
		}
		return
	}
	t.Log("this nft or kernel has no owned tables: the table has to come back")
	w.eventually("rules are back", func() bool { return rules(w.table()) == rules(before) })
	if _, err := w.nft("delete", "table", "inet", Table); err != nil {
		t.Fatal(err)
	}
	w.eventually("rules are back once more", func() bool { return rules(w.table()) == rules(before) })
}

func TestAdoption(t *testing.T) {
	w := newWorld(t)
	first := w.actor("m", "own")
	status := first.apply(kernelPolicy())
	before := w.table()
	if err := first.cmd.Process.Kill(); err != nil { // ip netns exec has become the actor
		t.Fatal(err)
	}
	first.end()
	if status.Can.Persistent {
		w.eventually("table is an orphan", func() bool { return !strings.Contains(w.table(), "owner") })
	}
	if rules(w.table()) != rules(before) {
		t.Errorf("rules after the owner died:\n%s", w.table())
	}
	w.actor("m", "own").apply(kernelPolicy())
	if rules(w.table()) != rules(before) {
		t.Errorf("%d rules became %d:\n%s", rules(before), rules(w.table()), w.table())
	}
	if status.Can.Persistent && !strings.Contains(w.table(), "flags owner") {
		t.Errorf("not adopted:\n%s", w.table())
	}
}

func TestChildDies(t *testing.T) {
	w := newWorld(t)
	own := w.actor("m", "own")
	own.apply(kernelPolicy())
	before := w.table()
	for _, pid := range children(t, own.cmd.Process.Pid) {
		if err := exec.Command("kill", "-9", pid).Run(); err != nil {
			t.Fatal(err)
		}
	}
	w.eventually("rules are loaded by another child", func() bool {
		now := w.table()
		return now != before && rules(now) == rules(before)
	})
	p := kernelPolicy()
	p.Published = nil
	own.apply(p)
}

// children are the processes that a process has started.
func children(t *testing.T, pid int) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, strings.Fields(string(b))...)
	}
	if len(pids) == 0 {
		t.Fatal("the owner has no child")
	}
	return pids
}

func TestRemove(t *testing.T) {
	w := newWorld(t)
	own := w.actor("m", "own")
	own.apply(kernelPolicy())
	var answer ownAnswer
	own.tell(nil, &answer)
	if answer.Err != "" || w.table() != "" {
		t.Errorf("removed: %v\n%s", answer, w.table())
	}
	own.tell(nil, &answer)
	if answer.Err != "" {
		t.Errorf("nothing to remove: %v", answer)
	}
	own.apply(kernelPolicy())
	if w.table() == "" {
		t.Error("not loaded again after removal")
	}
}

func TestSessionSurvivesRefusal(t *testing.T) {
	w := newWorld(t)
	a := w.actor("m", "refuse")
	var got []string
	a.tell(nil, &got)
	if !strings.Contains(got[0], "No such file or directory") ||
		!strings.HasPrefix(got[2], "syntax error") || got[1] != "done" || got[3] != "done" || got[4] != "done" {
		t.Errorf("%q", got)
	}
	var count int
	a.tell(nil, &count)
	if count != 5 {
		t.Errorf("the second child has done %d transactions", count)
	}
}
