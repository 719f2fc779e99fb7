package mesh

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var (
	subnet1 = netip.MustParsePrefix("10.210.1.0/24")
	subnet2 = netip.MustParsePrefix("10.210.2.0/24")
	subnet3 = netip.MustParsePrefix("10.210.3.0/24")
)

const testLink, testBridge = "uncloud", "uncloud0"

func identity(name string) Identity {
	return Identity{PrivateKey: testKey(name), ListenPort: 51820, Subnet: subnet1, Network: network}
}

func (i Identity) address(t *testing.T) netip.Prefix {
	t.Helper()
	public, err := i.PrivateKey.Public()
	if err != nil {
		t.Fatal(err)
	}
	return host(ManagementAddress(public))
}

func peerA() Peer {
	return Peer{Machine: "a", PublicKey: testKey("a"), Endpoints: []netip.AddrPort{e1, e2}, Subnet: subnet2}
}

func peerB() Peer {
	return Peer{Machine: "b", PublicKey: testKey("b"), Endpoints: []netip.AddrPort{e2}, Subnet: subnet3}
}

var eth0 = Interface{
	Name: "eth0", Kind: "device", Up: true, MTU: 1500,
	Addresses: []InterfaceAddress{{Prefix: netip.MustParsePrefix("192.0.2.9/24")}},
}

