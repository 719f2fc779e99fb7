package ingress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// ingress is a Server on free ports of the loopback.
type ingress struct {
	*Server
	*world
	t *testing.T
}

func startIngress(t *testing.T) *ingress {
	t.Helper()
	s, err := New(Options{Storage: newMemory(), Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	w.set = Settings{Address: "127.0.0.1", HTTPPort: freePort(t), HTTPSPort: freePort(t), Linger: 50 * time.Millisecond}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &ingress{Server: s, world: w, t: t}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// load applies the world as it is now.
func (i *ingress) load() {
	i.t.Helper()
	if err := i.Load(i.t.Context(), i.input()); err != nil {
		i.t.Fatal(err)
	}
}

// backend answers with its name on 127.0.0.<n>, all on one port as the
// replicas of a service do.
func backend(t *testing.T, n int, port uint16, name string) (address string) {
	t.Helper()
	address = fmt.Sprintf("127.0.0.%d", n)
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", address, port))
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", name, r.Host, r.Header.Get("X-Forwarded-Proto"))
	})}}
	srv.Start()
	t.Cleanup(srv.Close)
	return address
}

var client = &http.Client{
	Timeout:       20 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// get asks the ingress over http for a host.
func (i *ingress) get(host string) (status int, body string, header http.Header) {
	i.t.Helper()
	req, err := http.NewRequestWithContext(i.t.Context(), "GET", fmt.Sprintf("http://127.0.0.1:%d/", i.set.HTTPPort), nil)
	if err != nil {
		i.t.Fatal(err)
	}
	req.Host = host
	resp, err := client.Do(req)
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func (i *ingress) wantBody(host, want string) {
	i.t.Helper()
	if status, body, _ := i.get(host); status != 200 || !strings.HasPrefix(body, want) {
		i.t.Fatalf("%s: %d %q, want %q", host, status, body, want)
	}
}

func TestServesRoutes(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	web := i.service("web", "", ingressPort("http", "web.shop.test", port), ingressPort("https", "safe.shop.test", port))
	i.replica(web, "self", backend(t, 2, port, "web"))
	i.load()

	i.wantBody("web.shop.test", "web web.shop.test http")
	if status, _, _ := i.get("other.shop.test"); status != 404 {
		t.Errorf("unknown host: %d", status)
	}
	status, _, header := i.get("safe.shop.test")
	if want := fmt.Sprintf("https://safe.shop.test:%d/", i.set.HTTPSPort); status != 308 || header.Get("Location") != want {
		t.Errorf("redirect: %d %s", status, header.Get("Location"))
	}
	loaded := i.running
	i.load() // equal: nothing is loaded, and known goes on
	if &loaded[0] != &i.running[0] {
		t.Error("an equal configuration was loaded again")
	}
	if _, body, header := i.get("web.shop.test"); strings.Contains(body+fmt.Sprint(header), "svc_") {
		t.Error("an id is shown")
	}
}

func TestInternalCertificate(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	web := i.service("web", "", ingressPort("https", "app.shop.internal", port))
	i.replica(web, "self", backend(t, 2, port, "web"))
	i.load()
	pem, err := i.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in root")
	}
	secure := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", i.set.HTTPSPort))
		},
	}}
	defer secure.CloseIdleConnections()
	// The certificate is signed in the background right after the load.
	var body []byte
	for deadline := time.Now().Add(20 * time.Second); ; {
		resp, err := secure.Get("https://app.shop.internal/")
		if err == nil {
			body, _ = io.ReadAll(resp.Body)
			resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !strings.HasPrefix(string(body), "web app.shop.internal https") {
		t.Errorf("%s", body)
	}
}

// A rolling update under load: replicas come, drain and go, and configurations
// are loaded for other services, while requests never fail.
func TestSwitchWithoutFailedRequests(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	web := i.service("web", "", ingressPort("http", "web.shop.test", port))
	old := i.replica(web, "self", backend(t, 2, port, "old"))
	i.load()

	stop := make(chan struct{})
	var asked, failed atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := 0; n < 100000; n++ {
				select {
				case <-stop:
					return
				default:
				}
				asked.Add(1)
				if status, _, _ := i.get("web.shop.test"); status != 200 {
					failed.Add(1)
				}
			}
		})
	}
	for round := range 5 {
		fresh := i.replica(web, "near", backend(t, 10+round, port, "new"))
		i.load()
		i.drain(old)
		i.load()
		delete(i.state.Replicas, old)
		i.service(fmt.Sprintf("other%d", round), "", ingressPort("http", fmt.Sprintf("other%d.shop.test", round), 80))
		i.load()
		old = fresh
		waitFor(t, func() bool { return asked.Load() > int64(50*(round+1)) })
	}
	close(stop)
	wg.Wait()
	i.wantBody("web.shop.test", "new")
	if failed.Load() > 0 || asked.Load() < 250 {
		t.Errorf("%d of %d requests failed", failed.Load(), asked.Load())
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time")
		}
	}
}

