package mesh

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"uncloud/internal/faults"
)

// control calls f with a client for WireGuard devices. One is made for each
// use: a client that was made before the kernel module was loaded never sees
// the kernel's devices.
func control(f func(*wgctrl.Client) error) error {
	c, err := wgctrl.New()
	if err != nil {
		return fmt.Errorf("open WireGuard control: %w", err)
	}
	return errors.Join(f(c), c.Close())
}

func (l *linux) Device(name string) (DeviceInfo, error) {
	// The control socket of a userspace device outlives a link that somebody
	// removed, for a moment.
	if _, err := findLink(name); err != nil {
		return DeviceInfo{}, err
	}
	var info DeviceInfo
	err := control(func(c *wgctrl.Client) error {
		d, err := c.Device(name)
		if err != nil {
			return err
		}
		info = DeviceInfo{PrivateKey: Key(d.PrivateKey), ListenPort: uint16(d.ListenPort)}
		for _, p := range d.Peers {
			info.Peers = append(info.Peers, fromPeer(p))
		}
		return nil
	})
	return info, err
}

func fromPeer(p wgtypes.Peer) PeerInfo {
	info := PeerInfo{
		PublicKey: Key(p.PublicKey), Received: p.ReceiveBytes, Sent: p.TransmitBytes,
		Keepalive: p.PersistentKeepaliveInterval,
	}
	if e := p.Endpoint; e != nil {
		if addr, ok := netip.AddrFromSlice(e.IP); ok {
			info.Endpoint = netip.AddrPortFrom(addr.Unmap().WithZone(e.Zone), uint16(e.Port))
		}
	}
	// Never is the zero time from the kernel, and the epoch from userspace.
	if t := p.LastHandshakeTime; !t.IsZero() && t.Unix() != 0 {
		info.Handshake = t
	}
	for _, ip := range p.AllowedIPs {
		info.AllowedIPs = append(info.AllowedIPs, toPrefix(&ip))
	}
	return info
}

func (l *linux) Configure(name string, change DeviceChange) error {
	var config wgtypes.Config
	if change.PrivateKey != nil {
		config.PrivateKey = (*wgtypes.Key)(change.PrivateKey)
	}
	if change.ListenPort != nil {
		port := int(*change.ListenPort)
		config.ListenPort = &port
	}
	for _, p := range change.Peers {
		config.Peers = append(config.Peers, toPeer(p))
	}
	err := control(func(c *wgctrl.Client) error { return c.ConfigureDevice(name, config) })
	if portTaken(err) {
		return faults.New(faults.Conflict, "UDP port %d of this machine is in use by another program", *config.ListenPort).
			WithHint("find it with `ss -ulpn`, or set listenPort in /etc/uncloud/config.json (on NixOS services.uncloud.network.port)").Because(err)
	}
	return err
}

// portTaken also understands userspace, whose answer wgctrl passes on as text.
func portTaken(err error) bool {
	return errors.Is(err, unix.EADDRINUSE) || err != nil && strings.Contains(err.Error(), fmt.Sprintf("errno=-%d", unix.EADDRINUSE))
}

func toPeer(p PeerChange) wgtypes.PeerConfig {
	config := wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.PublicKey), Remove: p.Remove, UpdateOnly: !p.Set && !p.Remove}
	if p.Endpoint.IsValid() {
		config.Endpoint = net.UDPAddrFromAddrPort(p.Endpoint)
	}
	if p.Set {
		every := p.Keepalive.Round(time.Second)
		config.PersistentKeepaliveInterval = &every
		config.ReplaceAllowedIPs = true
		for _, ip := range p.AllowedIPs {
			config.AllowedIPs = append(config.AllowedIPs, *fromPrefix(ip))
		}
	}
	return config
}
