package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests in namespaces_test.go run machines as processes of this test
// binary, each in a network namespace of its own, because WireGuard in
// userspace opens sockets from any thread. A machine is told what to do over
// its standard input and output.

const machineEnv = "UNCLOUD_MESH_TEST_MACHINE"

func TestMain(m *testing.M) {
	if os.Getenv(machineEnv) != "" {
		if err := serveMachine(); err != nil {
			fmt.Fprintln(os.Stderr, "machine:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

type pipes struct {
	io.Reader
	io.WriteCloser
}

// serveMachine answers until standard input ends.
func serveMachine() error {
	// A control directory of its own: all machines call their link alike.
	run, err := filepath.EvalSymlinks("/var/run")
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", run, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", run, err)
	}
	server := rpc.NewServer()
	machine := &Machine{held: map[string]net.Conn{}}
	if err := server.Register(machine); err != nil {
		return err
	}
	server.ServeConn(pipes{os.Stdin, os.Stdout})
	if machine.mesh != nil {
		return machine.mesh.Close()
	}
	return nil
}

// Machine is the far side of a lab machine.
type Machine struct {
	mesh *Mesh
	held map[string]net.Conn
}

type StartArgs struct {
	Identity        Identity
	EndpointTimeout time.Duration
}

type None struct{}

func (m *Machine) Start(args StartArgs, _ *None) error {
	level := slog.LevelWarn
	if os.Getenv("MESH_TEST_VERBOSE") != "" {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	m.mesh = New(Options{Link: testLink, Bridge: testBridge, Logger: logger, EndpointTimeout: args.EndpointTimeout})
	if err := m.mesh.Start(args.Identity); err != nil {
		return err
	}
	go func() { _ = m.mesh.Run(context.Background()) }()
	return nil
}

func (m *Machine) SetPeers(peers []Peer, _ *None) error {
	return m.mesh.SetPeers(peers)
}

func (m *Machine) SetJoinPeers(keys []Key, _ *None) error {
	return m.mesh.SetJoinPeers(keys)
}

func (m *Machine) EnsureBridge(subnet netip.Prefix, _ *None) error {
	return m.mesh.EnsureBridge(subnet)
}

func (m *Machine) Status(_ None, s *Status) (err error) {
	*s, err = m.mesh.Status()
	return err
}

func (m *Machine) Endpoints(port uint16, out *[]netip.AddrPort) (err error) {
	*out, err = m.mesh.LocalEndpoints(port)
	return err
}

func (m *Machine) Destroy(_ None, _ *None) error { return m.mesh.Destroy() }

// Listen answers each connection with the address it comes from, and then
// echoes.
func (m *Machine) Listen(address string, _ *None) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				fmt.Fprintf(c, "%-64s", host)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return nil
}

func greeting(c net.Conn) (string, error) {
	b := make([]byte, 64)
	_, err := io.ReadFull(c, b)
	return strings.TrimSpace(string(b)), err
}

// Dial connects, keeps the connection, and tells as whom it is seen.
func (m *Machine) Dial(address string, seenAs *string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	m.held[address] = c
	*seenAs, err = greeting(c)
	return err
}

// Echo sends something by a connection that Dial made and waits for it.
func (m *Machine) Echo(address string, _ *None) error {
	c := m.held[address]
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

// Occupy takes a UDP port.
func (m *Machine) Occupy(port int, _ *None) error {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if err == nil {
		m.held["udp"] = c
	}
	return err
}

type JoinArgs struct {
	Key     Key
	Members []Peer
	Address string
	Timeout time.Duration
}

type JoinReply struct {
	SeenAs string
	During string // state of the machine's network while joined
}

func (m *Machine) Join(args JoinArgs, reply *JoinReply) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), args.Timeout)
	defer cancel()
	link, err := DialJoin(ctx, JoinConfig{PrivateKey: args.Key, Members: args.Members})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, link.Close()) }()
	c, err := link.DialContext(ctx, "tcp", args.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	if reply.SeenAs, err = greeting(c); err != nil {
		return err
	}
	return m.Run(networkState, &reply.During)
}

// networkState shows links, addresses and routes.
const networkState = "ip -o link | sort; ip -o addr | sort; ip route show table all | sort; ip -6 route show table all | sort"

// Run runs a shell command on the machine.
func (m *Machine) Run(command string, output *string) error {
	b, err := exec.Command("sh", "-c", command).CombinedOutput()
	*output = string(b)
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, b)
	}
	return nil
}

var labs atomic.Int32

// lab is namespaces around one underlay; lab machine n is 192.0.2.n and
// fd99::n on it.
type lab struct {
	t    *testing.T
	name string
}

// remote is the near side of a lab machine.
type remote struct {
	t      *testing.T
	client *rpc.Client
	key    Key
	public Key
	n      int
	ns     string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("iproute2 is not installed")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("no /dev/net/tun")
	}
	t.Parallel() // they wait for one another's handshakes most of the time
	l := &lab{t: t, name: fmt.Sprintf("ucmesh%d-%d-", os.Getpid(), labs.Add(1))}
	if out, err := exec.Command("ip", "netns", "add", l.name).CombinedOutput(); err != nil {
		t.Skipf("network namespaces cannot be made: %s", out)
	}
	t.Cleanup(func() { l.ip("netns", "del", l.name) })
	l.ip("-n", l.name, "link", "add", "br0", "type", "bridge")
	l.ip("-n", l.name, "link", "set", "br0", "up")
	return l
}

