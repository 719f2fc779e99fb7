package mesh

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestLabMachinesTalk(t *testing.T) {
	for name, endpoint := range map[string]func(*remote) netip.AddrPort{"IPv4": (*remote).v4, "IPv6": (*remote).v6} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			m1, m2 := l.machine(1), l.machine(2)
			m1.start(0)
			m2.start(0)
			m1.call("SetPeers", []Peer{m2.peer(endpoint(m2))}, &None{})
			m2.call("SetPeers", []Peer{m1.peer(endpoint(m1))}, &None{})

			if got, want := m1.reach(m2.management()), ManagementAddress(m1.public).String(); got != want {
				t.Errorf("seen on the management address as %s, want %s", got, want)
			}
			if got := m2.reach("10.210.1.1:51000"); got != "10.210.2.1" {
				t.Errorf("m2 is seen as %s", got)
			}
			p := m1.peerStatus(m2)
			if p.State != PeerUp || p.Endpoint != endpoint(m2) || p.Received == 0 || p.Sent == 0 {
				t.Errorf("m1 of m2: %+v", p)
			}
			if got := m1.status(); got.Kind != Userspace && got.Kind != Kernel || got.ListenPort != 51820 || got.MTU != 1420 {
				t.Errorf("status %+v", got)
			}
			if _, err := exec.LookPath("wg"); err == nil {
				if out := m1.run("wg show " + testLink); !strings.Contains(out, m2.public.String()) {
					t.Errorf("wg show: %s", out)
				}
			}
			m1.call("Destroy", None{}, &None{})
			if out := m1.run("ip -o link"); strings.Contains(out, "uncloud") {
				t.Errorf("left behind: %s", out)
			}
		})
	}
}

func TestLabContainersTalk(t *testing.T) {
	l := newLab(t)
	m1, m2 := l.machine(1), l.machine(2)
	m1.start(0)
	m2.start(0)
	m1.call("SetPeers", []Peer{m2.peer(m2.v4())}, &None{})
	m2.call("SetPeers", []Peer{m1.peer(m1.v4())}, &None{})
	c1, c2 := l.container(m1, 1), l.container(m2, 2)
	c2.call("Listen", "10.210.2.5:80", &None{})
	if got := c1.reach("10.210.2.5:80"); got != "10.210.1.5" {
		t.Errorf("a container is seen as %s", got)
	}
	if got := m1.reach("10.210.2.5:80"); got != "10.210.1.1" {
		t.Errorf("a machine is seen as %s", got)
	}
	if got := c2.reach("10.210.2.1:51000"); got != "10.210.2.5" {
		t.Errorf("a container is seen by its own machine as %s", got)
	}
	if m1.run("cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || echo 0") == "1\n" {
		// The port came after EnsureBridge: only a message of the kernel tells.
		awaitOutput(t, m1, "cat /sys/class/net/uncloud0/brif/p1c/hairpin_mode", "1\n")
	}
	var endpoints []netip.AddrPort
	m1.call("Endpoints", uint16(51820), &endpoints)
	if len(endpoints) != 2 || endpoints[0] != m1.v4() || endpoints[1] != m1.v6() {
		t.Errorf("endpoints %v", endpoints)
	}
}

func awaitOutput(t *testing.T, m *remote, command, want string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for got := ""; got != want; got = m.run(command) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %q, want %q", command, got, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestLabPeersComeAndGo(t *testing.T) {
	l := newLab(t)
	m1, m2, m3 := l.machine(1), l.machine(2), l.machine(3)
	for _, m := range []*remote{m1, m2, m3} {
		m.start(0)
	}
	m1.call("SetPeers", []Peer{m2.peer(m2.v4())}, &None{})
	m2.call("SetPeers", []Peer{m1.peer(m1.v4())}, &None{})
	m3.call("SetPeers", []Peer{m1.peer(m1.v4())}, &None{})
	m1.reach(m2.management())
	before := m1.peerStatus(m2)

	m1.call("SetPeers", []Peer{m2.peer(m2.v4()), m3.peer()}, &None{}) // m3 calls: m1 has no endpoint of it
	m3.reach(m1.management())
	m1.reach(m3.management())
	if got := m1.peerStatus(m3).Endpoint; got != m3.v4() {
		t.Errorf("m1 learned that m3 is at %v", got)
	}
	m1.call("Echo", m2.management(), &None{})
	m1.call("SetPeers", []Peer{m2.peer(m2.v4())}, &None{})
	m1.call("Echo", m2.management(), &None{})
	after := m1.peerStatus(m2)
	if !after.Handshake.Equal(before.Handshake) || after.Received <= before.Received {
		t.Errorf("the session with m2 did not go on: %+v, then %+v", before, after)
	}
	var seenAs string
	if err := m3.client.Call("Machine.Dial", m1.management(), &seenAs); err == nil {
		t.Error("m3 was removed and still reaches m1")
	}
}

