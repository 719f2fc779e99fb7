package mesh

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"

	"uncloud/internal/faults"
)

// member is a machine of the cluster inside this process: WireGuard on
// loopback, and a server on port 51004 that greets and echoes.
func member(t *testing.T, private, ticket Key) Peer {
	t.Helper()
	public, err := private.Public()
	must(t, err)
	n, err := newNetstack(ManagementAddress(public), minMTU)
	must(t, err)
	d := device.NewDevice(n, conn.NewDefaultBind(), deviceLog(slog.New(slog.DiscardHandler), "member"))
	t.Cleanup(d.Close)
	must(t, d.IpcSet(fmt.Sprintf("private_key=%s\npublic_key=%s\nallowed_ip=%s\n",
		hex.EncodeToString(private[:]), hex.EncodeToString(ticket[:]), host(ManagementAddress(ticket)))))
	must(t, d.Up())
	text, err := d.IpcGet()
	must(t, err)
	_, after, _ := strings.Cut(text, "listen_port=")
	port, _, _ := strings.Cut(after, "\n")

	l, err := gonet.ListenTCP(n.stack, tcpip.FullAddress{NIC: nic, Port: 51004}, ipv6.ProtocolNumber)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				seenAs, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				fmt.Fprintf(c, "%-64s", seenAs)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return Peer{PublicKey: public, Endpoints: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:" + port)}}
}

func admission(p Peer) string {
	return netip.AddrPortFrom(ManagementAddress(p.PublicKey), 51004).String()
}

func TestJoinLink(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("", func(t *testing.T) { // so that the members are gone when leaks are sought
		ticket := testKey("ticket")
		public, err := ticket.Public()
		must(t, err)
		a, b := member(t, testKey("a"), public), member(t, testKey("b"), public)
		// Nobody is there; and the second machine's first endpoint is another machine.
		a.Endpoints = append([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}, a.Endpoints...)
		b.Endpoints = append([]netip.AddrPort{a.Endpoints[1]}, b.Endpoints...)
		link, err := DialJoin(t.Context(), JoinConfig{PrivateKey: ticket, Members: []Peer{a, b}})
		must(t, err)
		defer func() { must(t, link.Close()) }()
		for _, m := range []Peer{a, b, a} {
			c, err := link.DialContext(t.Context(), "tcp", admission(m))
			must(t, err)
			seenAs, err := greeting(c)
			if err != nil || seenAs != ManagementAddress(public).String() {
				t.Errorf("seen as %q, %v", seenAs, err)
			}
			// More than a few packets, both ways.
			big := strings.Repeat("0123456789abcdef", 1<<12)
			go func() { _, _ = io.WriteString(c, big) }()
			back := make([]byte, len(big))
			if _, err := io.ReadFull(c, back); err != nil || string(back) != big {
				t.Errorf("%d bytes came back wrong: %v", len(back), err)
			}
			must(t, c.Close())
		}
	})
}

func TestJoinLinkTellsThatNobodyAnswers(t *testing.T) {
	ticket := testKey("ticket")
	a := Peer{PublicKey: testKey("a"), Endpoints: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}}
	link, err := DialJoin(t.Context(), JoinConfig{PrivateKey: ticket, Members: []Peer{a, {PublicKey: testKey("b")}}})
	must(t, err)
	defer func() { must(t, link.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = link.DialContext(ctx, "tcp", admission(a))
	if f := faults.Of(err); f == nil || f.Code != faults.Unreachable || f.Hint == "" || !strings.Contains(f.Sentence, "127.0.0.1:9") {
		t.Errorf("got %v", err)
	}
	for what, address := range map[string]string{
		"a member without endpoints": admission(Peer{PublicKey: testKey("b")}),
		"a stranger":                 admission(Peer{PublicKey: testKey("c")}),
		"no address":                 "example.org:80",
	} {
		if _, err := link.DialContext(t.Context(), "tcp", address); err == nil {
			t.Errorf("%s was reached", what)
		}
	}
	if _, err := DialJoin(t.Context(), JoinConfig{}); err == nil {
		t.Error("a link without a key")
	}
}

// TestJoinLinkIsNotHeldUpByTheDead: a ticket names machines that may be gone
// by the time it is used.
func TestJoinLinkIsNotHeldUpByTheDead(t *testing.T) {
	ticket := testKey("ticket")
	public, err := ticket.Public()
	must(t, err)
	alive := member(t, testKey("a"), public)
	dead := Peer{PublicKey: testKey("b"), Endpoints: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}}
	link, err := DialJoin(t.Context(), JoinConfig{PrivateKey: ticket, Members: []Peer{dead, alive}})
	must(t, err)
	defer func() { must(t, link.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	gaveUp := make(chan error, 1)
	defer func() { cancel(); <-gaveUp }()
	go func() {
		_, err := link.DialContext(ctx, "tcp", admission(dead))
		gaveUp <- err
	}()
	link.members[ManagementAddress(dead.PublicKey)].awaitLocked(t)
	c, err := link.DialContext(ctx, "tcp", admission(alive))
	must(t, err)
	must(t, c.Close())
	if ctx.Err() != nil || len(gaveUp) > 0 {
		t.Error("the dead machine was waited for")
	}
}

// awaitLocked returns once somebody tries the member.
func (p *joinPeer) awaitLocked(t *testing.T) {
	t.Helper()
	for p.mu.TryLock() {
		p.mu.Unlock()
		if !sleep(t.Context(), time.Millisecond) {
			t.Fatal("nobody tries")
		}
	}
}
