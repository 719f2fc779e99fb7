package podman

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/containers/podman/v5/pkg/bindings"
	"github.com/containers/podman/v5/pkg/bindings/system"

	"uncloud/agent/internal/runtime"
)

// Where Podman and Linux keep what this package needs.
const (
	DefaultSocket     = "unix:///run/podman/podman.sock"
	DefaultNetworkDir = "/etc/containers/networks"
	defaultRunDir     = "/run"
	defaultBootID     = "/proc/sys/kernel/random/boot_id"
)

// Config says where Podman is. The zero value is Podman as a distribution
// installs it, run by root.
type Config struct {
	Socket     string // unix:///path; default DefaultSocket
	NetworkDir string // where Podman keeps its networks; default DefaultNetworkDir
	Log        *slog.Logger
}

// Engine is one Podman service. It connects when first used, and again
// whenever the service comes back.
type Engine struct {
	socket     string
	networkDir string
	runDir     string
	bootID     string
	log        *slog.Logger
	monitors   *monitors
	flush      func(dir string) error

	mu         sync.Mutex
	conn       context.Context //nolint:containedctx // only as the carrier of the bindings' connection; see call
	storageDir string          // where images are kept, once it was asked
}

var _ runtime.Engine = (*Engine)(nil)

// New makes an Engine. It does not touch the machine.
func New(c Config) *Engine {
	if c.Socket == "" {
		c.Socket = DefaultSocket
	}
	if c.NetworkDir == "" {
		c.NetworkDir = DefaultNetworkDir
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{
		socket: c.Socket, networkDir: c.NetworkDir, runDir: defaultRunDir, bootID: defaultBootID,
		log: c.Log, monitors: newMonitors(c.Log), flush: flush,
	}
}

// callContext ends with the call's context and carries the connection: the
// bindings look for the latter among a context's values.
type callContext struct {
	context.Context                 //nolint:containedctx // it is a context
	conn            context.Context //nolint:containedctx // it is looked up in
}

func (c callContext) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.conn.Value(key)
}

// call is ctx for use with the bindings. It connects if that was not done yet.
func (e *Engine) call(ctx context.Context) (context.Context, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn == nil {
		conn, err := e.connect(ctx)
		if err != nil {
			return nil, err
		}
		e.conn = conn
	}
	return callContext{ctx, e.conn}, nil
}

// connect pings the service. State of an earlier boot is cleared before, not
// when the ping failed: each try would make systemd start a service that fails
// at once, and after a few of those systemd closes the socket.
func (e *Engine) connect(ctx context.Context) (context.Context, error) {
	cleared, err := e.clearStaleRun()
	if err != nil {
		e.log.Warn("state of an earlier boot is in the way of podman", "err", err)
	}
	if cleared {
		e.log.Warn("removed podman's state of an earlier boot", "path", e.runDir)
	}
	// The connection outlives the call that made it: the bindings keep the
	// context only for its values.
	conn, err := bindings.NewConnection(context.WithoutCancel(ctx), e.socket)
	if err != nil {
		return nil, e.notRunning(err)
	}
	return conn, nil
}

// Version implements runtime.Engine.
func (e *Engine) Version(ctx context.Context) (string, error) {
	call, err := e.call(ctx)
	if err != nil {
		return "", err
	}
	v, err := system.Version(call, nil)
	if err != nil {
		return "", e.explain("ask for the version", err)
	}
	if v.Server == nil {
		return "", nil
	}
	return v.Server.Version, nil
}

// socketPath is the socket as a path, for messages.
func (e *Engine) socketPath() string { return strings.TrimPrefix(e.socket, "unix://") }

// local tells whether the service is this machine's own, so that its files
// are where this process sees them.
func (e *Engine) local() bool { return e.socket == DefaultSocket && os.Geteuid() == 0 }
