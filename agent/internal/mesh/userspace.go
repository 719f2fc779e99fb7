package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"
)

// userspace is a WireGuard device inside this process, on a TUN link. It
// answers on /var/run/wireguard/LINK.sock, where wgctrl and `wg` look for it.
type userspace struct {
	device *device.Device
	socket net.Listener
	once   sync.Once // the socket's second Close would close somebody else's descriptor
}

func newUserspace(name string, mtu int, logger *slog.Logger) (*userspace, error) {
	link, err := tun.CreateTUN(name, mtu)
	if err != nil {
		return nil, fmt.Errorf("open TUN: %w", err)
	}
	d := device.NewDevice(link, conn.NewDefaultBind(), deviceLog(logger, name))
	socket, err := openControl(name)
	if err != nil {
		d.Close()
		return nil, err
	}
	u := &userspace{device: d, socket: socket}
	go u.serve()
	// On a random port first: the port that is wanted comes by Configure,
	// which can say that it is taken.
	if err := d.Up(); err != nil {
		return nil, errors.Join(err, u.close())
	}
	return u, nil
}

func openControl(name string) (net.Listener, error) {
	file, err := ipc.UAPIOpen(name)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	defer file.Close()
	socket, err := ipc.UAPIListen(name, file)
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	return socket, nil
}

func (u *userspace) serve() {
	for {
		c, err := u.socket.Accept()
		if err != nil {
			return // closed
		}
		go u.device.IpcHandle(c)
	}
}

// alive is false after the device closed itself, because its link is gone.
func (u *userspace) alive() bool {
	select {
	case <-u.device.Wait():
		return false
	default:
		return true
	}
}

// close may be called more than once.
func (u *userspace) close() (err error) {
	u.once.Do(func() { err = u.socket.Close() })
	u.device.Close()
	return err
}

// deviceLog keeps what wireguard-go says at debug: it calls it an error, every
// few seconds, when a peer cannot be reached.
func deviceLog(logger *slog.Logger, link string) *device.Logger {
	return &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf: func(format string, args ...any) {
			if logger.Enabled(context.Background(), slog.LevelDebug) {
				logger.Debug("wireguard-go reports", "text", fmt.Sprintf(format, args...), "link", link)
			}
		},
	}
}
