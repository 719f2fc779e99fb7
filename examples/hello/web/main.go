// Web shows a page with its version, its host name and the number of visits,
// which it asks of the service "counter".
//
// Environment:
//
//	ADDR     where to listen, :8080
//	COUNTER  address of the counter, http://counter:8081/
//	VERSION  shown on the page
//	FAIL     1: the health check always fails
//	CRASH    1: exit with code 3 after one line of log
package main

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	if os.Getenv("CRASH") == "1" {
		log.Print("web: CRASH is set, so this is the end")
		os.Exit(3)
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	s := &site{
		version: env("VERSION", "unknown"), host: host, counter: env("COUNTER", "http://counter:8081/"),
		fail: os.Getenv("FAIL") == "1", client: &http.Client{Timeout: 2 * time.Second},
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	srv := &http.Server{Addr: env("ADDR", ":8080"), Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		// Requests under way are finished; new ones go elsewhere by now.
		wait, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		stopped <- srv.Shutdown(wait)
	}()
	log.Printf("web: version %s listens on %s", s.version, srv.Addr)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

type site struct {
	version, host, counter string
	fail                   bool
	client                 *http.Client
}

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /health", s.health)
	return mux
}

func (s *site) health(w http.ResponseWriter, _ *http.Request) {
	if s.fail {
		http.Error(w, "FAIL is set", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// page is text for programs and HTML for browsers.
func (s *site) page(w http.ResponseWriter, r *http.Request) {
	visits, err := s.visit(r.Context())
	if err != nil {
		log.Printf("web: %v", err)
		visits = "unknown"
	}
	data := map[string]string{"Version": s.version, "Host": s.host, "Visits": visits}
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		fmt.Fprintf(w, "version %s\nhost %s\nvisits %s\n", s.version, s.host, visits)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := view.Execute(w, data); err != nil {
		log.Printf("web: %v", err)
	}
}

var view = template.Must(template.New("page").Parse(`<!doctype html>
<title>Hello</title>
<h1>Hello from version {{.Version}}</h1>
<p>This is <code>{{.Host}}</code>. You are visit <b>{{.Visits}}</b>.</p>
`))

// visit counts one visit and gives the number.
func (s *site) visit(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.counter, nil)
	if err != nil {
		return "", err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("counter answers %s", resp.Status)
	}
	return strings.TrimSpace(string(body)), nil
}

func env(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}
