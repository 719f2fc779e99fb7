package mesh

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"

	"uncloud/internal/faults"
)

// JoinConfig is what a ticket says of the way into the cluster.
type JoinConfig struct {
	PrivateKey Key    // the ticket's, not the machine's
	Members    []Peer // whom to ask; only PublicKey and Endpoints count
	MTU        int    // 0 means the least that works everywhere
	Logger     *slog.Logger
}

// joinTimeout is how long one endpoint of a member has to complete a
// handshake. Nothing is lost by moving on: the next round comes back to it.
const joinTimeout = 3 * time.Second

// JoinLink is the way of a ticket holder to the members, through their one
// UDP port. It lives in this process only: no link, address or route of the
// machine is made, so a machine may ask to join while it has another mesh.
type JoinLink struct {
	device  *device.Device
	net     *netstack
	members map[netip.Addr]*joinPeer // by management address
}

// joinPeer is a member. Its endpoints are tried one at a time, since WireGuard
// knows one endpoint of a peer; other members are tried meanwhile.
type joinPeer struct {
	Peer
	mu sync.Mutex
}

// DialJoin opens the device on a random UDP port. It sends nothing yet; the
// first DialContext does. Close must follow.
func DialJoin(ctx context.Context, config JoinConfig) (*JoinLink, error) {
	publicKey, err := config.PrivateKey.Public()
	if err != nil {
		return nil, fmt.Errorf("open join link: %w", err)
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	members := map[netip.Addr]*joinPeer{}
	for _, m := range config.Members {
		members[ManagementAddress(m.PublicKey)] = &joinPeer{Peer: m}
	}
	mtu := config.MTU
	if mtu == 0 {
		mtu = minMTU
	}
	n, err := newNetstack(ManagementAddress(publicKey), mtu)
	if err != nil {
		return nil, fmt.Errorf("open join link: %w", err)
	}
	d := device.NewDevice(n, conn.NewDefaultBind(), deviceLog(config.Logger, "join"))
	j := &JoinLink{device: d, net: n, members: members}
	key := fmt.Sprintf("private_key=%s\n", hex.EncodeToString(config.PrivateKey[:]))
	if err := errors.Join(d.IpcSet(key), d.Up()); err != nil {
		d.Close()
		return nil, fmt.Errorf("open join link: %w", err)
	}
	return j, nil
}

// Close ends every connection through the link, and the link.
func (j *JoinLink) Close() error {
	j.device.Close()
	return nil
}

// DialContext connects by TCP to a member's management address and a port. It
// tries the member's endpoints in turn, round and round, until one answers or
// ctx ends; without a deadline it would try for ever. It has the signature
// that http.Transport wants.
func (j *JoinLink) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s by the join link: %w", address, err)
	}
	member, known := j.members[to.Addr()]
	if !strings.HasPrefix(network, "tcp") || !known || len(member.Endpoints) == 0 {
		return nil, fmt.Errorf("dial %s %s by the join link: the ticket names no way there", network, address)
	}
	if err := j.reach(ctx, member); err != nil {
		return nil, err
	}
	c, err := j.net.dial(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("dial %s by the join link: %w", address, err)
	}
	return c, nil
}

// reach returns when the member has completed a handshake at one of its
// endpoints.
func (j *JoinLink) reach(ctx context.Context, member *joinPeer) error {
	member.mu.Lock()
	defer member.mu.Unlock()
	if j.answered(member.Peer) {
		return nil
	}
	for i := 0; ; i++ {
		endpoint := member.Endpoints[i%len(member.Endpoints)]
		if err := j.try(member.Peer, endpoint); err != nil && i >= len(member.Endpoints) {
			return fmt.Errorf("reach %v: %w", endpoint, err)
		}
		if j.awaitAnswer(ctx, member.Peer) {
			return nil
		}
		if ctx.Err() != nil {
			return faults.New(faults.Unreachable, "no answer from the cluster on UDP %s", joinTexts(member.Endpoints)).
				WithHint("check that the port is open there, that the ticket is still valid, and that this machine may send UDP to it").
				Because(ctx.Err())
		}
	}
}

// try forgets the peer and makes it anew: WireGuard would otherwise wait out
// the 5 s since its last attempt, made at another endpoint. The keepalive
// starts the handshake.
func (j *JoinLink) try(member Peer, endpoint netip.AddrPort) error {
	key := hex.EncodeToString(member.PublicKey[:])
	return j.device.IpcSet(fmt.Sprintf(
		"public_key=%s\nremove=true\npublic_key=%s\nendpoint=%s\npersistent_keepalive_interval=%d\nallowed_ip=%s\n",
		key, key, endpoint, int(keepalive.Seconds()), host(ManagementAddress(member.PublicKey))))
}

// awaitAnswer waits for a handshake for joinTimeout or until ctx ends.
func (j *JoinLink) awaitAnswer(ctx context.Context, member Peer) bool {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	for !j.answered(member) {
		// wireguard-go tells nobody when a handshake is done.
		if !sleep(ctx, 50*time.Millisecond) {
			return j.answered(member)
		}
	}
	return true
}

// answered tells whether there is a session with the member.
func (j *JoinLink) answered(member Peer) bool {
	text, err := j.device.IpcGet()
	if err != nil {
		return false
	}
	_, after, found := strings.Cut(text, "public_key="+hex.EncodeToString(member.PublicKey[:])+"\n")
	peer, _, _ := strings.Cut(after, "public_key=")
	return found && strings.Contains(peer, "last_handshake_time_sec=") && !strings.Contains(peer, "last_handshake_time_sec=0\n")
}

func joinTexts(endpoints []netip.AddrPort) string {
	texts := make([]string, len(endpoints))
	for i, e := range endpoints {
		texts[i] = e.String()
	}
	return strings.Join(texts, ", ")
}
