package mesh

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// MemoryHost is a machine without a kernel, for tests: it keeps what it is
// told and carries no packet. The zero value is not ready; see NewMemoryHost.
type MemoryHost struct {
	mu         sync.Mutex
	kind       Kind
	devices    map[string]*DeviceInfo
	links      map[string]*LinkInfo
	sysctls    map[string]string
	interfaces []Interface
	egress     int
	watchers   []chan struct{}
	writes     []string
}

// NewMemoryHost is a machine without links whose WireGuard is of this kind.
func NewMemoryHost(kind Kind) *MemoryHost {
	return &MemoryHost{
		kind: kind, devices: map[string]*DeviceInfo{}, links: map[string]*LinkInfo{}, sysctls: map[string]string{},
	}
}

// Writes is every change so far, in a few words each, and forgets them.
func (h *MemoryHost) Writes() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.writes
	h.writes = nil
	return w
}

// SetInterfaces says what else the machine has, and the MTU of the way out.
func (h *MemoryHost) SetInterfaces(egress int, interfaces ...Interface) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.interfaces, h.egress = interfaces, egress
	h.tell()
}

// Tamper changes the machine behind the Mesh's back. A link is dropped by
// deleting it from links.
func (h *MemoryHost) Tamper(f func(devices map[string]*DeviceInfo, links map[string]*LinkInfo)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h.devices, h.links)
	h.tell()
}

// Handshake lets a peer have shaken hands from an endpoint.
func (h *MemoryHost) Handshake(link string, peer Key, from netip.AddrPort, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, p := range h.devices[link].Peers {
		if p.PublicKey == peer {
			h.devices[link].Peers[i].Endpoint = from
			h.devices[link].Peers[i].Handshake = at
		}
	}
}

func (h *MemoryHost) tell() {
	for _, w := range h.watchers {
		signal(w)
	}
}

func (h *MemoryHost) wrote(format string, args ...any) {
	h.writes = append(h.writes, fmt.Sprintf(format, args...))
	h.tell()
}

// OpenLink is described at Host.
func (h *MemoryHost) OpenLink(name string, mtu int) (Kind, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.links[name] == nil {
		h.links[name], h.devices[name] = &LinkInfo{MTU: mtu}, &DeviceInfo{}
		h.wrote("make %s", name)
	}
	return h.kind, nil
}

// CloseLink is described at Host.
func (h *MemoryHost) CloseLink(name string) error {
	if h.kind == Kernel {
		return nil
	}
	return h.RemoveLink(name)
}

// RemoveLink is described at Host.
func (h *MemoryHost) RemoveLink(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.links[name] != nil {
		h.wrote("remove %s", name)
	}
	delete(h.links, name)
	delete(h.devices, name)
	return nil
}

// Device is described at Host.
func (h *MemoryHost) Device(name string) (DeviceInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.devices[name]
	if d == nil || h.links[name] == nil {
		return DeviceInfo{}, fmt.Errorf("link %s: %w", name, fs.ErrNotExist)
	}
	info := *d
	info.Peers = slices.Clone(d.Peers)
	return info, nil
}

// Configure is described at Host. Like WireGuard it moves an allowed address
// to the peer that got it last.
func (h *MemoryHost) Configure(name string, change DeviceChange) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.devices[name]
	if d == nil {
		return fmt.Errorf("link %s: %w", name, fs.ErrNotExist)
	}
	if change.PrivateKey != nil {
		d.PrivateKey = *change.PrivateKey
	}
	if change.ListenPort != nil {
		d.ListenPort = *change.ListenPort
	}
	for _, p := range change.Peers {
		d.change(p)
	}
	h.wrote("configure %s: %d peers", name, len(change.Peers))
	return nil
}

func (d *DeviceInfo) change(c PeerChange) {
	i := slices.IndexFunc(d.Peers, func(p PeerInfo) bool { return p.PublicKey == c.PublicKey })
	switch {
	case c.Remove && i >= 0:
		d.Peers = slices.Delete(d.Peers, i, i+1)
		return
	case i < 0 && !c.Set:
		return
	case i < 0:
		i = len(d.Peers)
		d.Peers = append(d.Peers, PeerInfo{PublicKey: c.PublicKey})
	}
	if c.Set {
		for j := range d.Peers {
			d.Peers[j].AllowedIPs = missing(d.Peers[j].AllowedIPs, c.AllowedIPs)
		}
		d.Peers[i].AllowedIPs, d.Peers[i].Keepalive = slices.Clone(c.AllowedIPs), c.Keepalive
	}
	if c.Endpoint.IsValid() {
		d.Peers[i].Endpoint = c.Endpoint
	}
}

// Link is described at Host.
func (h *MemoryHost) Link(name string) (LinkInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.links[name]
	if l == nil {
		return LinkInfo{}, fmt.Errorf("link %s: %w", name, fs.ErrNotExist)
	}
	info := *l
	info.Addresses, info.Routes = slices.Clone(l.Addresses), slices.Clone(l.Routes)
	return info, nil
}

// ChangeLink is described at Host.
func (h *MemoryHost) ChangeLink(name string, change LinkChange) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.links[name]
	if l == nil {
		return fmt.Errorf("link %s: %w", name, fs.ErrNotExist)
	}
	if change.MTU != 0 {
		l.MTU = change.MTU
	}
	l.Up = l.Up || change.Up
	l.Addresses = append(missing(l.Addresses, change.RemoveAddresses), change.AddAddresses...)
	for _, r := range slices.Concat(change.RemoveRoutes, change.SetRoutes) {
		l.Routes = slices.DeleteFunc(l.Routes, func(o Route) bool { return o.To == r.To })
	}
	l.Routes = append(l.Routes, change.SetRoutes...)
	h.wrote("change %s", name)
	return nil
}

// OpenBridge is described at Host.
func (h *MemoryHost) OpenBridge(name string, mtu int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.links[name] == nil {
		h.links[name] = &LinkInfo{MTU: mtu}
		h.wrote("make %s", name)
	}
	return nil
}

// HairpinPorts does nothing: there are no ports.
func (h *MemoryHost) HairpinPorts(string) error { return nil }

// SetSysctl is described at Host.
func (h *MemoryHost) SetSysctl(path, value string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sysctls[path] != value {
		h.sysctls[path] = value
		h.wrote("set %s", path)
	}
	return nil
}

// Interfaces is what SetInterfaces said.
func (h *MemoryHost) Interfaces() ([]Interface, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.interfaces), nil
}

// EgressMTU is what SetInterfaces said.
func (h *MemoryHost) EgressMTU() (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.egress, nil
}

// Watch is described at Host.
func (h *MemoryHost) Watch(ctx context.Context) (<-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := make(chan struct{}, 1)
	h.watchers = append(h.watchers, w)
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.watchers = slices.DeleteFunc(h.watchers, func(o chan struct{}) bool { return o == w })
		close(w)
	})
	return w, nil
}