func TestLabRotatesToALiveEndpointAndKeepsARoamedOne(t *testing.T) {
	l := newLab(t)
	m1, m2 := l.machine(1), l.machine(2)
	m1.start(3 * time.Second) // WireGuard's second attempt, after 5 s, meets the second endpoint
	m2.start(0)
	dead := netip.MustParseAddrPort("192.0.2.250:51820")
	advertised := []Peer{m2.peer(dead, m2.v4())}
	m1.call("SetPeers", advertised, &None{})
	m2.call("SetPeers", []Peer{m1.peer()}, &None{}) // m2 cannot call by itself
	m1.reach(m2.management())
	if got := m1.peerStatus(m2); got.Endpoint != m2.v4() || got.State != PeerUp {
		t.Errorf("m2 is at %v, %s", got.Endpoint, got.State)
	}

	m2.run("ip addr del 192.0.2.2/24 dev eth0 && ip addr add 192.0.2.22/24 dev eth0")
	m2.reach(m1.management())
	roamed := netip.MustParseAddrPort("192.0.2.22:51820")
	m1.call("SetPeers", advertised, &None{}) // what others say of m2 is older
	if got := m1.peerStatus(m2); got.Endpoint != roamed {
		t.Errorf("m2 roamed to %v and is sought at %v", roamed, got.Endpoint)
	}
	m1.call("Echo", m2.management(), &None{})
}

func TestLabRemovedLinkComesBack(t *testing.T) {
	l := newLab(t)
	m1, m2 := l.machine(1), l.machine(2)
	m1.start(0)
	m2.start(0)
	m1.call("SetPeers", []Peer{m2.peer(m2.v4())}, &None{})
	m2.call("SetPeers", []Peer{m1.peer(m1.v4())}, &None{})
	m1.reach(m2.management())
	for _, damage := range []string{
		"ip link del uncloud",
		"ip link set uncloud down",
		"ip -6 route del " + ManagementAddress(m2.public).String() + " dev uncloud; ip link set uncloud mtu 1300",
		"ip addr flush dev uncloud",
	} {
		m1.run(damage)
		began := time.Now()
		if got, want := m1.reach(m2.management()), ManagementAddress(m1.public).String(); got != want {
			t.Errorf("after %s: seen as %s, want %s", damage, got, want)
		}
		if got := m1.reach("10.210.2.1:51000"); got != "10.210.1.1" {
			t.Errorf("after %s: seen as %s", damage, got)
		}
		t.Logf("%s: repaired after %v", damage, time.Since(began).Round(10*time.Millisecond))
	}
}

func TestLabJoinLinkReachesAMemberAndNothingElseChanges(t *testing.T) {
	l := newLab(t)
	m1, stranger := l.machine(1), l.machine(9)
	m1.start(0)
	m1.call("SetPeers", []Peer{}, &None{})
	m1.call("SetJoinPeers", []Key{stranger.public}, &None{})
	dead := netip.MustParseAddrPort("192.0.2.250:51820")
	before := stranger.run(networkState)
	args := JoinArgs{
		Key: stranger.key, Members: []Peer{m1.peer(dead, m1.v4())}, Address: m1.management(), Timeout: 30 * time.Second,
	}
	for name, endpoints := range map[string][]netip.AddrPort{
		"IPv4": {m1.v4()}, "IPv6": {m1.v6()}, "the first is dead": {dead, m1.v4()},
	} {
		args.Members = []Peer{m1.peer(endpoints...)}
		var reply JoinReply
		stranger.call("Join", args, &reply)
		if want := ManagementAddress(stranger.public).String(); reply.SeenAs != want {
			t.Errorf("%s: seen as %s, want %s", name, reply.SeenAs, want)
		}
		if reply.During != before || stranger.run(networkState) != before {
			t.Errorf("%s: the network was\n%s\nand became\n%s", name, before, reply.During)
		}
	}

	args.Timeout = 4 * time.Second
	args.Key = testKey("another ticket")
	err := stranger.client.Call("Machine.Join", args, &JoinReply{})
	if err == nil || !strings.Contains(err.Error(), "no answer from the cluster") {
		t.Errorf("a ticket that nobody knows: %v", err)
	}
	args.Address = "[fd00::1]:51000"
	if err := stranger.client.Call("Machine.Join", args, &JoinReply{}); err == nil {
		t.Error("reached an address that is no member's")
	}
}

func TestLabPortInUseIsSaid(t *testing.T) {
	l := newLab(t)
	m1 := l.machine(1)
	m1.call("Occupy", 51820, &None{})
	id := Identity{PrivateKey: m1.key, ListenPort: 51820, Subnet: m1.subnet(), Network: network}
	err := m1.client.Call("Machine.Start", StartArgs{Identity: id}, &None{})
	if err == nil || !strings.Contains(err.Error(), "in use by another program") {
		t.Errorf("got %v", err)
	}
}
