package firewall

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Hairpin lets containers reach their own published port by the machine's
// address. It needs to be called after a container has started, because each
// start makes a new port on the bridge; a port that is set already costs one
// read.
//
// It does nothing unless the machine has br_netfilter at work
// (bridge-nf-call-iptables=1, as Docker and Kubernetes want it). Only then is a
// bridged frame translated before the bridge has decided where it goes, and
// sent back out of the port that it came from, which a bridge refuses to do.
// Elsewhere hairpin mode would only echo every broadcast to its sender.
func Hairpin(bridge string) error {
	call, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	if err != nil || string(bytes.TrimSpace(call)) != "1" {
		return nil // without the file there is no br_netfilter
	}
	dir := filepath.Join("/sys/class/net", bridge, "brif")
	ports, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list ports of bridge %s: %w", bridge, err)
	}
	var errs []error
	for _, port := range ports {
		mode, err := os.ReadFile(filepath.Join(dir, port.Name(), "hairpin_mode"))
		if errors.Is(err, fs.ErrNotExist) || string(bytes.TrimSpace(mode)) == "1" {
			continue // its container is gone, or it is set
		}
		errs = append(errs, setHairpin(port.Name()))
	}
	return errors.Join(errs...)
}

// setHairpin asks the kernel by one netlink message, not by the file in /sys
// that says the same: in many containers and sandboxes /sys is read-only.
func setHairpin(port string) error {
	link, err := net.InterfaceByName(port)
	if err != nil {
		return fmt.Errorf("hairpin mode of %s: %w", port, err)
	}
	if err := routeRequest(hairpinRequest(int32(link.Index))); err != nil {
		return fmt.Errorf("hairpin mode of %s: %w", port, err)
	}
	return nil
}

const (
	iflaProtinfo    = 12     // IFLA_PROTINFO
	iflaBrportMode  = 4      // IFLA_BRPORT_MODE: hairpin
	nlaNested       = 0x8000 // NLA_F_NESTED
	netlinkHeader   = 16     // struct nlmsghdr
	interfaceHeader = 16     // struct ifinfomsg
)

// hairpinRequest is RTM_SETLINK for one bridge port:
//
//	nlmsghdr | ifinfomsg{AF_BRIDGE, index} | IFLA_PROTINFO{ IFLA_BRPORT_MODE: 1 }
func hairpinRequest(index int32) []byte {
	const inner = 8 // attribute header, one byte, padding
	b := make([]byte, netlinkHeader+interfaceHeader+4+inner)
	order := binary.NativeEndian
	order.PutUint32(b[0:], uint32(len(b)))
	order.PutUint16(b[4:], syscall.RTM_SETLINK)
	order.PutUint16(b[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_ACK)
	b[netlinkHeader] = syscall.AF_BRIDGE
	order.PutUint32(b[netlinkHeader+4:], uint32(index))
	attr := b[netlinkHeader+interfaceHeader:]
	order.PutUint16(attr[0:], 4+inner)
	order.PutUint16(attr[2:], iflaProtinfo|nlaNested)
	order.PutUint16(attr[4:], 5) // header and value, without padding
	order.PutUint16(attr[6:], iflaBrportMode)
	attr[8] = 1
	return b
}

// routeRequest sends one request to the kernel and returns its answer.
func routeRequest(request []byte) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer syscall.Close(fd)
	if err := syscall.Sendto(fd, request, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, os.Getpagesize())
	n, _, err := syscall.Recvfrom(fd, answer, 0)
	if err != nil {
		return os.NewSyscallError("recvfrom", err)
	}
	if n < netlinkHeader+4 || binary.NativeEndian.Uint16(answer[4:]) != syscall.NLMSG_ERROR {
		return errors.New("unexpected answer of the kernel")
	}
	if code := int32(binary.NativeEndian.Uint32(answer[netlinkHeader:])); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}