func startMesh(t *testing.T, h *MemoryHost) *Mesh {
	t.Helper()
	h.SetInterfaces(1500, eth0)
	m := New(Options{Link: testLink, Bridge: testBridge, Host: h})
	if err := m.Start(identity("self")); err != nil {
		t.Fatal(err)
	}
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func links(t *testing.T, h *MemoryHost) (link, bridge LinkInfo) {
	t.Helper()
	link, err := h.Link(testLink)
	must(t, err)
	bridge, _ = h.Link(testBridge)
	return link, bridge
}

func TestMeshFromNothing(t *testing.T) {
	h := NewMemoryHost(Userspace)
	m := startMesh(t, h)
	management := identity("self").address(t)
	link, _ := links(t, h)
	if !link.Up || link.MTU != 1420 || !slices.Equal(link.Addresses, []netip.Prefix{management}) {
		t.Fatalf("after start: %+v", link)
	}
	if h.sysctls["net/ipv6/conf/uncloud/disable_ipv6"] != "0" {
		t.Error("a machine with IPv6 off by default gets no management address")
	}
	must(t, m.SetPeers([]Peer{peerA()}))
	link, _ = links(t, h)
	if want := []Route{{To: host(ManagementAddress(testKey("a")))}}; !slices.Equal(link.Routes, want) {
		t.Errorf("before the bridge: %v, want %v", link.Routes, want)
	}
	must(t, m.EnsureBridge(subnet1))
	link, bridge := links(t, h)
	own := netip.MustParseAddr("10.210.1.1")
	if !slices.Equal(bridge.Addresses, []netip.Prefix{netip.MustParsePrefix("10.210.1.1/24")}) || !bridge.Up || bridge.MTU != 1420 {
		t.Errorf("bridge %+v", bridge)
	}
	if !slices.Contains(link.Addresses, host(own)) || !slices.Contains(link.Routes, Route{subnet2, own}) {
		t.Errorf("link %+v", link)
	}
	if h.sysctls["net/ipv4/ip_forward"] != "1" || h.sysctls["net/ipv4/conf/uncloud0/route_localnet"] != "1" {
		t.Errorf("sysctls %v", h.sysctls)
	}
	device, err := h.Device(testLink)
	must(t, err)
	p := device.Peers[0]
	if p.Endpoint != e1 || p.Keepalive != keepalive || len(p.AllowedIPs) != 2 || device.ListenPort != 51820 {
		t.Errorf("device %+v", device)
	}
}

func TestEqualIsNothingToDo(t *testing.T) {
	h := NewMemoryHost(Kernel)
	m := startMesh(t, h)
	peers := []Peer{peerA(), peerB()}
	must(t, m.SetPeers(peers))
	must(t, m.SetJoinPeers([]Key{testKey("ticket")}))
	must(t, m.EnsureBridge(subnet1))
	h.Writes()
	must(t, m.SetPeers([]Peer{peerB(), peerA()}))
	must(t, m.SetJoinPeers([]Key{testKey("ticket")}))
	must(t, m.EnsureBridge(subnet1))
	m.pass(time.Now())
	if w := h.Writes(); len(w) > 0 {
		t.Errorf("wrote %q", w)
	}
}

// watchedHost counts the looks at WireGuard, and fails them if told to.
type watchedHost struct {
	*MemoryHost
	looks int
	fails error
}

func (h *watchedHost) Device(name string) (DeviceInfo, error) {
	if h.looks++; h.fails != nil {
		return DeviceInfo{}, h.fails
	}
	return h.MemoryHost.Device(name)
}

// The agent tells the mesh of its peers at every change of the state, and most
// changes are of something else.
func TestTheSamePeersCostNothing(t *testing.T) {
	h := &watchedHost{MemoryHost: NewMemoryHost(Kernel)}
	m := New(Options{Link: testLink, Bridge: testBridge, Host: h})
	must(t, m.Start(identity("self")))
	tell := func() error {
		return errors.Join(m.SetPeers([]Peer{peerA(), peerB()}), m.SetJoinPeers([]Key{testKey("ticket")}))
	}
	must(t, tell())
	looks := h.looks
	must(t, tell())
	if h.looks != looks {
		t.Errorf("looked %d times for nothing new", h.looks-looks)
	}

	h.fails = errors.New("out of memory")
	fewer := []Peer{peerA()}
	if err := m.SetPeers(fewer); !errors.Is(err, h.fails) {
		t.Errorf("a change that failed: %v", err)
	}
	if err := m.SetPeers(fewer); !errors.Is(err, h.fails) {
		t.Errorf("what was not made so is not tried again: %v", err)
	}
	h.fails = nil
	must(t, m.SetPeers(fewer))
	device, err := h.Device(testLink)
	must(t, err)
	if slices.ContainsFunc(device.Peers, func(p PeerInfo) bool { return p.PublicKey == peerB().PublicKey }) {
		t.Errorf("after the failure: %+v", device.Peers)
	}
}

// A new agent finds the kernel link of the old one and its own bridge.
func TestRestartTouchesNothing(t *testing.T) {
	h := NewMemoryHost(Kernel)
	m := startMesh(t, h)
	must(t, m.SetPeers([]Peer{peerA(), peerB()}))
	must(t, m.EnsureBridge(subnet1))
	h.Handshake(testLink, testKey("a"), e3, time.Now())
	must(t, m.Close())
	h.Writes()

	m = startMesh(t, h)
	if w := h.Writes(); len(w) > 0 {
		t.Errorf("start wrote %q", w)
	}
	must(t, m.SetJoinPeers(nil)) // before anybody said who the peers are
	must(t, m.SetPeers([]Peer{peerA(), peerB()}))
	must(t, m.EnsureBridge(subnet1))
	// b never answered, so its endpoint may be set again; it has only one.
	if w := h.Writes(); len(w) > 0 {
		t.Errorf("restart wrote %q", w)
	}
	status, err := m.Status()
	must(t, err)
	if a := status.Peers[0]; a.Machine != "a" || a.State != PeerUp || a.Endpoint != e3 {
		t.Errorf("a roamed and is up: %+v", a)
	}
	if b := status.Peers[1]; b.State != PeerDown {
		t.Errorf("b never answered: %+v", b)
	}
}

func TestUserspaceLinkEndsWithTheAgent(t *testing.T) {
	h := NewMemoryHost(Userspace)
	m := startMesh(t, h)
	must(t, m.EnsureBridge(subnet1))
	must(t, m.Close())
	if _, err := h.Link(testLink); err == nil {
		t.Error("the link is still there")
	}
	if _, err := h.Link(testBridge); err != nil {
		t.Error("the bridge is gone, and with it the containers' network")
	}
	if err := m.SetPeers(nil); err == nil {
		t.Error("peers were set after close")
	}
}

func TestChangesOfPeersLeaveTheOthersAlone(t *testing.T) {
	h := NewMemoryHost(Kernel)
	m := startMesh(t, h)
	must(t, m.EnsureBridge(subnet1))
	must(t, m.SetPeers([]Peer{peerA()}))
	now := time.Now()
	h.Handshake(testLink, testKey("a"), e3, now)
	must(t, m.SetPeers([]Peer{peerA(), peerB()}))
	must(t, m.SetJoinPeers([]Key{testKey("ticket")}))
	device, err := h.Device(testLink)
	must(t, err)
	if len(device.Peers) != 3 || device.Peers[0].Endpoint != e3 || !device.Peers[0].Handshake.Equal(now) {
		t.Errorf("a lost its session: %+v", device.Peers)
	}
	must(t, m.SetPeers([]Peer{peerA()}))
	must(t, m.SetJoinPeers(nil))
	device, err = h.Device(testLink)
	must(t, err)
	link, _ := links(t, h)
	if len(device.Peers) != 1 || device.Peers[0].PublicKey != testKey("a") || len(link.Routes) != 2 {
		t.Errorf("left behind: %+v %+v", device.Peers, link.Routes)
	}
	must(t, m.SetPeers(nil)) // the last other machine was removed
	if device, _ := h.Device(testLink); len(device.Peers) != 0 {
		t.Errorf("left behind: %+v", device.Peers)
	}
}

func TestTamperingIsRepaired(t *testing.T) {
	remade := 0
	h := NewMemoryHost(Kernel)
	h.SetInterfaces(1500, eth0)
	m := New(Options{Link: testLink, Bridge: testBridge, Host: h, BridgeRemade: func() { remade++ }})
	must(t, m.Start(identity("self")))
	must(t, m.SetPeers([]Peer{peerA()}))
	must(t, m.EnsureBridge(subnet1))
	if remade != 0 {
		t.Error("the first bridge counts as remade")
	}
	goodLink, goodBridge := links(t, h)
	for name, tamper := range map[string]func(map[string]*DeviceInfo, map[string]*LinkInfo){
		"peer removed": func(d map[string]*DeviceInfo, _ map[string]*LinkInfo) { d[testLink].Peers = nil },
		"peer added": func(d map[string]*DeviceInfo, _ map[string]*LinkInfo) {
			d[testLink].Peers = append(d[testLink].Peers, PeerInfo{PublicKey: testKey("x")})
		},
		"allowed changed": func(d map[string]*DeviceInfo, _ map[string]*LinkInfo) {
			d[testLink].Peers[0].AllowedIPs = []netip.Prefix{subnet3}
		},
		"key changed":  func(d map[string]*DeviceInfo, _ map[string]*LinkInfo) { d[testLink].PrivateKey = testKey("x") },
		"port changed": func(d map[string]*DeviceInfo, _ map[string]*LinkInfo) { d[testLink].ListenPort = 1 },
		"link down": func(_ map[string]*DeviceInfo, l map[string]*LinkInfo) {
			l[testLink].Up, l[testLink].Routes = false, nil
		},
		"address added": func(_ map[string]*DeviceInfo, l map[string]*LinkInfo) {
			l[testBridge].Addresses = append(l[testBridge].Addresses, subnet3)
		},
		"link removed":   func(_ map[string]*DeviceInfo, l map[string]*LinkInfo) { delete(l, testLink) },
		"bridge removed": func(_ map[string]*DeviceInfo, l map[string]*LinkInfo) { delete(l, testBridge) },
	} {
		h.Tamper(tamper)
		m.pass(time.Now())
		h.Writes()
		m.pass(time.Now())
		if w := h.Writes(); len(w) > 0 {
			t.Errorf("%s: a second pass wrote %q", name, w)
		}
		device, err := h.Device(testLink)
		must(t, err)
		link, bridge := links(t, h)
		if len(device.Peers) != 1 || len(device.Peers[0].AllowedIPs) != 2 || device.PrivateKey != testKey("self") || device.ListenPort != 51820 {
			t.Errorf("%s: %+v", name, device)
		}
		if !link.Up || len(link.Addresses) != len(goodLink.Addresses) || len(link.Routes) != len(goodLink.Routes) ||
			!slices.Equal(bridge.Addresses, goodBridge.Addresses) {
			t.Errorf("%s: %+v %+v", name, link, bridge)
		}
	}
	if remade != 1 {
		t.Errorf("the bridge was remade %d times", remade)
	}
}

func TestRenumberingMovesTheAddress(t *testing.T) {
	h := NewMemoryHost(Kernel)
	m := startMesh(t, h)
	must(t, m.SetPeers([]Peer{peerA()}))
	must(t, m.EnsureBridge(subnet1))
	must(t, m.ReleaseSubnet())
	link, bridge := links(t, h)
	if len(bridge.Addresses) != 0 || len(link.Addresses) != 1 || len(link.Routes) != 1 {
		t.Errorf("released: %+v %+v", link, bridge)
	}
	must(t, m.EnsureBridge(subnet3))
	link, bridge = links(t, h)
	if bridge.Addresses[0].String() != "10.210.3.1/24" || !slices.Contains(link.Routes, Route{subnet2, Gateway(subnet3)}) {
		t.Errorf("renumbered: %+v %+v", link, bridge)
	}
	must(t, m.EnsureBridge(subnet1)) // without a release, as when no engine minds
	link, bridge = links(t, h)
	if len(bridge.Addresses) != 1 || len(link.Addresses) != 2 || !slices.Contains(link.Routes, Route{subnet2, Gateway(subnet1)}) {
		t.Errorf("back: %+v %+v", link, bridge)
	}
}

func TestDestroyRemovesBoth(t *testing.T) {
	h := NewMemoryHost(Kernel)
	m := startMesh(t, h)
	must(t, m.EnsureBridge(subnet1))
	must(t, m.Destroy())
	must(t, New(Options{Link: testLink, Bridge: testBridge, Host: h}).Destroy())
	if len(h.links) != 0 {
		t.Errorf("left %v", h.links)
	}
}

// In virtual time: a dead first endpoint is left after 15 s for the second,
// which stays; when that dies, the first gets its turn again after 275 s.
func TestRunRotatesEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewMemoryHost(Kernel)
		m := startMesh(t, h)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		must(t, m.SetPeers([]Peer{peerA()}))
		at := func() netip.AddrPort {
			synctest.Wait()
			d, err := h.Device(testLink)
			must(t, err)
			return d.Peers[0].Endpoint
		}
		expect := func(want netip.AddrPort, when string) {
			t.Helper()
			if got := at(); got != want {
				t.Errorf("%s: at %v, want %v", when, got, want)
			}
		}
		expect(e1, "at first")
		time.Sleep(14 * time.Second)
		expect(e1, "after 14 s")
		time.Sleep(2 * time.Second)
		expect(e2, "after 16 s")
		time.Sleep(time.Second)
		h.Handshake(testLink, testKey("a"), e2, time.Now())
		time.Sleep(270 * time.Second)
		expect(e2, "while up")
		time.Sleep(10 * time.Second)
		expect(e1, "after it went down")
		time.Sleep(15 * time.Second)
		expect(e2, "when the other does not answer either")
		cancel()
		must(t, <-done)
	})
}

