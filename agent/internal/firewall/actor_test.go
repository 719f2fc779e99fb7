package firewall

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary plays parts in network namespaces: it starts itself again
// there, and the variable says which part it has. Parts talk in lines of JSON
// on stdin and stdout, and end with their stdin.
const actorVar = "UNCLOUD_FIREWALL_ACTOR"

func TestMain(m *testing.M) {
	parts := map[string]func() error{"serve": actServe, "dial": actDial, "own": actOwn, "refuse": actRefuse}
	act, ok := parts[os.Getenv(actorVar)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := act(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func say(v any) { _ = json.NewEncoder(os.Stdout).Encode(v) }

// socket is one end of a conversation; From is the source address to take.
// It may have a port.
type socket struct{ Network, From, Address string }

func (s socket) String() string {
	if s.From == "" {
		return s.Network + " " + s.Address
	}
	return s.Network + " " + s.From + " -> " + s.Address
}

// actServe listens on sockets and tells whoever comes what its address is.
func actServe() error {
	var sockets []socket
	if err := json.NewDecoder(os.Stdin).Decode(&sockets); err != nil {
		return err
	}
	for _, s := range sockets {
		if err := serve(s); err != nil {
			return err
		}
	}
	say("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func serve(s socket) error {
	if s.Network == "udp" {
		c, err := net.ListenPacket("udp", s.Address)
		if err != nil {
			return err
		}
		go func() {
			for b := make([]byte, 16); ; {
				_, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = c.WriteTo([]byte(from.(*net.UDPAddr).IP.String()), from)
			}
		}()
		return nil
	}
	l, err := net.Listen(s.Network, s.Address)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()
	return nil
}

// actDial calls all sockets at once and says what each answered: the address
// as which it was seen, or nothing.
func actDial() error {
	var ask struct {
		Sockets []socket
		Wait    time.Duration
		UID     int
	}
	if err := json.NewDecoder(os.Stdin).Decode(&ask); err != nil {
		return err
	}
	if err := syscall.Setuid(ask.UID); err != nil {
		return err
	}
	answers := make([]string, len(ask.Sockets))
	var wg sync.WaitGroup
	for i, s := range ask.Sockets {
		wg.Go(func() { answers[i] = dial(s, ask.Wait) })
	}
	wg.Wait()
	say(answers)
	return nil
}

func dial(s socket, wait time.Duration) string {
	d := net.Dialer{Timeout: wait}
	if s.From != "" {
		from, err := netip.ParseAddrPort(s.From)
		if err != nil {
			from = netip.AddrPortFrom(netip.MustParseAddr(s.From), 0)
		}
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
		if s.Network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(from)
		}
	}
	c, err := d.Dial(s.Network, s.Address)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	if s.Network == "udp" {
		_, _ = c.Write([]byte("?"))
	}
	b := make([]byte, 64)
	n, _ := c.Read(b)
	return string(b[:n])
}

// actOwn is an agent: it applies each policy it is told, and says how it went.
func actOwn() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f := New(Options{Nft: testNft(), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var p *Policy
		if err := json.Unmarshal(in.Bytes(), &p); err != nil {
			return err
		}
		err := error(nil)
		if p == nil {
			err = f.Remove(ctx)
		} else {
			err = f.Apply(ctx, *p)
		}
		answer := ownAnswer{Status: f.Status()}
		if err != nil {
			answer.Err = err.Error()
		}
		say(answer)
	}
	cancel()
	return <-done
}

type ownAnswer struct {
	Err    string
	Status Status
}

// actRefuse gives one session a bad transaction and a good one, a long one,
// and more good ones than one child may do; then it says how each went.
func actRefuse() error {
	ctx := context.Background()
	s, err := openSession(testNft())
	if err != nil {
		return err
	}
	defer s.close()
	var answers []string
	for _, line := range []string{
		"add rule inet nowhere x drop", "add table inet good", "bogus",
		"table inet long { chain c { " + strings.Repeat("tcp dport 1 ip daddr 192.0.2.1 drop; ", 4000) + "}; }",
		"add table inet last",
	} {
		answer := "done"
		if err := s.transact(ctx, line); err != nil {
			answer = err.Error()
		}
		answers = append(answers, answer)
	}
	say(answers)
	k := &keeper{nft: testNft(), log: slog.New(slog.DiscardHandler)}
	defer k.stop()
	for range maxTransactions + 5 {
		if err := k.transact(ctx, func() string { return "add table inet many" }); err != nil {
			return err
		}
	}
	say(k.session.count)
	return nil
}
