package runtime

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"
)

// Conditions that a caller branches on. An Engine returns them wrapped, most
// often as the cause of a faults.Fault. A missing image has no error here: it
// is a fault with code faults.NoImage.
var (
	// ErrNoContainer: the container does not exist (any more).
	ErrNoContainer = errors.New("no such container")
	// ErrNameTaken: a container of that name exists.
	ErrNameTaken = errors.New("container name is in use")
	// ErrAddressTaken: another container holds the address.
	ErrAddressTaken = errors.New("address is in use")
	// ErrNoBridge: the bridge of the network is not there yet.
	ErrNoBridge = errors.New("the bridge does not exist")
	// ErrNetworkBusy: the network has another subnet and containers still use it.
	ErrNetworkBusy = errors.New("network is in use")
)

// OwnGrace, given to Stop, is the grace that the container was created with:
// for a container that nobody wants any more, that is the only one who says.
const OwnGrace time.Duration = -1

// Engine is a container engine. It is safe for concurrent use.
//
// All methods return when ctx ends. An engine that does not answer is a fault
// with code faults.Engine; a full disk is one with code faults.DiskFull.
// Everything else that a person can cause is a fault that says so in one
// sentence. Containers are named by the id that Create returned.
type Engine interface {
	// Version is the engine's version. It doubles as a ping.
	Version(ctx context.Context) (string, error)

	// EnsureNetwork makes the network, or makes it anew when its subnet
	// differs. The engine adds no firewall rule, no DNS and no bridge: it
	// attaches containers to a bridge that is the machine's own. The bridge
	// need not exist yet. ErrNetworkBusy when containers hold the old subnet.
	EnsureNetwork(ctx context.Context, n Network) error

	// Create makes a container from a request, places its files, and returns
	// its id. It never pulls: a missing image is a fault faults.NoImage. A
	// container that could not be made complete does not exist afterwards.
	Create(ctx context.Context, r ContainerRequest) (string, error)
	// Start starts a container. No error when it runs already.
	// ErrAddressTaken and ErrNoBridge show here, not at Create.
	Start(ctx context.Context, id string) error
	// Stop sends the container's stop signal and, when it still runs after
	// grace, kills it; OwnGrace is what it was created with. It returns when
	// the container has stopped. No error when it does not run. It also ends
	// an Orphaned container.
	Stop(ctx context.Context, id string, grace time.Duration) error
	// Remove kills and removes a container with its anonymous volumes; named
	// volumes stay. No error when it is gone already.
	Remove(ctx context.Context, id string) error
	// List returns every container that carries LabelReplica, of any cluster,
	// sorted by replica, then id.
	List(ctx context.Context) ([]Container, error)
	// Inspect returns one container, or ErrNoContainer.
	Inspect(ctx context.Context, id string) (Container, error)

	// EnsureVolume makes a volume unless one of that name exists.
	EnsureVolume(ctx context.Context, v Volume) error
	// HasVolume tells whether a volume of that name exists.
	HasVolume(ctx context.Context, name string) (bool, error)
	// Volumes returns all volumes with a name, sorted by it.
	Volumes(ctx context.Context) ([]Volume, error)
	// RemoveVolume removes a volume and its content. No error when it is gone.
	RemoveVolume(ctx context.Context, name string) error

	// Logs calls each for every line in order, until the end of the log, the
	// end of ctx, or an error of each, which it returns. With Follow, the end
	// is that of the container.
	Logs(ctx context.Context, id string, o LogOptions, each func(LogLine) error) error
	// Exec runs a command in a running container and returns its exit code:
	// 126 or 127 where the command cannot be run. It returns when the command
	// ended; when ctx ends first it returns at once, and the command is ended
	// behind it.
	Exec(ctx context.Context, id string, r ExecRequest) (int, error)

	// Images returns all images, sorted by first name, then id.
	Images(ctx context.Context) ([]Image, error)
	// HasImage tells whether an image with this name or id is here.
	HasImage(ctx context.Context, name string) (bool, error)
	// ImageLayers returns the digests of the uncompressed layers ("diff ids")
	// of an image, lowest first.
	ImageLayers(ctx context.Context, name string) ([]string, error)
	// PullImage fetches an image from its registry, also when one of that
	// name is here, and returns when it would survive a power cut. A failure of
	// the registry is a fault faults.NoImage.
	PullImage(ctx context.Context, name string) error
	// LoadImage reads a Docker or OCI archive and returns the names in it. An
	// OCI archive may leave out layers that an image here has already. What was
	// read would survive a power cut.
	LoadImage(ctx context.Context, archive io.Reader) ([]string, error)
	// Watch calls wake soon after a container that List or Inspect showed
	// running has ended or lost its monitor. Wakes are hints: they may come
	// twice or coalesce, and one may be missed while the engine restarts, so
	// the caller also lists from time to time. wake must not block. Watch
	// returns when ctx ends.
	Watch(ctx context.Context, wake func()) error
}

// Network is the one network that all containers of a machine share.
type Network struct {
	Name   string
	Bridge string // link of the machine that containers are attached to
	Subnet netip.Prefix
}

// Names that every machine uses for its network.
const (
	NetworkName = "uncloud"
	BridgeName  = "uncloud0"
)

// Gateway is the machine's own address on the network: the first of the subnet.
func (n Network) Gateway() netip.Addr { return n.Subnet.Masked().Addr().Next() }

// Volume is a named volume as the engine knows it.
type Volume struct {
	Name    string
	Driver  string // empty: the engine's local driver
	Options map[string]string
	Labels  map[string]string
}

// Image is an image that the engine holds.
type Image struct {
	ID         string // hex, without algorithm
	Names      []string
	Size       int64  // bytes
	Platform   string // os/arch, as in linux/arm64
	Created    time.Time
	Containers int
}

// LogOptions selects lines of a log.
type LogOptions struct {
	Follow bool
	Tail   int       // lines from the end; negative is all
	Since  time.Time // zero: no bound
	Until  time.Time // zero: no bound
}

// LogLine is one line of a container's output, without its line end. Its time
// may be of whole seconds only; the order of lines is that of the output.
type LogLine struct {
	At     time.Time
	Stderr bool
	Text   string
}

// TerminalSize is the size of a terminal in characters.
type TerminalSize struct{ Rows, Columns uint16 }

// ExecRequest is a command to run in a container.
type ExecRequest struct {
	Command []string
	Env     map[string]string
	User    string // empty: the container's
	TTY     bool   // Stdout then gets all output
	// Stdin is read until its end, or until the command ended and one more
	// Read returned. Nil is no input.
	Stdin  io.Reader
	Stdout io.Writer // nil: discarded
	Stderr io.Writer // nil: discarded
	// Size is the first size of the terminal, Resize those that follow.
	Size   TerminalSize
	Resize <-chan TerminalSize
}
