package names

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"uncloud/internal/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness is a server on loopback, as the machine mch_a at 127.53.1.1.
type harness struct {
	t      *testing.T
	server *Server
	c      *cluster
	port   uint16

	mu      sync.Mutex
	counted map[string]int
}

func start(t *testing.T, upstream ...netip.AddrPort) *harness {
	t.Helper()
	h := &harness{t: t, c: newCluster(), port: freePort(t), counted: map[string]int{}}
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	h.server = New(Options{
		Log: slog.New(slog.DiscardHandler), ResolvConf: conf, Port: h.port,
		Shuffle: func(n int, swap func(i, j int)) { // turn around: seen to be at work, and the same each time
			for i := range n / 2 {
				swap(i, n-1-i)
			}
		},
		OnQuery: func(kind, rcode string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.counted[kind+" "+rcode]++
		},
	})
	if len(upstream) > 0 {
		h.server.resolvers.port = strconv.Itoa(int(upstream[0].Port()))
	}
	h.resolvConf(upstream...)
	h.server.Load(h.c.view("mch_a"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	h.listening("127.53.1.1")
	return h
}

func (h *harness) resolvConf(upstream ...netip.AddrPort) {
	h.t.Helper()
	lines := "search example.com\nnameserver 127.53.1.1\n" // itself: never asked
	for _, u := range upstream {
		lines += "nameserver " + u.Addr().String() + "\n"
	}
	if err := os.WriteFile(h.server.resolvers.path, []byte(lines), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// freePort is one that is free for both protocols on all of loopback.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.53.1.1:0")
	if err != nil {
		t.Skipf("needs loopback addresses: %v", err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func (h *harness) listening(at string) {
	h.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := net.Dial("tcp", net.JoinHostPort(at, strconv.Itoa(int(h.port))))
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ask sends a question from an address to the server at mch_a's.
func (h *harness) ask(network, from, name string, qtype uint16, more ...func(*dns.Msg)) *dns.Msg {
	h.t.Helper()
	return h.askAt("127.53.1.1", network, from, name, qtype, more...)
}

func (h *harness) askAt(at, network, from, name string, qtype uint16, more ...func(*dns.Msg)) *dns.Msg {
	h.t.Helper()
	q := new(dns.Msg).SetQuestion(name, qtype)
	for _, f := range more {
		f(q)
	}
	ip := net.ParseIP(from)
	client := dns.Client{Net: network, Timeout: 10 * time.Second, UDPSize: dns.MaxMsgSize, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: ip}}}
	if network == "tcp" {
		client.Dialer.LocalAddr = &net.TCPAddr{IP: ip}
	}
	r, _, err := client.Exchange(q, net.JoinHostPort(at, strconv.Itoa(int(h.port))))
	if err != nil {
		h.t.Fatalf("%s %s from %s: %v", name, dns.TypeToString[qtype], from, err)
	}
	return r
}

// short is a reply as text: the code, and the data of the answers.
func short(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		words = append(words, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return strings.Join(words, " ")
}

const (
	fromShop = "127.53.1.2"
	fromBlog = "127.53.1.3"
	fromPeer = "127.53.2.1"
)

func TestAnswers(t *testing.T) {
	h := start(t)
	tests := []struct {
		from, name string
		qtype      uint16
		want       string
	}{
		{fromShop, "web.internal.", dns.TypeA, "NOERROR 127.53.2.2 127.53.3.2 127.53.1.2"},
		{fromShop, "WeB.InTeRnAl.", dns.TypeA, "NOERROR 127.53.2.2 127.53.3.2 127.53.1.2"},
		{fromBlog, "web.internal.", dns.TypeA, "NOERROR 127.53.1.3"},
		{fromPeer, "nearest.web.internal.", dns.TypeA, "NOERROR 127.53.1.2 127.53.3.2 127.53.2.2"},
		{fromShop, "web.shop.internal.", dns.TypeANY, "NOERROR 127.53.2.2 127.53.3.2 127.53.1.2"},
		{fromShop, spec.ServiceID("blog", "web") + ".internal.", dns.TypeA, "NOERROR 127.53.1.3"},
		{fromShop, "idle.internal.", dns.TypeA, "NOERROR"},
		{fromShop, "web.internal.", dns.TypeAAAA, "NOERROR"},
		{fromShop, "web.internal.", dns.TypeMX, "NOERROR"},
		{fromShop, "nobody.internal.", dns.TypeA, "NXDOMAIN"},
		{fromShop, "nobody.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{fromShop, "nobody.internal.", dns.TypeTXT, "NXDOMAIN"},
		{fromShop, "machine.internal.", dns.TypeA, "NOERROR"},
		{fromShop, "vps.machine.internal.", dns.TypeA, "NOERROR 127.53.2.1"},
		{fromShop, "vps.machine.internal.", dns.TypeAAAA, "NOERROR"},
		{fromPeer, "vps.machine.internal.", dns.TypeAAAA, "NOERROR fd00::2"},
		{"127.0.0.1", "vps.machine.internal.", dns.TypeAAAA, "NOERROR fd00::2"},
		{fromShop, "web-bbbb.vps.machine.internal.", dns.TypeA, "NOERROR 127.53.2.2"},
		{fromShop, "2.2.53.127.in-addr.arpa.", dns.TypePTR, "NOERROR web-bbbb.vps.machine.internal."},
		{fromShop, "1.2.53.127.in-addr.arpa.", dns.TypePTR, "NOERROR vps.machine.internal."},
		{fromShop, "9.2.53.127.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{fromShop, "2.53.127.in-addr.arpa.", dns.TypePTR, "NOERROR"},
		{fromShop, "2.2.53.127.in-addr.arpa.", dns.TypeA, "NOERROR"},
		{fromShop, "_8080._tcp.db.internal.", dns.TypeSRV, "NOERROR 0 1 8080 db-eeee.vps.machine.internal."},
		{fromShop, "_https._tcp.nearest.web.internal.", dns.TypeSRV, "NOERROR 0 1 8443 web-aaaa.pi.machine.internal. 1 1 8443 web-cccc.nas.machine.internal. 2 1 8443 web-bbbb.vps.machine.internal."},
		{fromShop, "_8080._tcp.db.internal.", dns.TypeA, "NOERROR"},
		{fromShop, "internal.", dns.TypeNS, "NOERROR names.internal."},
		{fromShop, "internal.", dns.TypeSOA, "NOERROR names.internal. hostmaster.internal. 1 1 1 1 0"},
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range tests {
			r := h.ask(network, tt.from, tt.name, tt.qtype)
			if got := short(r); got != tt.want {
				t.Errorf("%s %s %s from %s: %s, want %s", network, tt.name, dns.TypeToString[tt.qtype], tt.from, got, tt.want)
			}
			if !r.Authoritative || !r.RecursionAvailable || r.Question[0].Name != tt.name {
				t.Errorf("%s: %v", tt.name, r.MsgHdr)
			}
			if len(r.Answer) == 0 && (len(r.Ns) != 1 || r.Ns[0].Header().Rrtype != dns.TypeSOA) {
				t.Errorf("%s: an empty answer without SOA", tt.name)
			}
			for _, rr := range slices.Concat(r.Answer, r.Ns, r.Extra) {
				if rr.Header().Rrtype != dns.TypeOPT && rr.Header().Ttl != 0 {
					t.Errorf("%s: may be kept: %s", tt.name, rr)
				}
			}
		}
	}
}

// TestRefuses asks below the wire: all of loopback is this machine itself.
func TestRefuses(t *testing.T) {
	s := New(Options{Log: slog.New(slog.DiscardHandler), ResolvConf: os.DevNull})
	before, _ := s.answer(new(dns.Msg).SetQuestion("web.internal.", dns.TypeA), netip.MustParseAddr(fromShop), true)
	if got := short(before); got != "SERVFAIL" {
		t.Errorf("before anything is loaded: %s", got)
	}
	s.Load(newCluster().view("mch_a"))
	tests := map[string]struct {
		from, want string
		change     func(*dns.Msg)
	}{
		"a stranger":              {"192.0.2.1", "REFUSED", func(*dns.Msg) {}},
		"a stranger by IPv6":      {"2001:db8::1", "REFUSED", func(*dns.Msg) {}},
		"a stranger, for the web": {"192.0.2.1", "REFUSED", func(m *dns.Msg) { m.Question[0].Name = "example.com." }},
		"notify":                  {fromShop, "NOTIMP", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }},
		"two questions":           {fromShop, "FORMERR", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }},
		"no question":             {fromShop, "FORMERR", func(m *dns.Msg) { m.Question = nil }},
		"another class":           {fromShop, "REFUSED", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			q := new(dns.Msg).SetQuestion("web.internal.", dns.TypeA)
			tt.change(q)
			r, kind := s.answer(q, netip.MustParseAddr(tt.from), true)
			if got := short(r); got != tt.want || kind != kindRefused {
				t.Errorf("%s %s", got, kind)
			}
		})
	}
}

func TestTruncation(t *testing.T) {
	h := start(t)
	for i := range 100 {
		h.c.replica("shop", "db", fmt.Sprintf("db-%04d", i), "mch_c", byte(100+i))
	}
	h.server.Load(h.c.view("mch_a"))
	for _, tt := range []struct {
		network string
		size    uint16 // of EDNS; 0 is without
		most    int
		whole   bool
	}{
		{"udp", 0, 512, false}, {"udp", 1232, 1232, false}, {"udp", 65000, 1232, false}, {"udp", 100, 512, false}, {"tcp", 0, 65535, true},
	} {
		r := h.ask(tt.network, fromShop, "db.internal.", dns.TypeA, func(m *dns.Msg) {
			if tt.size > 0 {
				m.SetEdns0(tt.size, false)
			}
		})
		r.Compress = true // as it came
		if r.Truncated == tt.whole || r.Len() > tt.most || len(r.Answer) == 0 || tt.whole != (len(r.Answer) == 101) {
			t.Errorf("%+v: %d bytes, %d answers, truncated %v", tt, r.Len(), len(r.Answer), r.Truncated)
		}
		if (tt.size > 0) != (r.IsEdns0() != nil) {
			t.Errorf("%+v: EDNS is %v", tt, r.IsEdns0())
		}
	}
}

// upstream is a resolver of the world outside.
type upstream struct {
	addr netip.AddrPort
	mu   sync.Mutex
	seen []string
}

func startUpstream(t *testing.T, at string, answer func(*dns.Msg) *dns.Msg) *upstream {
	t.Helper()
	udp, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{addr: netip.MustParseAddrPort(udp.LocalAddr().String())}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		u.mu.Lock()
		u.seen = append(u.seen, w.LocalAddr().Network()+" "+r.Question[0].Name)
		u.mu.Unlock()
		if m := answer(r); m != nil {
			_ = w.WriteMsg(m)
		}
	})
	for _, srv := range []*dns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { _ = srv.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	return u
}

func (u *upstream) asked() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.seen)
}

func world(r *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(r)
	rr, _ := dns.NewRR(strings.ToLower(r.Question[0].Name) + " 300 IN A 192.0.2.80")
	m.Answer = append(m.Answer, rr)
	return m
}

func TestForward(t *testing.T) {
	u := startUpstream(t, "127.54.0.1:0", world)
	h := start(t, u.addr)
	for _, network := range []string{"udp", "tcp"} {
		r := h.ask(network, fromShop, "ExAmPlE.com.", dns.TypeA)
		if got := short(r); got != "NOERROR 192.0.2.80" || r.Authoritative || r.Question[0].Name != "ExAmPlE.com." || r.Answer[0].Header().Ttl != 300 {
			t.Errorf("%s: %v", network, r)
		}
	}
	h.ask("udp", fromShop, "9.9.9.9.in-addr.arpa.", dns.TypePTR)
	h.ask("udp", fromShop, "internal.example.", dns.TypeA)
	h.ask("udp", fromShop, "web.internal.", dns.TypeA) // never leaves
	want := []string{"udp ExAmPlE.com.", "tcp ExAmPlE.com.", "udp 9.9.9.9.in-addr.arpa.", "udp internal.example."}
	if got := u.asked(); !slices.Equal(got, want) {
		t.Errorf("asked %q", got)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counted["forward NOERROR"] != 4 || h.counted["cluster NOERROR"] != 1 {
		t.Errorf("counted %v", h.counted)
	}
}

func TestForwardToTheNext(t *testing.T) {
	bad := startUpstream(t, "127.54.0.1:0", func(r *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(r, dns.RcodeServerFailure) })
	port := strconv.Itoa(int(bad.addr.Port()))
	gone := netip.MustParseAddrPort("127.54.0.2:" + port) // nobody listens: refused at once
	good := startUpstream(t, "127.54.0.3:"+port, world)
	h := start(t, bad.addr, gone, good.addr)
	if got := short(h.ask("udp", fromShop, "example.com.", dns.TypeA)); got != "NOERROR 192.0.2.80" {
		t.Error(got)
	}
	h.resolvConf(bad.addr, gone)
	if got := short(h.ask("udp", fromShop, "example.com.", dns.TypeA)); got != "SERVFAIL" {
		t.Errorf("after the file changed: %s", got)
	}
	h.resolvConf()
	if got := short(h.ask("udp", fromShop, "example.com.", dns.TypeA)); got != "SERVFAIL" {
		t.Errorf("without a resolver: %s", got)
	}
}

func TestForwardRefusesAnswersToOtherQuestions(t *testing.T) {
	u := startUpstream(t, "127.54.0.1:0", func(r *dns.Msg) *dns.Msg {
		r.Question[0].Name = "other.example."
		return world(r)
	})
	h := start(t, u.addr)
	if got := short(h.ask("udp", fromShop, "example.com.", dns.TypeA)); got != "SERVFAIL" {
		t.Error(got)
	}
}

func TestForwardIsBounded(t *testing.T) {
	u := startUpstream(t, "127.54.0.1:0", world)
	h := start(t, u.addr)
	for range forwardLimit {
		h.server.slots <- struct{}{}
	}
	if got := short(h.ask("udp", fromShop, "example.com.", dns.TypeA)); got != "SERVFAIL" {
		t.Error(got)
	}
	if got := short(h.ask("udp", fromShop, "web.blog.internal.", dns.TypeA)); got != "NOERROR 127.53.1.3" {
		t.Error(got)
	}
	<-h.server.slots
	if got := short(h.ask("udp", fromShop, "example.com.", dns.TypeA)); got != "NOERROR 192.0.2.80" {
		t.Error(got)
	}
}

func TestLoad(t *testing.T) {
	h := start(t)
	before := h.server.table()
	h.server.Load(h.c.view("mch_a"))
	if h.server.table() != before {
		t.Error("an equal table was swapped")
	}
	changed(h.c.state.Replicas, "rep_web-dddd", func(r *spec.Replica) { r.Wanted = spec.WantDraining })
	h.server.Load(h.c.view("mch_a"))
	if got := short(h.ask("udp", fromShop, "web.blog.internal.", dns.TypeA)); got != "NOERROR" {
		t.Error(got)
	}
}

func TestRenumber(t *testing.T) {
	h := start(t)
	changed(h.c.state.Machines, "mch_a", func(m *spec.Machine) { m.Subnet = netip.MustParsePrefix("127.53.77.0/24") })
	h.server.Load(h.c.view("mch_a"))
	h.listening("127.53.77.1")
	if got := short(h.askAt("127.53.77.1", "udp", fromPeer, "pi.machine.internal.", dns.TypeA)); got != "NOERROR 127.53.77.1" {
		t.Error(got)
	}
	if c, err := net.Dial("tcp", net.JoinHostPort("127.53.1.1", strconv.Itoa(int(h.port)))); err == nil {
		c.Close()
		t.Error("still listens on the old address")
	}
}

// TestListenWithoutTheAddress: the bridge may come later.
func TestListenWithoutTheAddress(t *testing.T) {
	s := New(Options{Log: slog.New(slog.DiscardHandler), Port: 45353})
	l, err := s.listen(t.Context(), netip.MustParseAddr("198.51.100.1"))
	if err != nil {
		t.Fatal(err)
	}
	l.close()
}

func TestPortIsTaken(t *testing.T) {
	s := New(Options{Log: slog.New(slog.DiscardHandler), Port: freePort(t)})
	at := netip.MustParseAddr("127.53.1.1")
	other, err := net.Listen("tcp", netip.AddrPortFrom(at, s.options.Port).String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.listen(t.Context(), at); err == nil {
		t.Fatal("two listen on one port")
	}
	other.Close()
	l, err := s.listen(t.Context(), at) // so the UDP socket was given back, too
	if err != nil {
		t.Fatal(err)
	}
	l.close()
}

// FuzzServe gives the server whatever can be unpacked: it answers, with
// something that can be packed and that fits.
func FuzzServe(f *testing.F) {
	for _, name := range []string{"web.internal.", "_http._tcp.nearest.web.internal.", "2.2.53.127.in-addr.arpa.", "example.com.", "."} {
		q := new(dns.Msg).SetQuestion(name, dns.TypeA)
		q.SetEdns0(600, true)
		b, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true, []byte{127, 53, 1, 2})
	}
	s := New(Options{Log: slog.New(slog.DiscardHandler), ResolvConf: os.DevNull})
	s.Load(newCluster().view("mch_a"))
	f.Fuzz(func(t *testing.T, b []byte, udp bool, source []byte) {
		var q dns.Msg
		if q.Unpack(b) != nil {
			return
		}
		from, _ := netip.AddrFromSlice(source)
		r, _ := s.answer(&q, from, udp)
		r = fit(r, &q, udp)
		out, err := r.Pack()
		if err != nil {
			t.Fatalf("%v\n%v", err, r)
		}
		if udp && len(out) > maxUDP && len(r.Answer) > 0 {
			t.Fatalf("%d bytes by UDP", len(out))
		}
		if r.Id != q.Id || !r.Response {
			t.Fatalf("not an answer to the question: %v", r.MsgHdr)
		}
	})
}
