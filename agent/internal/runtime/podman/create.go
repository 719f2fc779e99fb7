package podman

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/specgen"
	nettypes "go.podman.io/common/libnetwork/types"
	"go.podman.io/image/v5/manifest"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/spec"
)

// Create implements runtime.Engine.
func (e *Engine) Create(ctx context.Context, r runtime.ContainerRequest) (string, error) {
	s, err := generate(r)
	if err != nil {
		return "", err
	}
	call, err := e.call(ctx)
	if err != nil {
		return "", err
	}
	made, err := containers.CreateWithSpec(call, s, nil)
	if isNotFound(err) && strings.Contains(err.Error(), "image") {
		return "", noImage(r.Spec.Image, err)
	}
	if err != nil {
		return "", e.explain("create container "+r.Name, err)
	}
	if err := e.placeFiles(ctx, made.ID, r.Spec.Files); err != nil {
		// Not with ctx: what ended it would also end the clean-up. What is
		// left behind if this fails carries labels, so the agent finds it.
		_ = e.Remove(context.WithoutCancel(ctx), made.ID)
		return "", e.explain("place files in container "+r.Name, err)
	}
	return made.ID, nil
}

// placeFiles copies files into a container that was not started yet.
func (e *Engine) placeFiles(ctx context.Context, id string, files []spec.File) error {
	if len(files) == 0 {
		return nil
	}
	archive, err := tarOf(files)
	if err != nil {
		return err
	}
	// Podman would otherwise give all files to the container's own user.
	query := url.Values{"path": {"/"}, "copyUIDGID": {"false"}}
	header := http.Header{"Content-Type": {"application/x-tar"}}
	res, err := e.stream(ctx, http.MethodPut, "/containers/"+id+"/archive", query, header, archive)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func tarOf(files []spec.File) (*bytes.Buffer, error) {
	const readable = 0o444
	buf := &bytes.Buffer{}
	w := tar.NewWriter(buf)
	for _, f := range files {
		mode := int64(f.Mode)
		if mode == 0 {
			mode = readable
		}
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.Target, "/"),
			Size: int64(len(f.Content)), Mode: mode, Uid: f.UID, Gid: f.GID,
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("file %s: %w", f.Target, err)
		}
		if _, err := w.Write(f.Content); err != nil {
			return nil, fmt.Errorf("file %s: %w", f.Target, err)
		}
	}
	return buf, w.Close()
}

// generate is a request in Podman's words.
func generate(r runtime.ContainerRequest) (*specgen.SpecGenerator, error) {
	s := specgen.NewSpecGenerator(r.Spec.Image, false)
	setProcess(s, r)
	setNetwork(s, r)
	setResources(s, r.Spec)
	if err := setMounts(s, r); err != nil {
		return nil, err
	}
	return s, setSecurity(s, r.Spec)
}

// logSize bounds a container's log where the log driver writes a file. The
// driver itself is the engine's default: journald where there is one, which
// has bounds of its own.
const logSize = 16 << 20

func setProcess(s *specgen.SpecGenerator, r runtime.ContainerRequest) {
	c := r.Spec
	s.Name = r.Name
	s.Labels = r.Labels()
	s.Env = r.Environment()
	s.Entrypoint, s.Command = c.Entrypoint, c.Command
	s.User, s.WorkDir, s.Groups = c.User, c.WorkingDir, c.GroupAdd
	s.Hostname = c.Hostname
	if s.Hostname == "" {
		s.Hostname = r.Hostname
	}
	s.Terminal, s.Stdin, s.Init = &c.TTY, &c.Stdin, &c.Init
	grace := wholeSeconds(c.StopGrace.Or(spec.DefaultStopGrace))
	s.StopTimeout = &grace
	// The agent restarts containers, with backoff and with the exit code
	// told. Podman's own policy restarts ten times a second for ever, and
	// after a boot not at all.
	s.RestartPolicy = "no"
	// The agent probes: a check of the image would need systemd timers.
	s.HealthConfig = &manifest.Schema2HealthConfig{Test: []string{"NONE"}}
	s.LogConfiguration = &specgen.LogConfig{Size: logSize}
	no := false
	s.HTTPProxy = &no // the machine's proxy is not the container's
}

// dnsOptions: a name with one dot may be one of the cluster ("web.shop"), and
// is tried with the search domains first, so that it resolves when the
// machine is cut off from every other resolver.
var dnsOptions = []string{"ndots:2"}

func setNetwork(s *specgen.SpecGenerator, r runtime.ContainerRequest) {
	s.NetNS = specgen.Namespace{NSMode: specgen.Bridge}
	s.Networks = map[string]nettypes.PerNetworkOptions{
		r.Network: {StaticIPs: []net.IP{r.Address.AsSlice()}},
	}
	// Never PortMappings: on an unmanaged network conmon would hold the port
	// and nothing would be forwarded. The firewall does it.
	if r.DNS.IsValid() {
		s.DNSServers = []net.IP{r.DNS.AsSlice()}
		s.DNSSearch, s.DNSOptions = r.Search, dnsOptions
	}
	s.HostAdd = r.Spec.ExtraHosts
}
