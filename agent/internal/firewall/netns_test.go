package firewall

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// testNft is the nft under test: another one than the machine's can be tried.
func testNft() string {
	if nft := os.Getenv("UNCLOUD_TEST_NFT"); nft != "" {
		return nft
	}
	return "nft"
}

// world is a machine with two containers, a neighbour across the mesh and one
// on the outside, each a network namespace. The mesh is a plain veth pair.
//
//	c1 10.210.7.10 ─┐
//	                ├ uncloud0 10.210.7.1 [m] uncloud ─── uncloud [peer] 10.210.8.1, .2
//	c2 10.210.7.11 ─┘        192.0.2.7 eth0│  fd00::7       fd00::8, fdaa::1, fd00::66
//	                             [outside] 192.0.2.1, 10.210.7.99, fd00::8
type world struct {
	t      *testing.T
	prefix string
}

func newWorld(t *testing.T) world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	for _, tool := range []string{"ip", testNft()} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	w := world{t, fmt.Sprintf("ucfw%d-", os.Getpid())}
	for _, ns := range []string{"m", "c1", "c2", "peer", "outside"} {
		if out, err := exec.Command("ip", "netns", "add", w.prefix+ns).CombinedOutput(); err != nil {
			t.Skipf("needs network namespaces: %s", out)
		}
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", w.prefix+ns).Run() })
		w.in(ns, "ip link set lo up")
	}
	w.build()
	return w
}

func (w world) build() {
	w.in("m", "sysctl -qw net.ipv4.ip_forward=1")
	w.in("m", "ip link add uncloud0 type bridge", "ip addr add 10.210.7.1/24 dev uncloud0", "ip link set uncloud0 up")
	for i, c := range []string{"c1", "c2"} {
		w.pair("m", "v"+c, c, "eth0")
		w.in("m", "ip link set v"+c+" master uncloud0")
		w.in(c, fmt.Sprintf("ip addr add 10.210.7.%d/24 dev eth0", 10+i), "ip route add default via 10.210.7.1")
	}
	w.pair("m", "uncloud", "peer", "uncloud")
	w.pair("m", "eth0", "outside", "eth0")
	w.in("m", "ip link set uncloud address 02:00:00:00:00:07", "ip link set eth0 address 02:00:00:00:01:07",
		"ip addr add 192.0.2.7/24 dev eth0", "ip -6 addr add fd00::7/128 dev uncloud nodad",
		"ip route add 10.210.0.0/16 dev uncloud src 10.210.7.1")
	w.in("peer", "ip link set uncloud address 02:00:00:00:00:08",
		"ip addr add 10.210.8.1/32 dev uncloud", "ip addr add 10.210.8.2/32 dev uncloud",
		"ip route add 10.210.7.0/24 via 10.210.7.1 dev uncloud onlink src 10.210.8.1", "ip -6 route add fd00::7/128 dev uncloud",
		"ip -6 neigh add fd00::7 lladdr 02:00:00:00:00:07 dev uncloud")
	for _, a := range []string{"fd00::8", "fdaa::1", "fd00::66"} { // WireGuard asks for no neighbours
		w.in("peer", "ip -6 addr add "+a+"/128 dev uncloud nodad")
		w.in("m", "ip -6 route add "+a+"/128 dev uncloud", "ip -6 neigh add "+a+" lladdr 02:00:00:00:00:08 dev uncloud")
	}
	w.in("outside", "ip link set eth0 address 02:00:00:00:01:01", "ip addr add 192.0.2.1/24 dev eth0", "ip addr add 10.210.8.7/32 dev eth0",
		"ip route add 10.210.7.0/24 via 192.0.2.7", "ip -6 route add fd00::7/128 dev eth0",
		"ip -6 addr add fd99::1/128 dev eth0 nodad", "ip -6 neigh add fd00::7 lladdr 02:00:00:00:01:07 dev eth0")
	w.in("m", "ip -6 route add fd99::1/128 dev eth0", "ip -6 neigh add fd99::1 lladdr 02:00:00:00:01:01 dev eth0")
}

func (w world) pair(nsA, a, nsB, b string) {
	w.in(nsA, fmt.Sprintf("ip link add %s type veth peer name %s netns %s", a, b, w.prefix+nsB), "ip link set "+a+" up")
	w.in(nsB, "ip link set "+b+" up")
}

func (w world) command(ns string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", w.prefix + ns}, args...)...)
}

// in runs commands in a namespace, which have to succeed.
func (w world) in(ns string, lines ...string) string {
	w.t.Helper()
	var out []byte
	for _, l := range lines {
		var err error
		if out, err = w.command(ns, strings.Fields(l)...).CombinedOutput(); err != nil {
			w.t.Fatalf("%s in %s: %v\n%s", l, ns, err, out)
		}
	}
	return string(out)
}

func (w world) nft(args ...string) (string, error) {
	out, err := w.command("m", append([]string{testNft()}, args...)...).CombinedOutput()
	return string(out), err
}

// actor is the test binary with a part in a namespace.
type actor struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Scanner
	log   *bytes.Buffer
}

func (w world) actor(ns, part string) *actor {
	w.t.Helper()
	a := &actor{t: w.t, cmd: w.command(ns, "/proc/self/exe"), log: &bytes.Buffer{}}
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	a.cmd.Args[len(a.cmd.Args)-1] = self
	a.cmd.Env = append(os.Environ(), actorVar+"="+part, "GORACE=atexit_sleep_ms=0")
	a.cmd.Stderr = a.log
	a.stdin, err = a.cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	a.out = bufio.NewScanner(out)
	if err := a.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(a.end)
	return a
}

func (a *actor) end() {
	_ = a.stdin.Close()
	force := time.AfterFunc(5*time.Second, func() { _ = a.cmd.Process.Kill() })
	defer force.Stop()
	_ = a.cmd.Wait()
}

// tell gives the actor a line and returns its answer.
func (a *actor) tell(line, answer any) {
	a.t.Helper()
	b, err := json.Marshal(line)
	if err == nil {
		_, err = a.stdin.Write(append(b, '\n'))
	}
	if err != nil {
		a.t.Fatalf("actor: %v\n%s", err, a.log)
	}
	if !a.out.Scan() || json.Unmarshal(a.out.Bytes(), answer) != nil {
		a.t.Fatalf("actor answered %q\n%s", a.out.Bytes(), a.log)
	}
}

func (a *actor) apply(p Policy) Status {
	a.t.Helper()
	var answer ownAnswer
	a.tell(p, &answer)
	if answer.Err != "" {
		a.t.Fatalf("apply: %s\n%s", answer.Err, a.log)
	}
	return answer.Status
}

func (w world) serve(ns string, sockets ...socket) {
	w.t.Helper()
	var ready string
	w.actor(ns, "serve").tell(sockets, &ready)
}

func (w world) dial(ns string, wait time.Duration, sockets ...socket) []string {
	return w.dialAs(0, ns, wait, sockets...)
}

func (w world) dialAs(uid int, ns string, wait time.Duration, sockets ...socket) []string {
	w.t.Helper()
	var answers []string
	a := w.actor(ns, "dial")
	a.tell(map[string]any{"Sockets": sockets, "Wait": wait, "UID": uid}, &answers)
	a.end()
	return answers
}
