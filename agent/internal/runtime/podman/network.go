package podman

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/network"
	nettypes "go.podman.io/common/libnetwork/types"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/atomicfile"
)

// EnsureNetwork implements runtime.Engine.
func (e *Engine) EnsureNetwork(ctx context.Context, n runtime.Network) error {
	call, err := e.call(ctx)
	if err != nil {
		return err
	}
	have, err := network.Inspect(call, n.Name, nil)
	switch {
	case err == nil && fits(have.Network, n):
		return nil
	case err == nil:
		if err := e.removeNetwork(call, n.Name); err != nil {
			return err
		}
	case !isNotFound(err):
		return e.explain("inspect network "+n.Name, err)
	}
	return e.createNetwork(call, n)
}

func (e *Engine) removeNetwork(call context.Context, name string) error {
	reports, err := network.Remove(call, name, nil) // never by force: that would remove the containers
	for _, r := range reports {
		err = errors.Join(err, r.Err)
	}
	if err == nil || isNotFound(err) {
		return nil
	}
	return e.explain("remove network "+name, err)
}

func (e *Engine) createNetwork(call context.Context, n runtime.Network) error {
	_, err := network.Create(call, wanted(n))
	if err == nil {
		return nil
	}
	// Podman refuses a subnet that a link of the machine has already, and our
	// bridge does have it when Podman alone lost its configuration. Podman
	// reads its directory anew for each request, so the file does the same.
	if e.local() && strings.Contains(err.Error(), "already used on the host") {
		if writeErr := e.writeNetwork(n); writeErr != nil {
			return errors.Join(e.explain("create network "+n.Name, err), writeErr)
		}
		return nil
	}
	return e.explain("create network "+n.Name, err)
}

// wanted is a network that netavark only attaches containers to: no rule, no
// masquerade, no DNS, and a bridge that it neither makes nor deletes.
func wanted(n runtime.Network) *nettypes.Network {
	return &nettypes.Network{
		Name: n.Name, Driver: "bridge", NetworkInterface: n.Bridge,
		Subnets: []nettypes.Subnet{{Subnet: ipNet(n.Subnet), Gateway: n.Gateway().AsSlice()}},
		Options: map[string]string{"mode": "unmanaged"},
	}
}

func fits(have nettypes.Network, n runtime.Network) bool {
	return have.NetworkInterface == n.Bridge && !have.DNSEnabled && have.Options["mode"] == "unmanaged" &&
		len(have.Subnets) == 1 && have.Subnets[0].Subnet.String() == n.Subnet.Masked().String()
}

func ipNet(p netip.Prefix) nettypes.IPNet {
	return nettypes.IPNet{IPNet: net.IPNet{
		IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
}

// writeNetwork puts the network where Podman keeps its own, atomically.
func (e *Engine) writeNetwork(n runtime.Network) error {
	w := wanted(n)
	id := sha256.Sum256([]byte(n.Name)) // as Podman makes it: the id follows from the name
	w.ID, w.Created = hex.EncodeToString(id[:]), time.Now()
	w.IPAMOptions = map[string]string{"driver": "host-local"}
	text, err := json.MarshalIndent(w, "", "     ")
	if err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	if err := os.MkdirAll(e.networkDir, 0o755); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	// Podman reads *.json, so it never sees what is half written.
	if err := atomicfile.Replace(filepath.Join(e.networkDir, n.Name+".json"), text, 0o644); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	return nil
}
