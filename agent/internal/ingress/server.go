package ingress

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
)

// Options wire a Server.
type Options struct {
	// Dir is where certificates and keys are kept, unless Storage says otherwise.
	Dir string
	// Storage keeps certificates, keys and ACME challenges. One that all
	// ingresses share lets any of them answer for any name.
	Storage certmagic.Storage
	Log     *slog.Logger
}

// Server is this machine's ingress. Its methods may be called by several
// goroutines at once. A process runs at most one, because Caddy does.
type Server struct {
	storage certmagic.Storage
	log     *slog.Logger
	table   atomic.Pointer[map[string][]Upstream]
	sockets sockets
	// unreached are the upstreams that could not be connected to, for all requests.
	unreached penalties

	loading  sync.Mutex // held by Load and Stop; a Load may take as long as Settings.Linger
	running  []byte     // the configuration that Caddy runs; nil when stopped
	rejected rejection

	mu    sync.Mutex // held for a moment, so that asking waits for no load
	notes []Note
}

// rejection remembers what was found out about a configuration that did not
// load, so that it is found out once.
type rejection struct {
	config   []byte            // with all snippets
	leaveOut map[string]string // which ones broke it
}

// New makes a Server that does not listen yet.
func New(o Options) (*Server, error) {
	if o.Storage == nil && o.Dir == "" {
		return nil, errors.New("ingress: neither a directory nor a storage is given")
	}
	s := &Server{storage: o.Storage, log: o.Log}
	if s.storage == nil {
		s.storage = &certmagic.FileStorage{Path: o.Dir}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.table.Store(&map[string][]Upstream{})
	return s, nil
}

// Load makes the ingress serve what in says, and starts it where it does not
// run. When it returns nil, that is what is served.
//
// The upstreams take effect in any case. When the configuration cannot be
// loaded, the old one goes on and the error says why; x-caddy of single
// services is no such reason: it is left out, and their notes say so.
func (s *Server) Load(ctx context.Context, in Input) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if !live.CompareAndSwap(nil, s) && live.Load() != s {
		return errors.New("load ingress: this process runs another one")
	}
	c := Compile(in, nil)
	if len(s.rejected.leaveOut) > 0 && bytes.Equal(c.Config, s.rejected.config) {
		c = Compile(in, s.rejected.leaveOut)
	}
	s.table.Store(&c.Upstreams)
	served, err := s.apply(ctx, in, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = served.Notes
	if err != nil {
		return fmt.Errorf("load ingress: %w", taken(err, in))
	}
	return nil
}

// apply runs c's configuration, or the best part of it.
func (s *Server) apply(ctx context.Context, in Input, c Compiled) (Compiled, error) {
	if bytes.Equal(c.Config, s.running) {
		return c, nil
	}
	err := s.run(c.Config)
	if err == nil || len(c.Snippets) == 0 {
		return c, err
	}
	all := Compile(in, nil)
	leaveOut, err := sift(ctx, in, all, err)
	if err != nil {
		return c, err
	}
	s.rejected = rejection{config: all.Config, leaveOut: leaveOut}
	rest := Compile(in, leaveOut)
	// Even where it equals what runs: probing has left Caddy's certificate
	// cache with the settings of a configuration that is gone.
	return rest, s.run(rest.Config)
}

func (s *Server) run(config []byte) error {
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	s.running = config
	s.log.Debug("ingress configuration loaded", "bytes", len(config))
	return nil
}

// sift finds the snippets that keep a configuration from loading: oldest
// first, each is tried together with those that were found good. Where even
// the configuration without any does not load, that is the error.
func sift(ctx context.Context, in Input, all Compiled, cause error) (map[string]string, error) {
	leaveOut := map[string]string{}
	for _, service := range all.Snippets {
		leaveOut[service] = "not tried"
	}
	if err := try(Compile(in, leaveOut).Config); err != nil {
		return nil, cause
	}
	for _, service := range all.Snippets {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		delete(leaveOut, service)
		if err := try(Compile(in, leaveOut).Config); err != nil {
			leaveOut[service] = reason(err)
		}
	}
	if len(leaveOut) == 0 {
		return nil, cause
	}
	return leaveOut, nil
}

// try provisions a configuration as loading would, without serving it.
func try(config []byte) error {
	var c caddy.Config
	if err := json.Unmarshal(config, &c); err != nil {
		return err
	}
	return caddy.Validate(&c)
}

// reason is the last part of Caddy's chain of modules, which says what is wrong.
func reason(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, "provision "); i > 0 {
		text = text[i:]
	}
	return text
}

// Notes tell what the last Load did not serve, sorted by service.
func (s *Server) Notes() []Note {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.notes)
}

// Stop closes the ports. Requests under way may finish while the process
// lives. A stopped Server starts again with the next Load.
func (s *Server) Stop() error {
	s.loading.Lock()
	defer s.loading.Unlock()
	if live.Load() != s {
		return nil
	}
	err := errors.Join(caddy.Stop(), s.sockets.closeAll())
	s.running, s.rejected = nil, rejection{}
	s.mu.Lock()
	s.notes = nil
	s.mu.Unlock()
	live.Store(nil)
	if err != nil {
		return fmt.Errorf("stop ingress: %w", err)
	}
	return nil
}

// rootKey is where Caddy's authority keeps its root certificate.
const rootKey = "pki/authorities/local/root.crt"

// Root is the PEM certificate of the authority that signs private names. It
// exists once a configuration was loaded.
func (s *Server) Root(ctx context.Context) ([]byte, error) {
	pem, err := s.storage.Load(ctx, rootKey)
	if err != nil {
		return nil, fmt.Errorf("read the root certificate of the ingress: %w", err)
	}
	return pem, nil
}
