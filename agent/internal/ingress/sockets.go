package ingress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"uncloud/internal/faults"
)

// Two things lose connections when Caddy changes its configuration. It opens a
// second socket with SO_REUSEPORT and closes the first, and the kernel resets
// what waits in the first one's queue. And Go's http.Server, once it shuts
// down, closes a connection that it accepted but whose first request it has
// not read yet. So sockets of this network type are opened once; new
// connections go to the newest configuration only; and the previous one is
// shut down a little later (Settings.Linger), when the last connection that it
// got has had the time to send its request.
func init() {
	caddy.RegisterNetwork(moduleName, func(ctx context.Context, _, host, port string, offset uint, config net.ListenConfig) (any, error) {
		s := live.Load()
		if s == nil {
			return nil, errors.New("the ingress does not run")
		}
		first, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("listen on port %q: %w", port, err)
		}
		return s.sockets.listen(ctx, net.JoinHostPort(host, strconv.FormatUint(first+uint64(offset), 10)), config)
	})
	// Caddy shares the UDP sockets of HTTP/3 between configurations by itself.
	caddyhttp.RegisterNetworkHTTP3(moduleName, "udp")
}

// sockets are the TCP sockets that configurations listen on, by address. The
// zero value is ready.
type sockets struct {
	mu   sync.Mutex
	open map[string]*socket
}

// socket gives its connections to the newest of the listeners on it.
type socket struct {
	net.Listener
	users []*sharedListener // oldest first; guarded by sockets.mu
}

// sharedListener is one configuration's listener on a socket.
type sharedListener struct {
	socket *socket
	conns  chan net.Conn
	closed chan struct{}
	close  func() error
}

// listen gives a listener on the socket of an address, and opens the socket if
// nobody uses it yet. Closing the last listener closes the socket.
func (s *sockets) listen(ctx context.Context, address string, config net.ListenConfig) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[string]*socket{}
	}
	sock := s.open[address]
	if sock == nil {
		l, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		sock = &socket{Listener: l}
		s.open[address] = sock
		go s.accept(sock)
	}
	l := &sharedListener{socket: sock, conns: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceValue(func() error { return s.release(address, l) })
	sock.users = append(sock.users, l)
	return l, nil
}

// inUse is how a port that somebody else has is told. Caddy passes errors on as
// text, and opens the UDP sockets by itself.
var inUse = regexp.MustCompile(`listen (tcp|udp)\S* \S*:(\d+): bind: ` + syscall.EADDRINUSE.Error())

// taken is err, or what to do about it where another program of the machine has
// a port that in needs.
func taken(err error, in Input) error {
	found := inUse.FindStringSubmatch(err.Error())
	if found == nil {
		return err
	}
	protocol, port := found[1], found[2]
	return faults.New(faults.Conflict, "%s port %s of this machine is in use by another program, so it serves no new routes", strings.ToUpper(protocol), port).
		WithHint("see who has it: ss -l%cnp sport = :%s; end that, or let other machines be the ingress: uc machine label %s --remove-role ingress",
			protocol[0], port, in.State.MachineName(in.Self)).Because(err)
}

// accept takes connections until the socket is closed. Other errors, such as
// too many open files, pass.
func (s *sockets) accept(sock *socket) {
	for {
		conn, err := sock.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(50 * time.Millisecond)
		default:
			s.deliver(sock, conn)
		}
	}
}

// deliver hands a connection to the newest listener. When that one closes
// first, as after a failed start, the one before it takes the connection.
func (s *sockets) deliver(sock *socket, conn net.Conn) {
	for {
		s.mu.Lock()
		if len(sock.users) == 0 {
			s.mu.Unlock()
			conn.Close()
			return
		}
		newest := sock.users[len(sock.users)-1]
		s.mu.Unlock()
		select {
		case newest.conns <- conn:
			return
		case <-newest.closed:
		}
	}
}

func (s *sockets) release(address string, l *sharedListener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.socket.users = slices.DeleteFunc(l.socket.users, func(u *sharedListener) bool { return u == l })
	close(l.closed)
	if len(l.socket.users) > 0 {
		return nil
	}
	delete(s.open, address)
	return l.socket.Listener.Close()
}

// closeAll closes every socket. Caddy closes listeners in the background when
// it stops, and who asks it to stop wants to know that the ports are free.
func (s *sockets) closeAll() error {
	s.mu.Lock()
	var all []*sharedListener
	for _, sock := range s.open {
		all = append(all, sock.users...)
	}
	s.mu.Unlock()
	var errs []error
	for _, l := range all {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Accept waits for a connection that came while l was the newest.
func (l *sharedListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close may be called more than once, as http.Server does.
func (l *sharedListener) Close() error { return l.close() }

// Addr is the address of the socket.
func (l *sharedListener) Addr() net.Addr { return l.socket.Addr() }
