package ingress

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/certmagic"
)

// live is what Caddy's modules reach of the Server. Caddy keeps one
// configuration a process and makes modules from JSON, so this is the one
// place where they can meet.
var live atomic.Pointer[Server]

// tableSource finds the upstreams of a request in the Server's table, so that
// a replica comes and goes without a new configuration.
type tableSource struct {
	Route string `json:"route"`
}

func (tableSource) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.upstreams." + moduleName,
		New: func() caddy.Module { return new(tableSource) },
	}
}

// GetUpstreams draws an order of the route's upstreams, without those that
// failed a moment ago. Caddy sets fields of what it gets, so each call makes
// new ones.
func (t tableSource) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	s := live.Load()
	if s == nil {
		return nil, nil
	}
	now, broken := time.Now(), brokenFor(r)
	var out []*reverseproxy.Upstream
	for _, address := range draw((*s.table.Load())[t.Route], rand.Float64) {
		if !s.unreached.has(address, now) && !broken.has(address, now) {
			out = append(out, &reverseproxy.Upstream{Dial: address})
		}
	}
	return out, nil
}

// draw orders addresses so that each is first with a chance in proportion to
// its weight, and likewise among the rest: the one whose exponentially
// distributed arrival at rate Weight is earliest comes first.
func draw(ups []Upstream, random func() float64) []string {
	type arrival struct {
		address string
		at      float64
	}
	order := make([]arrival, len(ups))
	for i, up := range ups {
		order[i] = arrival{up.Address, -math.Log(1-random()) / float64(max(up.Weight, 1))}
	}
	slices.SortFunc(order, func(a, b arrival) int {
		if a.at < b.at {
			return -1
		}
		return 1
	})
	out := make([]string, len(order))
	for i := range order {
		out[i] = order[i].address
	}
	return out
}

// logWriter takes Caddy's lines of JSON to the Server's logger.
type logWriter struct{}

func (logWriter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.logging.writers." + moduleName,
		New: func() caddy.Module { return new(logWriter) },
	}
}

func (logWriter) String() string    { return moduleName }
func (logWriter) WriterKey() string { return moduleName }

// OpenWriter gives a writer for single lines.
func (logWriter) OpenWriter() (io.WriteCloser, error) { return lineWriter{}, nil }

type lineWriter struct{}

func (lineWriter) Close() error { return nil }

// Write logs one line.
func (lineWriter) Write(line []byte) (int, error) {
	s := live.Load()
	if s == nil {
		return len(line), nil
	}
	fields := map[string]any{}
	if err := json.Unmarshal(line, &fields); err != nil {
		s.log.Debug("caddy", "text", string(bytes.TrimSpace(line)))
		return len(line), nil
	}
	take := func(key string) string {
		text, _ := fields[key].(string)
		delete(fields, key)
		return text
	}
	part, message, failure := take("logger"), take("msg"), take("error")
	attrs := []slog.Attr{slog.String("part", part)}
	if failure != "" {
		attrs = append(attrs, slog.String("err", failure))
	}
	level := logLevel(take("level"), part)
	delete(fields, "ts")
	delete(fields, "stacktrace")
	if len(fields) > 0 {
		attrs = append(attrs, slog.Any("detail", fields))
	}
	s.log.LogAttrs(context.Background(), level, "caddy: "+message, attrs...) //nolint:sloglint // Caddy's own words
	return len(line), nil
}

// logLevel is the level of a line here. What Caddy says at INFO comes with
// each load and renewal, and what goes wrong with single requests comes with
// each request: both would drown the rest, so they are DEBUG.
func logLevel(caddyLevel, part string) slog.Level {
	switch {
	case strings.HasPrefix(part, "http.log"), strings.HasPrefix(part, "http.handlers"):
		return slog.LevelDebug
	case part == "admin": // that it is off is as it should be
		return slog.LevelDebug
	case caddyLevel == "warn":
		return slog.LevelWarn
	case caddyLevel == "error" || caddyLevel == "dpanic" || caddyLevel == "panic" || caddyLevel == "fatal":
		return slog.LevelError
	}
	return slog.LevelDebug
}

// storageModule hands Caddy the Server's storage.
type storageModule struct{}

func (storageModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.storage." + moduleName,
		New: func() caddy.Module { return new(storageModule) },
	}
}

// CertMagicStorage is the storage of the Server that runs.
func (storageModule) CertMagicStorage() (certmagic.Storage, error) {
	if s := live.Load(); s != nil {
		return s.storage, nil
	}
	return nil, errors.New("the ingress does not run")
}