// A dead upstream that is still in the table costs time, but no request.
func TestDeadUpstream(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	web := i.service("web", "", ingressPort("http", "web.shop.test", port))
	i.replica(web, "self", "127.0.0.66") // nobody listens
	i.replica(web, "near", backend(t, 3, port, "alive"))
	i.load()
	for range 20 {
		i.wantBody("web.shop.test", "alive")
	}
}

// Where nobody is there, a request waits a while and is told when to come back;
// one that waits while a replica appears is served.
func TestNoUpstream(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	web := i.service("web", "", ingressPort("http", "web.shop.test", port))
	i.load()
	status, body, header := i.get("web.shop.test")
	if status != 503 || header.Get("Retry-After") != retryAfter {
		t.Fatalf("%d %q %v", status, body, header)
	}
	served := make(chan string, 1)
	go func() {
		_, body, _ := i.get("web.shop.test")
		served <- body
	}()
	i.replica(web, "self", backend(t, 2, port, "late"))
	i.load()
	if body := <-served; !strings.HasPrefix(body, "late") {
		t.Errorf("got %q", body)
	}
}

// A snippet that adapts and does not load (its certificate is missing) is left
// out; all others are served, and it is served once it is right.
func TestBadSnippetHarmsNobody(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	web := i.service("web", "", ingressPort("http", "web.shop.test", port))
	i.replica(web, "self", backend(t, 2, port, "web"))
	i.service("good", "http://good.shop.test {\n\trespond \"good\"\n}\n")
	bad := i.service("bad", "bad.shop.test {\n\ttls /missing.crt /missing.key\n\trespond \"bad\"\n}\n")
	i.service("later", "http://later.shop.test {\n\trespond \"later\"\n}\n")
	i.load()
	i.wantBody("web.shop.test", "web")
	i.wantBody("good.shop.test", "good")
	i.wantBody("later.shop.test", "later")
	notes := i.Notes()
	if len(notes) != 1 || notes[0].Service != bad || !strings.Contains(notes[0].Text, "/missing.crt") {
		t.Errorf("notes: %v", notes)
	}
	running := i.running
	i.load() // what was found out is remembered
	if &running[0] != &i.running[0] || len(i.Notes()) != 1 {
		t.Error("the same configuration was tried again")
	}
	i.state.Revisions["rev_bad"] = spec.Revision{ID: "rev_bad", Service: bad,
		Spec: spec.ServiceSpec{Name: "bad", Caddy: "http://bad.shop.test {\n\trespond \"better\"\n}\n"}}
	i.load()
	i.wantBody("bad.shop.test", "better")
	if notes := i.Notes(); len(notes) != 0 {
		t.Errorf("notes: %v", notes)
	}
}

// A snippet is validated on its own, so that two bad ones are told apart.
func TestTwoBadSnippets(t *testing.T) {
	i := startIngress(t)
	for _, name := range []string{"a", "b"} {
		i.service(name, name+".shop.test {\n\ttls /missing-"+name+".crt /missing.key\n}\n")
	}
	i.service("c", "http://c.shop.test {\n\trespond c\n}\n")
	i.load()
	i.wantBody("c.shop.test", "c")
	if notes := i.Notes(); len(notes) != 2 {
		t.Errorf("notes: %v", notes)
	}
}

