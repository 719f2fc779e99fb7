package mesh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uncloud/internal/faults"
)

// routeProtocol marks the routes of this package (`ip route` shows "proto
// 117"), so that it touches nobody else's and a later agent finds its own.
const routeProtocol = 117

// linux is the machine that the agent runs on, or rather its network
// namespace.
type linux struct {
	logger *slog.Logger

	mu        sync.Mutex
	userspace map[string]*userspace // by link; where the kernel has no WireGuard
}

// NewHost is the machine itself. It needs CAP_NET_ADMIN, and /dev/net/tun
// where the kernel has no WireGuard.
func NewHost(logger *slog.Logger) Host {
	return &linux{logger: logger, userspace: map[string]*userspace{}}
}

func (l *linux) OpenLink(name string, mtu int) (Kind, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	there, err := findLink(name)
	if u := l.userspace[name]; u != nil {
		if err == nil && u.alive() {
			return Userspace, nil
		}
		delete(l.userspace, name)
		if err := u.close(); err != nil {
			return "", fmt.Errorf("close what is left of link %s: %w", name, err)
		}
	}
	switch {
	case err == nil && there.Type() == "wireguard":
		return Kernel, nil
	case err == nil:
		return "", faults.New(faults.Conflict, "a link named %s exists and is a %s", name, there.Type()).
			WithHint("find out who made it with `ip -d link show %s`; if nobody needs it: ip link delete %s", name, name)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	return l.makeLink(name, mtu)
}

func (l *linux) makeLink(name string, mtu int) (Kind, error) {
	err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu}})
	if err == nil {
		return Kernel, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return "", fmt.Errorf("make link %s: %w", name, err)
	}
	u, err := newUserspace(name, mtu, l.logger)
	if err != nil {
		return "", fmt.Errorf("make link %s without kernel WireGuard: %w", name, err)
	}
	l.userspace[name] = u
	return Userspace, nil
}

func (l *linux) CloseLink(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.userspace[name]
	if u == nil {
		return nil
	}
	delete(l.userspace, name)
	return u.close()
}

func (l *linux) RemoveLink(name string) error {
	if err := l.CloseLink(name); err != nil {
		return err
	}
	link, err := findLink(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

// list asks again when something changed while the kernel was answering, which
// makes the answer incomplete. On a machine whose containers come and go that
// is common.
func list[T any](f func() ([]T, error)) (all []T, err error) {
	for range 5 {
		if all, err = f(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// findLink is the link, or an error that is fs.ErrNotExist.
func findLink(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		return nil, fmt.Errorf("link %s: %w", name, fs.ErrNotExist)
	} else if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return link, nil
}

func (l *linux) Link(name string) (LinkInfo, error) {
	link, err := findLink(name)
	if err != nil {
		return LinkInfo{}, err
	}
	info := LinkInfo{MTU: link.Attrs().MTU, Up: link.Attrs().Flags&net.FlagUp != 0}
	addresses, err := list(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return LinkInfo{}, fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, a := range addresses {
		if p := toPrefix(a.IPNet); !p.Addr().IsLinkLocalUnicast() {
			info.Addresses = append(info.Addresses, p)
		}
	}
	routes, err := list(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL,
			&netlink.Route{LinkIndex: link.Attrs().Index, Protocol: routeProtocol},
			netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return LinkInfo{}, fmt.Errorf("list routes of %s: %w", name, err)
	}
	for _, r := range routes {
		source, _ := netip.AddrFromSlice(r.Src)
		info.Routes = append(info.Routes, Route{To: toPrefix(r.Dst), Source: source.Unmap()})
	}
	return info, nil
}

func (l *linux) ChangeLink(name string, change LinkChange) error {
	link, err := findLink(name)
	if err != nil {
		return err
	}
	if change.MTU != 0 {
		if err := netlink.LinkSetMTU(link, change.MTU); err != nil {
			return fmt.Errorf("set MTU %d: %w", change.MTU, err)
		}
	}
	if change.Up {
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
	}
	for _, p := range change.AddAddresses {
		// Without duplicate detection: gossip binds to it the next moment, and
		// there is nobody on the link who could have it too.
		if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: fromPrefix(p), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("add address %v: %w", p, err)
		}
	}
	if err := changeRoutes(link, change); err != nil {
		return err
	}
	for _, p := range change.RemoveAddresses {
		if err := netlink.AddrDel(link, &netlink.Addr{IPNet: fromPrefix(p)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %v: %w", p, err)
		}
	}
	return nil
}

func changeRoutes(link netlink.Link, change LinkChange) error {
	for _, r := range change.RemoveRoutes {
		if err := netlink.RouteDel(toRoute(link, r)); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route to %v: %w", r.To, err)
		}
	}
	for _, r := range change.SetRoutes {
		if err := netlink.RouteReplace(toRoute(link, r)); err != nil {
			return fmt.Errorf("set route to %v: %w", r.To, err)
		}
	}
	return nil
}

func toRoute(link netlink.Link, r Route) *netlink.Route {
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: fromPrefix(r.To), Protocol: routeProtocol, Scope: netlink.SCOPE_LINK,
	}
	if r.Source.IsValid() {
		route.Src = r.Source.AsSlice()
	}
	return route
}

func (l *linux) OpenBridge(name string, mtu int) error {
	there, err := findLink(name)
	if err == nil {
		if there.Type() != "bridge" {
			return faults.New(faults.Conflict, "a link named %s exists and is a %s", name, there.Type()).
				WithHint("if nobody needs it: ip link delete %s", name)
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu}})
}

// HairpinPorts acts only where br_netfilter hands bridged packets to the
// firewall: there a published port is translated while the packet is still on
// the bridge, and would have to leave by the port it came from.
func (l *linux) HairpinPorts(bridge string) error {
	if readSysctl("net/bridge/bridge-nf-call-iptables") != "1" {
		return nil
	}
	ports, err := os.ReadDir(filepath.Join("/sys/class/net", bridge, "brif"))
	if err != nil {
		return err
	}
	for _, port := range ports {
		link, err := findLink(port.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // its container has just ended
		} else if err != nil {
			return err
		}
		info, err := netlink.LinkGetProtinfo(link)
		if err == nil && info.Hairpin {
			continue
		}
		if err := netlink.LinkSetHairpin(link, true); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("port %s: %w", port.Name(), err)
		}
	}
	return nil
}

func (l *linux) SetSysctl(path, value string) error {
	if readSysctl(path) == value {
		return nil
	}
	if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl: %w", err)
	}
	return nil
}

