package main

import (
	"bufio"
	"net"
	"sync"
	"time"
)

// helloWithin is how long a caller may take to say its first byte.
const helloWithin = 10 * time.Second

// newMux parts the callers of one port: a frame between stores begins with the
// upper byte of a length, which is 0, and HTTP with a letter.
func newMux(from net.Listener) (web, peers net.Listener) {
	closed := make(chan struct{})
	a := &part{from: from, conns: make(chan net.Conn), closed: closed}
	b := &part{from: from, conns: make(chan net.Conn), closed: closed}
	go func() {
		defer close(closed)
		for {
			conn, err := from.Accept()
			if err != nil {
				return
			}
			go sortOut(conn, a, b)
		}
	}()
	return a, b
}

func sortOut(conn net.Conn, web, peers *part) {
	in := bufio.NewReader(conn)
	_ = conn.SetReadDeadline(time.Now().Add(helloWithin)) // a closed connection fails below
	first, err := in.Peek(1)
	_ = conn.SetReadDeadline(time.Time{})
	if err != nil {
		_ = conn.Close()
		return
	}
	to := web
	if first[0] == 0 {
		to = peers
	}
	select {
	case to.conns <- &peeked{Conn: conn, in: in}:
	case <-to.closed:
		_ = conn.Close()
	}
}

// part is a listener for some of the callers.
type part struct {
	from   net.Listener
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *part) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *part) Addr() net.Addr { return p.from.Addr() }

func (p *part) Close() (err error) {
	p.once.Do(func() { err = p.from.Close() })
	return err
}

// peeked is a connection of which the first bytes were looked at.
type peeked struct {
	net.Conn
	in *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.in.Read(b) }
