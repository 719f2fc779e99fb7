// Counter keeps a number in a file. POST / adds one and answers the new
// number, GET / answers it, GET /health tells that it works.
//
// Environment:
//
//	ADDR  where to listen, :8081
//	FILE  where the number is kept, /data/count
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	c, err := open(env("FILE", "/data/count"))
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	srv := &http.Server{Addr: env("ADDR", ":8081"), Handler: c.handler(), ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		wait, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		stopped <- srv.Shutdown(wait)
	}()
	log.Printf("counter: %d in %s, listens on %s", c.value, c.file, srv.Addr)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// counter is a number and the file that holds it.
type counter struct {
	file string

	mu    sync.Mutex
	value int64
}

// open reads the number; a file that does not exist is zero.
func open(file string) (*counter, error) {
	c := &counter{file: file}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if c.value, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return c, nil
}

func (c *counter) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{$}", c.add)
	mux.HandleFunc("GET /{$}", c.show)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}

func (c *counter) show(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintln(w, c.value)
}

func (c *counter) add(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := save(c.file, c.value+1); err != nil {
		log.Printf("counter: %v", err)
		http.Error(w, "the number cannot be kept", http.StatusInternalServerError)
		return
	}
	c.value++
	fmt.Fprintln(w, c.value)
}

// save replaces the file at once, so that a power cut leaves the old number or
// the new one.
func save(file string, value int64) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".count-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // fails once it has its name, as it should
	_, err = fmt.Fprintln(f, value)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func env(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}