// readSysctl is the value, or nothing where the kernel has no such setting.
func readSysctl(path string) string {
	b, _ := os.ReadFile("/proc/sys/" + path)
	return strings.TrimSpace(string(b))
}

func (l *linux) Interfaces() ([]Interface, error) {
	links, err := list(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	addresses, err := list(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	byLink := map[int][]InterfaceAddress{}
	const fleeting = unix.IFA_F_TENTATIVE | unix.IFA_F_DEPRECATED | unix.IFA_F_TEMPORARY | unix.IFA_F_DADFAILED
	for _, a := range addresses {
		byLink[a.LinkIndex] = append(byLink[a.LinkIndex],
			InterfaceAddress{Prefix: toPrefix(a.IPNet), Fleeting: a.Flags&fleeting != 0})
	}
	interfaces := make([]Interface, 0, len(links))
	for _, link := range links {
		a := link.Attrs()
		interfaces = append(interfaces, Interface{
			Name: a.Name, Kind: link.Type(), MTU: a.MTU, Addresses: byLink[a.Index],
			Up: a.Flags&net.FlagUp != 0, Loopback: a.Flags&net.FlagLoopback != 0,
		})
	}
	return interfaces, nil
}

// EgressMTU asks for the way to an address that is certainly not near; nothing
// is sent there.
func (l *linux) EgressMTU() (int, error) {
	for _, far := range []string{"1.1.1.1", "2606:4700:4700::1111"} {
		routes, err := netlink.RouteGet(net.ParseIP(far))
		if err != nil || len(routes) == 0 {
			continue // no such way
		}
		link, err := netlink.LinkByIndex(routes[0].LinkIndex)
		if err != nil {
			return 0, err
		}
		return link.Attrs().MTU, nil
	}
	return 0, nil
}

func (l *linux) Watch(ctx context.Context) (<-chan struct{}, error) {
	ctx, cancel := context.WithCancel(ctx)
	links, addresses := make(chan netlink.LinkUpdate, 16), make(chan netlink.AddrUpdate, 16)
	quiet := func(error) {} // the channel closes; the caller watches anew
	if err := netlink.LinkSubscribeWithOptions(links, ctx.Done(), netlink.LinkSubscribeOptions{ErrorCallback: quiet}); err != nil {
		cancel()
		return nil, fmt.Errorf("watch links: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(addresses, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: quiet}); err != nil {
		cancel()
		return nil, fmt.Errorf("watch addresses: %w", err)
	}
	changes := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() { forward(links, changes, cancel) })
	wg.Go(func() { forward(addresses, changes, cancel) })
	go func() {
		wg.Wait()
		close(changes)
	}()
	return changes, nil
}

// forward reads until the source closes: its sender would block otherwise.
func forward[T any](from <-chan T, to chan<- struct{}, cancel func()) {
	defer cancel()
	for range from {
		select {
		case to <- struct{}{}:
		default:
		}
	}
}

func toPrefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

func fromPrefix(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
