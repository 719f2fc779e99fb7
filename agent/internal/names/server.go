package names

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// Options are what a Server needs to know of its surroundings.
type Options struct {
	Log        *slog.Logger
	ResolvConf string // empty means /etc/resolv.conf
	Port       uint16 // 0 means 53
	// Shuffle orders the addresses of a service; nil means at random.
	Shuffle func(n int, swap func(i, j int))
	// OnQuery counts questions by kind (cluster, forward, refused) and the name
	// of the response code. It may be nil, and must not block.
	OnQuery func(kind, rcode string)
}

// Server answers on this machine's address in the cluster network.
type Server struct {
	options   Options
	log       *slog.Logger
	loaded    atomic.Pointer[Table]
	moved     chan struct{} // the address may have changed
	slots     chan struct{}
	resolvers resolvers
}

// New makes a Server that has not touched the network yet.
func New(o Options) *Server {
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	if o.Port == 0 {
		o.Port = 53
	}
	if o.Shuffle == nil {
		o.Shuffle = rand.Shuffle
	}
	if o.OnQuery == nil {
		o.OnQuery = func(string, string) {}
	}
	return &Server{
		options: o, log: o.Log, moved: make(chan struct{}, 1), slots: make(chan struct{}, forwardLimit),
		resolvers: resolvers{path: o.ResolvConf, port: "53"},
	}
}

// Load makes a view the one that is answered from. When it returns, no question
// is answered from an older view. An equal table is not swapped. Calls must not
// overlap.
func (s *Server) Load(v View) {
	next, before := Compile(v), s.loaded.Load()
	if before != nil && reflect.DeepEqual(before, next) {
		return
	}
	s.loaded.Store(next)
	if before == nil || before.own != next.own {
		select {
		case s.moved <- struct{}{}:
		default:
		}
	}
}

// table is what is answered from; nil before the first Load.
func (s *Server) table() *Table { return s.loaded.Load() }

// Address is where the loaded view says that this machine answers. It is
// invalid while the machine has no subnet.
func (s *Server) Address() netip.Addr {
	if t := s.table(); t != nil {
		return t.own
	}
	return netip.Addr{}
}

// rebindAfter is the pause after sockets could not be had: another resolver
// has the port, and whoever runs it is likely to be told.
const rebindAfter = 5 * time.Second

// Run listens, by UDP and TCP, on the address that the loaded view gives this
// machine, and moves when that changes. It returns nil when ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var at netip.Addr
	var l *listeners
	defer func() { l.close() }()
	for {
		var retry <-chan time.Time
		if own := s.Address(); own != at || l == nil {
			l.close()
			l, at = nil, own
			if own.IsValid() {
				var err error
				if l, err = s.listen(ctx, own); err != nil {
					s.log.Warn("names are not answered", "address", own, "err", err)
					retry = time.After(rebindAfter)
				} else {
					s.log.Info("names are answered", "address", own)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.moved:
		case <-retry:
		case err := <-l.ended():
			s.log.Warn("names are not answered", "address", at, "err", err)
			l.close()
			l = nil
		}
	}
}

// listeners are a UDP and a TCP socket with their servers.
type listeners struct {
	servers []*dns.Server
	failed  chan error
}

// listen takes both sockets or none: half a resolver answers small questions
// and fails large ones, which nobody would look for.
func (s *Server) listen(ctx context.Context, addr netip.Addr) (*listeners, error) {
	config := net.ListenConfig{Control: freebind}
	at := net.JoinHostPort(addr.String(), strconv.Itoa(int(s.options.Port)))
	udp, err := config.ListenPacket(ctx, "udp4", at)
	if err != nil {
		return nil, fmt.Errorf("listen on %s/udp: %w", at, err)
	}
	tcp, err := config.Listen(ctx, "tcp4", at)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s/tcp: %w", at, err), udp.Close())
	}
	l := &listeners{failed: make(chan error, 2)}
	for _, srv := range []*dns.Server{{PacketConn: udp}, {Listener: tcp}} {
		started := make(chan struct{})
		srv.Handler, srv.NotifyStartedFunc = s, func() { close(started) }
		l.servers = append(l.servers, srv)
		go func() { l.failed <- srv.ActivateAndServe() }()
		select {
		case <-started:
		case err := <-l.failed:
			l.close()
			return nil, fmt.Errorf("serve on %s: %w", at, err)
		}
	}
	return l, nil
}

// freebind lets the address be taken before the bridge has it, and keeps the
// sockets good while the bridge comes and goes.
func freebind(_, _ string, c syscall.RawConn) error {
	var err error
	if controlErr := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_FREEBIND, 1)
	}); controlErr != nil {
		return controlErr
	}
	return err
}

func (l *listeners) ended() <-chan error {
	if l == nil {
		return nil
	}
	return l.failed
}

// close waits shortly for the questions under way.
func (l *listeners) close() {
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, srv := range l.servers {
		_ = srv.ShutdownContext(ctx) // the socket is closed at once; what may fail is the waiting
	}
}