func TestRunIsIdleWhenAllIsWell(t *testing.T) {
	h := NewMemoryHost(Kernel)
	m := startMesh(t, h)
	if wait := m.pass(time.Now()); wait != repairEvery {
		t.Errorf("alone: looks again after %v", wait)
	}
	must(t, m.SetPeers([]Peer{peerA()}))
	now := time.Now()
	if wait := m.pass(now); wait > endpointTimeout || wait < endpointTimeout-time.Second {
		t.Errorf("unknown: looks again after %v", wait)
	}
	h.Handshake(testLink, testKey("a"), e1, now)
	if wait := m.pass(now); wait != repairEvery {
		t.Errorf("up: looks again after %v", wait)
	}
}

func TestRunRepairsAtOnceAndTellsOfNewAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewMemoryHost(Kernel)
		m := startMesh(t, h)
		<-m.EndpointsChanged() // the first look
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		synctest.Wait()
		h.Tamper(func(_ map[string]*DeviceInfo, l map[string]*LinkInfo) { l[testLink].Up = false })
		time.Sleep(2 * settleTime)
		synctest.Wait()
		if link, _ := links(t, h); !link.Up {
			t.Error("the link is still down")
		}
		select {
		case <-m.EndpointsChanged():
			t.Error("our own link counts as an endpoint")
		default:
		}
		roamed := eth0
		roamed.Addresses = []InterfaceAddress{{Prefix: netip.MustParsePrefix("198.51.100.9/24")}}
		h.SetInterfaces(1500, roamed)
		time.Sleep(2 * settleTime)
		synctest.Wait()
		<-m.EndpointsChanged()
		got, err := m.LocalEndpoints(51820)
		must(t, err)
		if want := []netip.AddrPort{netip.MustParseAddrPort("198.51.100.9:51820")}; !slices.Equal(got, want) {
			t.Errorf("endpoints %v, want %v", got, want)
		}
		if named, err := m.LocalEndpoints(51820, "eth0"); err != nil || !slices.Equal(named, got) {
			t.Errorf("endpoints of eth0 are %v, %v", named, err)
		}
		if others, err := m.LocalEndpoints(51820, "eth1"); err != nil || len(others) > 0 {
			t.Errorf("endpoints of eth1, which is not there, are %v, %v", others, err)
		}
		cancel()
		must(t, <-done)
	})
}

