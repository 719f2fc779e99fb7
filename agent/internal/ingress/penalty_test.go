package ingress

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// serve answers with handler on 127.0.0.<n>.
func serve(t *testing.T, n int, port uint16, handler http.HandlerFunc) (address string) {
	t.Helper()
	address = fmt.Sprintf("127.0.0.%d", n)
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", address, port))
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}}
	srv.Start()
	t.Cleanup(srv.Close)
	return address
}

// ask sends text as it is, closes its half of the connection, and reads until
// the ingress has hung up.
func (i *ingress) ask(text string) {
	i.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", i.set.HTTPPort))
	if err != nil {
		i.t.Error(err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		return // it hung up already
	}
	conn.(*net.TCPConn).CloseWrite()
	io.Copy(io.Discard, bufio.NewReader(conn))
}

// One client's broken requests take a service away from nobody else: neither
// bodies that are malformed or cut off, nor requests at which the service
// itself hangs up.
func TestBrokenRequestsHarmNobodyElse(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	web := i.service("web", "", ingressPort("http", "web.shop.test", port))
	var asked, hungUp atomic.Int64
	i.replica(web, "self", serve(t, 2, port, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang-up" {
			hungUp.Add(1)
			panic(http.ErrAbortHandler)
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			asked.Add(1)
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, "well")
	}))
	i.load()

	const head = "Host: web.shop.test\r\nConnection: close\r\n"
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, text := range []string{
		"POST / HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nnot a size\r\n",
		"POST / HTTP/1.1\r\n" + head + "Content-Length: 1000\r\n\r\nonly this",
		"POST /hang-up HTTP/1.1\r\n" + head + "Content-Length: 0\r\n\r\n",
	} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					i.ask(text)
				}
			}
		})
	}
	good := 0
	for deadline := time.Now().Add(20 * time.Second); good < 100 || asked.Load() < 5 || hungUp.Load() < 5; good++ {
		if status, body, _ := i.get("web.shop.test"); status != 200 || body != "well" {
			t.Errorf("beside broken requests: %d %q", status, body)
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("broken requests arrived %d and %d times", asked.Load(), hungUp.Load())
			break
		}
	}
	close(stop)
	wg.Wait()
}

// A request at which its upstream hangs up is tried elsewhere, and not over and
// over where it was.
func TestHungUpRequestIsTriedElsewhere(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	web := i.service("web", "", ingressPort("http", "web.shop.test", port))
	var asked atomic.Int64
	i.replica(web, "self", serve(t, 2, port, func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	}))
	i.load()
	if status, _, header := i.get("web.shop.test"); status != 502 || header.Get("Retry-After") != retryAfter {
		t.Errorf("%d %v", status, header)
	}
	if n := asked.Load(); n < 1 || n > 4 {
		t.Errorf("the one upstream was asked %d times", n)
	}
	i.replica(web, "near", backend(t, 3, port, "well"))
	i.load()
	for range 20 {
		i.wantBody("web.shop.test", "well")
	}
}

// An upstream that could not be connected to is passed over by all requests,
// until its time is up.
func TestUnreachedUpstreamIsPassedOver(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	web := i.service("web", "", ingressPort("http", "web.shop.test", port))
	i.replica(web, "self", "127.0.0.66") // nobody listens
	i.replica(web, "near", backend(t, 3, port, "alive"))
	i.load()
	dead := fmt.Sprintf("127.0.0.66:%d", port)
	waitFor(t, func() bool {
		i.wantBody("web.shop.test", "alive")
		return i.unreached.has(dead, time.Now())
	})
	if i.unreached.has(fmt.Sprintf("127.0.0.3:%d", port), time.Now()) {
		t.Error("the living one is passed over")
	}
	for route := range *i.table.Load() {
		ups, err := tableSource{route}.GetUpstreams(httptest.NewRequest("GET", "/", nil))
		if err != nil || len(ups) != 1 || ups[0].Dial == dead {
			t.Errorf("%v %v", ups, err)
		}
	}
	if i.unreached.has(dead, time.Now().Add(penalty)) {
		t.Error("for ever")
	}
}

// A client that is gone says nothing about its upstream.
func TestGoneClientIsNoFailure(t *testing.T) {
	i := startIngress(t)
	port := freePort(t)
	web := i.service("web", "", ingressPort("http", "web.shop.test", port))
	began := make(chan struct{}, 1)
	i.replica(web, "self", serve(t, 2, port, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			io.WriteString(w, "well")
			return
		}
		began <- struct{}{}
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	i.load()
	for range 5 {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", i.set.HTTPPort))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: web.shop.test\r\nContent-Length: 1000\r\n\r\nbegun"); err != nil {
			t.Fatal(err)
		}
		<-began
		if err := errors.Join(conn.(*net.TCPConn).SetLinger(0), conn.Close()); err != nil {
			t.Fatal(err)
		}
		i.wantBody("web.shop.test", "well")
	}
}
