package gossip

import (
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// cable is real loopback sockets with a switch that swallows what is sent
// between two sides, as a partition does: no error for a packet, a timeout for
// a connection.
type cable struct {
	mu    sync.Mutex
	sides map[string]int // host:port -> side
}

func newCable() *cable { return &cable{sides: map[string]int{}} }

func (c *cable) cut(addresses ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range addresses {
		c.sides[a] = 1
	}
}

func (c *cable) heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.sides)
}

func (c *cable) carries(from, to string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sides[from] == c.sides[to]
}

func (c *cable) plug(config *memberlist.Config) (memberlist.Transport, error) {
	t, err := sockets(config)
	if err != nil {
		return nil, err
	}
	own := net.JoinHostPort(config.BindAddr, itoa(config.BindPort))
	return &plug{NetTransport: t.(*memberlist.NetTransport), cable: c, own: own}, nil
}

type plug struct {
	*memberlist.NetTransport
	cable *cable
	own   string
}

func (p *plug) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if !p.cable.carries(p.own, a.Addr) {
		return time.Now(), nil
	}
	return p.NetTransport.WriteToAddress(b, a)
}

func (p *plug) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if !p.cable.carries(p.own, a.Addr) {
		time.Sleep(timeout) // a lost SYN
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	return p.NetTransport.DialAddressTimeout(a, timeout)
}

func (p *plug) WriteTo(b []byte, addr string) (time.Time, error) {
	return p.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (p *plug) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return p.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}