// TestTheNetworkComesAfterTheAgent starts before any link has an address.
func TestTheNetworkComesAfterTheAgent(t *testing.T) {
	h := NewMemoryHost(Kernel)
	down := eth0
	down.Addresses = nil
	h.SetInterfaces(0, down)
	m := New(Options{Link: testLink, Bridge: testBridge, Host: h})
	must(t, m.Start(identity("self")))
	must(t, m.EnsureBridge(subnet1))
	if link, bridge := links(t, h); link.MTU != maxMTU || bridge.MTU != maxMTU {
		t.Errorf("no way out: link %d, bridge %d", link.MTU, bridge.MTU)
	}
	const dsl = 1492
	h.SetInterfaces(dsl, eth0)
	m.pass(time.Now())
	if link, bridge := links(t, h); link.MTU != TunnelMTU(dsl) || bridge.MTU != TunnelMTU(dsl) {
		t.Errorf("a way out: link %d, bridge %d", link.MTU, bridge.MTU)
	}
	<-m.EndpointsChanged()
	h.SetInterfaces(0, down)
	h.Writes()
	m.pass(time.Now())
	if w := h.Writes(); len(w) > 0 {
		t.Errorf("the cable was pulled: wrote %q", w)
	}
}

func TestStartRefusesNoKey(t *testing.T) {
	if err := New(Options{Link: testLink, Bridge: testBridge, Host: NewMemoryHost(Kernel)}).Start(Identity{}); err == nil {
		t.Error("started without a key")
	}
}

func TestStatusListsMembersFirst(t *testing.T) {
	h := NewMemoryHost(Userspace)
	m := startMesh(t, h)
	must(t, m.SetJoinPeers([]Key{testKey("0")}))
	must(t, m.SetPeers([]Peer{peerB(), peerA()}))
	s, err := m.Status()
	must(t, err)
	var names []string
	for _, p := range s.Peers {
		names = append(names, p.Machine)
	}
	if !slices.Equal(names, []string{"a", "b", ""}) || s.Kind != Userspace || s.ListenPort != 51820 || s.MTU != 1420 {
		t.Errorf("%v %+v", names, s)
	}
	if s.Peers[0].State != PeerUnknown {
		t.Errorf("a: %s", s.Peers[0].State)
	}
}