// A port that somebody else has keeps the old configuration running, with
// fresh upstreams, and Loaded does not claim the new one.
func TestFailedLoadKeepsServing(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	web := i.service("web", "", ingressPort("http", "web.shop.test", port))
	i.replica(web, "self", backend(t, 2, port, "first"))
	i.load()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := ingressPort("http", "taken.shop.test", port)
	taken.Published = uint16(l.Addr().(*net.TCPAddr).Port)
	other := i.service("other", "", taken)
	wantTaken(t, i.Load(t.Context(), i.input()), "TCP", taken.Published)
	i.wantBody("web.shop.test", "first")
	delete(i.state.Services, other)
	i.load()
	i.wantBody("web.shop.test", "first")
}

// wantTaken asks for a sentence with the port, and for what to do about it.
func wantTaken(t *testing.T, err error, protocol string, port uint16) {
	t.Helper()
	f := faults.Of(err)
	if err == nil || f.Code != faults.Conflict ||
		f.Sentence != fmt.Sprintf("load ingress: %s port %d of this machine is in use by another program, so it serves no new routes", protocol, port) {
		t.Fatalf("%v", err)
	}
	see := fmt.Sprintf("see who has it: ss -l%cnp sport = :%d; ", protocol[0]+'a'-'A', port)
	if !strings.HasPrefix(f.Hint, see) || !strings.HasSuffix(f.Hint, "uc machine label self --remove-role ingress") {
		t.Error(f.Hint)
	}
}

// The ports of an ingress may be taken before it begins: TCP by a web server of
// the machine, UDP by another speaker of HTTP/3. It serves once they are free.
func TestPortsThatAreTakenAtTheBeginning(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	web := i.service("web", "", ingressPort("http", "web.shop.test", port), ingressPort("https", "web.shop.test", port))
	i.replica(web, "self", backend(t, 2, port, "first"))
	tcp, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", i.set.HTTPPort))
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	wantTaken(t, i.Load(t.Context(), i.input()), "TCP", i.set.HTTPPort)
	tcp.Close()
	var udp net.PacketConn
	waitFor(t, func() bool { // Caddy lets go of it in the background
		udp, err = net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", i.set.HTTPSPort))
		return err == nil
	})
	defer udp.Close()
	wantTaken(t, i.Load(t.Context(), i.input()), "UDP", i.set.HTTPSPort)
	udp.Close()
	i.load()
	i.wantBody("web.shop.test", "first")
}

func TestStopAndStartAgain(t *testing.T) {
	i := startIngress(t)
	i.service("web", "http://web.shop.test {\n\trespond hi\n}\n")
	i.load()
	i.wantBody("web.shop.test", "hi")
	if err := i.Stop(); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", i.set.HTTPPort)); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
	i.load()
	i.wantBody("web.shop.test", "hi")
}

func TestOneServerAProcess(t *testing.T) {
	i := startIngress(t)
	i.load()
	second, err := New(Options{Storage: newMemory()})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Load(t.Context(), i.input()); err == nil {
		t.Error("two ingresses in one process")
	}
	if err := second.Stop(); err != nil {
		t.Error(err)
	}
	i.load()
}

// A WebSocket, or anything upgraded, outlives configurations of others.
func TestUpgradedConnectionOutlivesLoads(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.4:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	echo := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		rw.Flush()
		io.Copy(conn, rw)
	})}
	go echo.Serve(l)
	defer echo.Close()
	web := i.service("web", "", ingressPort("http", "web.shop.test", port))
	i.replica(web, "self", "127.0.0.4")
	i.load()

	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", i.set.HTTPPort))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: web.shop.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	head := make([]byte, 12)
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 101" {
		t.Fatalf("%q %v", head, err)
	}
	for !strings.HasSuffix(string(head), "\r\n\r\n") {
		b := make([]byte, 1)
		if _, err := conn.Read(b); err != nil {
			t.Fatal(err)
		}
		head = append(head, b...)
	}
	for n := range 3 {
		i.service(fmt.Sprintf("other%d", n), "", ingressPort("http", fmt.Sprintf("o%d.shop.test", n), 80))
		i.load()
		if _, err := conn.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 4)
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "ping" {
			t.Fatalf("after load %d: %q %v", n, answer, err)
		}
	}
}
