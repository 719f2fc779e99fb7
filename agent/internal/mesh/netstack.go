package mesh

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// netstack is a TCP/IPv6 stack inside this process, as a TUN device for
// wireguard-go: the machine's own network neither sees nor needs it.
type netstack struct {
	stack  *stack.Stack
	link   *channel.Endpoint
	mtu    int
	events chan tun.Event
	read   func() *stack.PacketBuffer // waits for a packet; nil after cancel
	cancel context.CancelFunc
}

const nic = 1

var _ tun.Device = (*netstack)(nil)

// newNetstack has one address, from which everything is reached by the tunnel.
func newNetstack(addr netip.Addr, mtu int) (*netstack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	ctx, cancel := context.WithCancel(context.Background())
	n := &netstack{
		stack: s, link: channel.New(256, uint32(mtu), ""), mtu: mtu,
		events: make(chan tun.Event, 1), cancel: cancel,
	}
	n.read = func() *stack.PacketBuffer { return n.link.ReadContext(ctx) }
	if err := s.CreateNIC(nic, n.link); err != nil {
		n.shutdown()
		return nil, fmt.Errorf("make interface: %v", err)
	}
	protocol := tcpip.ProtocolAddress{
		Protocol:          ipv6.ProtocolNumber,
		AddressWithPrefix: tcpip.AddrFrom16(addr.As16()).WithPrefix(),
	}
	if err := s.AddProtocolAddress(nic, protocol, stack.AddressProperties{}); err != nil {
		n.shutdown()
		return nil, fmt.Errorf("add address %v: %v", addr, err)
	}
	s.AddRoute(tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: nic})
	n.events <- tun.EventUp
	return n, nil
}

func (n *netstack) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	full := tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom16(to.Addr().As16()), Port: to.Port()}
	c, err := gonet.DialContextTCP(ctx, n.stack, full, ipv6.ProtocolNumber)
	if err != nil {
		return nil, err // not c: a nil *TCPConn is no nil net.Conn
	}
	return c, nil
}

// Read gives wireguard-go the next packet to send.
func (n *netstack) Read(buffers [][]byte, sizes []int, offset int) (int, error) {
	packet := n.read()
	if packet == nil {
		return 0, os.ErrClosed
	}
	defer packet.DecRef()
	view := packet.ToView()
	defer view.Release()
	size, err := view.Read(buffers[0][offset:])
	if err != nil {
		return 0, err
	}
	sizes[0] = size
	return 1, nil
}

// Write takes packets that wireguard-go received. All that is not IPv6 is
// dropped: nobody may send it to a ticket holder.
func (n *netstack) Write(buffers [][]byte, offset int) (int, error) {
	for _, b := range buffers {
		data := b[offset:]
		if len(data) == 0 || data[0]>>4 != 6 {
			continue
		}
		packet := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(data)})
		n.link.InjectInbound(header.IPv6ProtocolNumber, packet)
		packet.DecRef()
	}
	return len(buffers), nil
}

// Close is called by wireguard-go, once.
func (n *netstack) Close() error {
	n.shutdown()
	close(n.events)
	return nil
}

func (n *netstack) shutdown() {
	n.cancel()
	n.stack.Close()
	n.link.Close()
}

func (n *netstack) File() *os.File           { return nil }
func (n *netstack) MTU() (int, error)        { return n.mtu, nil }
func (n *netstack) Name() (string, error)    { return "join", nil }
func (n *netstack) Events() <-chan tun.Event { return n.events }
func (n *netstack) BatchSize() int           { return 1 }