func (l *lab) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %s", strings.Join(args, " "), out)
	}
}

// namespace makes one, connected to a bridge of another.
func (l *lab) namespace(suffix, bridgeNS, bridge string) string {
	l.t.Helper()
	ns := l.name + suffix
	l.ip("netns", "add", ns)
	l.t.Cleanup(func() { l.ip("netns", "del", ns) })
	port := "p" + suffix
	l.ip("-n", ns, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", bridgeNS)
	l.ip("-n", bridgeNS, "link", "set", port, "master", bridge, "up")
	l.ip("-n", ns, "link", "set", "lo", "up")
	// No link-local address, whose coming up would look like a change.
	l.ip("-n", ns, "link", "set", "eth0", "addrgenmode", "none")
	l.ip("-n", ns, "link", "set", "eth0", "up")
	return ns
}

// machine boots lab machine n, with no mesh yet.
func (l *lab) machine(n int) *remote {
	l.t.Helper()
	ns := l.namespace(fmt.Sprint(n), l.name, "br0")
	l.ip("-n", ns, "addr", "add", fmt.Sprintf("192.0.2.%d/24", n), "dev", "eth0")
	l.ip("-n", ns, "addr", "add", fmt.Sprintf("fd99::%d/64", n), "dev", "eth0", "nodad")
	return l.boot(ns, n)
}

// container is a machine behind the bridge of another.
func (l *lab) container(on *remote, n int) *remote {
	l.t.Helper()
	ns := l.namespace(fmt.Sprintf("%dc", n), on.ns, testBridge)
	l.ip("-n", ns, "addr", "add", fmt.Sprintf("10.210.%d.5/24", n), "dev", "eth0")
	l.ip("-n", ns, "route", "add", "default", "via", fmt.Sprintf("10.210.%d.1", n))
	return l.boot(ns, n)
}

func (l *lab) boot(ns string, n int) *remote {
	t := l.t
	t.Helper()
	cmd := exec.Command("ip", "netns", "exec", ns, os.Args[0])
	cmd.Env = append(os.Environ(), machineEnv+"="+ns)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	r := &remote{t: t, client: rpc.NewClient(pipes{out, in}), n: n, ns: ns}
	t.Cleanup(func() {
		_ = r.client.Close()
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("machine %s: %v", ns, err)
		}
	})
	r.key = testKey(fmt.Sprintf("private %d", n))
	r.public, err = r.key.Public()
	must(t, err)
	return r
}

func (r *remote) call(method string, args, reply any) {
	r.t.Helper()
	must(r.t, r.client.Call("Machine."+method, args, reply))
}

func (r *remote) subnet() netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("10.210.%d.0/24", r.n))
}

func (r *remote) v4() netip.AddrPort {
	return netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:51820", r.n))
}

func (r *remote) v6() netip.AddrPort {
	return netip.MustParseAddrPort(fmt.Sprintf("[fd99::%d]:51820", r.n))
}

// management is an address of r's API.
func (r *remote) management() string {
	return netip.AddrPortFrom(ManagementAddress(r.public), 51000).String()
}

func (r *remote) peer(endpoints ...netip.AddrPort) Peer {
	return Peer{Machine: fmt.Sprintf("mch_%d", r.n), PublicKey: r.public, Endpoints: endpoints, Subnet: r.subnet()}
}

// start brings the mesh up, with the bridge, and listens where the API would.
func (r *remote) start(patience time.Duration) {
	r.t.Helper()
	id := Identity{PrivateKey: r.key, ListenPort: 51820, Subnet: r.subnet(), Network: network}
	r.call("Start", StartArgs{id, patience}, &None{})
	r.call("EnsureBridge", r.subnet(), &None{})
	r.call("Listen", r.management(), &None{})
	r.call("Listen", Gateway(r.subnet()).String()+":51000", &None{})
}

func (r *remote) status() Status {
	r.t.Helper()
	var s Status
	r.call("Status", None{}, &s)
	return s
}

func (r *remote) peerStatus(of *remote) PeerStatus {
	r.t.Helper()
	for _, p := range r.status().Peers {
		if p.PublicKey == of.public {
			return p
		}
	}
	r.t.Fatalf("%s has no peer %s", r.ns, of.ns)
	return PeerStatus{}
}

// reach dials until it works, and tells as whom r was seen.
func (r *remote) reach(address string) string {
	r.t.Helper()
	var seenAs string
	deadline := time.Now().Add(40 * time.Second)
	for {
		err := r.client.Call("Machine.Dial", address, &seenAs)
		if err == nil {
			return seenAs
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s does not reach %s: %v", r.ns, address, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (r *remote) run(command string) string {
	r.t.Helper()
	var out string
	r.call("Run", command, &out)
	return out
}
