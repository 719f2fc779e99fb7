package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"uncloud/agent/internal/join"
	"uncloud/agent/internal/mesh"
	"uncloud/agent/internal/server"
	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refusedAs(t *testing.T, err error, code faults.Code, words string) {
	t.Helper()
	f := faults.Of(err)
	if f == nil || f.Code != code || f.Hint == "" || !strings.Contains(f.Sentence, words) {
		t.Errorf("got %v, want a fault %s with %q and a hint", err, code, words)
	}
}

// TestACandidateIsOneMachine: however often it asks, and only in one cluster.
func TestACandidateIsOneMachine(t *testing.T) {
	dir := t.TempDir()
	candidate := func(cluster string) Identity {
		t.Helper()
		id, err := New(Config{StateDir: dir}, quiet()).candidate(cluster)
		must(t, err)
		return id
	}
	first := candidate("cls_a")
	if again := candidate("cls_a"); again.MachineID != first.MachineID || again.PrivateKey != first.PrivateKey {
		t.Error("the second attempt is another machine")
	}
	if other := candidate("cls_b"); other.MachineID == first.MachineID {
		t.Error("the same machine asks in two clusters")
	}
	must(t, os.WriteFile(filepath.Join(dir, candidateFile), []byte("{"), 0o600))
	damaged := candidate("cls_a")
	must(t, damaged.save(dir))
	if _, err := os.Stat(filepath.Join(dir, candidateFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a member is still a candidate: %v", err)
	}
	if known, ok, err := loadIdentity(dir); !ok || err != nil || known.MachineID != damaged.MachineID {
		t.Errorf("identity %+v, %v, %v", known, ok, err)
	}
}

func TestWhatWouldFailIsRefusedBeforeTheTicketIsUsed(t *testing.T) {
	taken, err := net.ListenUDP("udp", &net.UDPAddr{})
	must(t, err)
	defer taken.Close()
	port := uint16(taken.LocalAddr().(*net.UDPAddr).Port) //nolint:gosec // a port
	err = New(Config{ListenPort: port}, quiet()).mayJoin(join.Ticket{})
	refusedAs(t, err, faults.Conflict, "UDP port")
	err = New(Config{}, quiet()).mayJoin(join.Ticket{Network: netip.MustParsePrefix("127.0.0.0/16")})
	refusedAs(t, err, faults.Conflict, "127.0.0.0")
	// Where tests are run there may be no network at all.
	if err := New(Config{}, quiet()).mayJoin(join.Ticket{}); err != nil && faults.CodeOf(err) != faults.Unreachable {
		t.Error(err)
	}
}

func TestAMachineWithoutANetworkSaysSo(t *testing.T) {
	addrs := func(texts ...string) (out []net.Addr) {
		for _, text := range texts {
			ip, n, err := net.ParseCIDR(text)
			must(t, err)
			out = append(out, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return out
	}
	refusedAs(t, checkNetwork(addrs("127.0.0.1/8", "::1/128", "fe80::1/64", "169.254.7.1/16")), faults.Unreachable, "no address in any network")
	for _, one := range []string{"192.168.1.10/24", "fd00::5/64", "2001:db8::1/64"} {
		if err := checkNetwork(addrs("127.0.0.1/8", one)); err != nil {
			t.Errorf("%s: %v", one, err)
		}
	}
}

// admitter is a member that a ticket holder may ask.
type admitter struct {
	server.Host
	answer func() (*uncloudv1.AdmitResponse, error)
	asked  atomic.Int32
}

func (a *admitter) Member() (*server.Member, error) {
	return &server.Member{State: func() *spec.State { return &spec.State{} }, Admit: func(context.Context, string, *uncloudv1.AdmitRequest) (*uncloudv1.AdmitResponse, error) {
		a.asked.Add(1)
		return a.answer()
	}}, nil
}

func admits(ctx context.Context, dial dialer) (*uncloudv1.AdmitResponse, error) {
	return server.Admit(ctx, dial, &uncloudv1.AdmitRequest{})
}

// roads is a link to members by management address.
type roads map[string]net.Addr

func (r roads) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	to, ok := r[address]
	if !ok {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return new(net.Dialer).DialContext(ctx, to.Network(), to.String())
}

// add makes a member behind the link; a nil answer makes one that is gone.
func (r roads) add(t *testing.T, answer func() (*uncloudv1.AdmitResponse, error)) (mesh.Peer, *admitter) {
	t.Helper()
	private, err := mesh.NewPrivateKey(rand.Reader)
	must(t, err)
	public, err := private.Public()
	must(t, err)
	a := &admitter{answer: answer}
	if answer != nil {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		must(t, err)
		r[netip.AddrPortFrom(mesh.ManagementAddress(public), admissionPort).String()] = l.Addr()
		s := server.New(a, quiet())
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { done <- s.Serve(ctx, l, s.Admission()) }()
		t.Cleanup(func() {
			cancel()
			must(t, <-done)
		})
	}
	return mesh.Peer{PublicKey: public, Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:51820")}}, a
}

func TestTheFirstDecisionOfAMemberCounts(t *testing.T) {
	admitted := func() (*uncloudv1.AdmitResponse, error) { return &uncloudv1.AdmitResponse{Name: "pi"}, nil }
	refused := func() (*uncloudv1.AdmitResponse, error) {
		return nil, faults.New(faults.TicketUsed, "used up").WithHint("another")
	}
	behind := func() (*uncloudv1.AdmitResponse, error) {
		return nil, faults.New(faults.NotReady, "catches up").WithHint("later")
	}
	full := func() (*uncloudv1.AdmitResponse, error) {
		return nil, faults.New(faults.DiskFull, "no space left").WithHint("free some")
	}
	broken := func() (*uncloudv1.AdmitResponse, error) { return nil, errors.New("a bug") }
	tests := map[string]struct {
		answers []func() (*uncloudv1.AdmitResponse, error)
		code    faults.Code
		words   string
	}{
		"one admits":                     {[]func() (*uncloudv1.AdmitResponse, error){admitted}, "", ""},
		"one admits, another catches up": {[]func() (*uncloudv1.AdmitResponse, error){behind, admitted, behind}, "", ""},
		"one admits, another is gone":    {[]func() (*uncloudv1.AdmitResponse, error){nil, admitted}, "", ""},
		"one has a full disk":            {[]func() (*uncloudv1.AdmitResponse, error){full, admitted, full}, "", ""},
		"one is broken":                  {[]func() (*uncloudv1.AdmitResponse, error){broken, admitted}, "", ""},
		"all have a full disk":           {[]func() (*uncloudv1.AdmitResponse, error){full, nil}, faults.DiskFull, "no space left"},
		"a refusal is a decision":        {[]func() (*uncloudv1.AdmitResponse, error){refused, nil}, faults.TicketUsed, "used up"},
		"all catch up":                   {[]func() (*uncloudv1.AdmitResponse, error){behind, behind}, faults.NotReady, "catches up"},
		"the only one is gone":           {[]func() (*uncloudv1.AdmitResponse, error){nil}, faults.Unreachable, "the machine in the ticket"},
		"all are gone":                   {[]func() (*uncloudv1.AdmitResponse, error){nil, nil}, faults.Unreachable, "none of the 2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			link := roads{}
			var members []mesh.Peer
			for _, answer := range tt.answers {
				m, _ := link.add(t, answer)
				members = append(members, m)
			}
			patience := time.Minute // nobody waits for it where a member decides
			if tt.code == faults.Unreachable || tt.code == faults.DiskFull {
				patience = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			res, err := askFirst(ctx, link, members, admits)
			if tt.code == "" {
				if err != nil || res.GetName() != "pi" {
					t.Errorf("got %v, %v", res, err)
				}
				return
			}
			refusedAs(t, err, tt.code, tt.words)
		})
	}
}

// TestOnlyOneMemberDecides: two that decide would give a machine two places.
func TestOnlyOneMemberDecides(t *testing.T) {
	link := roads{}
	var members []mesh.Peer
	var all []*admitter
	for range 4 {
		m, a := link.add(t, func() (*uncloudv1.AdmitResponse, error) { return &uncloudv1.AdmitResponse{}, nil })
		members, all = append(members, m), append(all, a)
	}
	_, err := askFirst(t.Context(), link, members, admits)
	must(t, err)
	var asked int32
	for _, a := range all {
		asked += a.asked.Load()
	}
	if asked != 1 {
		t.Errorf("%d members were asked to decide", asked)
	}
}

func TestEachEndpointGetsItsTime(t *testing.T) {
	three := make([]netip.AddrPort, 3)
	got := patienceFor([]mesh.Peer{{}, {Endpoints: three}, {Endpoints: three[:1]}})
	if got != doorPatience+2*endpointPatience || patienceFor(nil) != doorPatience {
		t.Error(got)
	}
}

func TestAcceptRefusesAnAnswerWithoutNetwork(t *testing.T) {
	id, err := newIdentity()
	must(t, err)
	if err := id.accept(&uncloudv1.AdmitResponse{Subnet: "10.210.1.0/24"}); faults.CodeOf(err) != faults.Internal {
		t.Error(err)
	}
	res := &uncloudv1.AdmitResponse{
		ClusterId: "cls_a", Network: "10.210.0.0/16", Subnet: "10.210.1.0/24", Name: "pi", Site: "x", Version: 7,
		Members: []*uncloudv1.Member{{MachineId: "mch_1", Name: "one", Subnet: "nonsense", Endpoints: []string{"192.0.2.1:51820", "nonsense"}}},
	}
	must(t, id.accept(res))
	if id.Self.Name != "pi" || id.Self.ID != id.MachineID || id.ReadyVersion != 7 || len(id.Members) != 1 || len(id.Members[0].Endpoints) != 1 {
		t.Errorf("%+v", id)
	}
}

// TestOneIdentity: none is made over another, also where no member lives by it
// yet, or any more.
func TestOneIdentity(t *testing.T) {
	dir := t.TempDir()
	id, err := newIdentity()
	must(t, err)
	id.ClusterID = "cls_a"
	must(t, id.save(dir))
	before, err := os.ReadFile(filepath.Join(dir, identityFile))
	must(t, err)
	a := New(Config{StateDir: dir, ListenPort: freePort(t)}, quiet())
	refusedAs(t, a.Init(t.Context(), server.InitOptions{Name: "pi"}), faults.IsMember, "cls_a")
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	text, err := join.Ticket{ID: "tkt_a", Cluster: "cls_a", ExpiresAt: time.Now().Add(time.Hour)}.Sign(key)
	must(t, err)
	refusedAs(t, a.Join(t.Context(), server.JoinOptions{Ticket: text}, func(string) {}), faults.IsMember, "cls_a")
	if after, err := os.ReadFile(filepath.Join(dir, identityFile)); err != nil || string(after) != string(before) {
		t.Errorf("the identity is another: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, identityFile), []byte("{"), 0o600))
	refusedAs(t, a.Init(t.Context(), server.InitOptions{Name: "pi"}), faults.Internal, "cannot be read")
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{})
	must(t, err)
	defer c.Close()
	return uint16(c.LocalAddr().(*net.UDPAddr).Port) //nolint:gosec // a port
}

// TestWhatAMachineSaysOfItselfIsBounded: every member keeps it for ever.
func TestWhatAMachineSaysOfItselfIsBounded(t *testing.T) {
	private, err := mesh.NewPrivateKey(rand.Reader)
	must(t, err)
	public, err := private.Public()
	must(t, err)
	fill := func(n int, make func(i int) string) (out []string) {
		for i := range n {
			out = append(out, make(i))
		}
		return out
	}
	labels := func(n int) map[string]string {
		out := map[string]string{}
		for _, k := range fill(n, func(i int) string { return fmt.Sprint("label-", i) }) {
			out[k] = "x"
		}
		return out
	}
	endpoints := func(n int) []string { return fill(n, func(i int) string { return fmt.Sprintf("192.0.2.%d:51820", i) }) }
	for name, tt := range map[string]struct {
		change func(*uncloudv1.AdmitRequest)
		words  string
	}{
		"as much as may be": {func(r *uncloudv1.AdmitRequest) {
			r.Endpoints, r.Labels, r.Roles = endpoints(mostEndpoints), labels(mostLabels), []string{"ingress", "worker"}
		}, ""},
		"endpoints":     {func(r *uncloudv1.AdmitRequest) { r.Endpoints = endpoints(mostEndpoints + 1) }, "too many endpoints: 33"},
		"labels":        {func(r *uncloudv1.AdmitRequest) { r.Labels = labels(mostLabels + 1) }, "too many labels: 65"},
		"a label":       {func(r *uncloudv1.AdmitRequest) { r.Labels["x"] = strings.Repeat("x", 256) }, "too long a label: 256"},
		"a label's key": {func(r *uncloudv1.AdmitRequest) { r.Labels[strings.Repeat("x", 256)] = "x" }, "too long a label: 256"},
		"a version":     {func(r *uncloudv1.AdmitRequest) { r.Version = strings.Repeat("x", 129) }, "too long a description: 129"},
		"a role":        {func(r *uncloudv1.AdmitRequest) { r.Roles = []string{"boss"} }, `no role "boss"`},
		"an endpoint":   {func(r *uncloudv1.AdmitRequest) { r.Endpoints = []string{"x"} }, `"x" is no endpoint`},
	} {
		t.Run(name, func(t *testing.T) {
			req := &uncloudv1.AdmitRequest{MachineId: "mch_a", PublicKey: public.String(), SigningKey: "x", Labels: map[string]string{}}
			tt.change(req)
			_, err := admitWanted(req)
			if tt.words == "" {
				must(t, err)
				return
			}
			refusedAs(t, err, faults.Invalid, tt.words)
		})
	}
}
