package server

import (
	"context"
	"io"
	"net"
	"net/netip"
	"time"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// Host is the machine, member or not. agent.go fulfils it.
type Host interface {
	// Info never fails: it is what a person asks when nothing else answers.
	Info() *uncloudv1.InfoResponse
	// Init makes a cluster with this machine as its first. It returns an
	// is-member fault where the machine belongs to one.
	Init(ctx context.Context, opts InitOptions) error
	// Join makes the machine a member of the ticket's cluster and ends when it is ready.
	Join(ctx context.Context, opts JoinOptions, progress func(text string)) error
	// Reset forgets the cluster. Named volumes stay. Untold is why the
	// others may not know; nil where they do, or where the one that asks tells them.
	Reset(ctx context.Context) (untold, err error)
	// RestoreStore takes a backup that it reads to its end, and puts it in place
	// of the store, or takes in what the cluster lacks. It ends when the machine
	// takes commands again.
	RestoreStore(ctx context.Context, opts RestoreOptions, backup io.Reader) (*uncloudv1.RestoreStoreResponse, error)
	// Arriving is Member for who only looks: it is there while the machine still
	// catches up with the others.
	Arriving() (*Member, error)
	// Member is what the machine can do as a member; a not-member or
	// not-ready fault while it is none.
	Member() (*Member, error)
}

// InitOptions are the choices of a new cluster.
type InitOptions struct {
	Name      string
	Network   netip.Prefix // the zero Prefix is the default network
	Domain    string
	Endpoints []netip.AddrPort
}

// JoinOptions are the choices of a machine that joins.
type JoinOptions struct {
	Ticket    string // content of the file
	Name      string // empty: the configured name, or the host name
	Labels    map[string]string
	Endpoints []netip.AddrPort
}

// RestoreOptions say what a backup is, and what is wanted of it.
type RestoreOptions struct {
	Backup *uncloudv1.StoreBackup
	Adopt  bool // only write the services that the cluster does not have
}

// Tx is a transaction on the replicated state.
type Tx interface {
	State() *spec.State
	Put(rows ...spec.Row)
	Delete(table, key string)
}

// Version names a commit of a machine's store.
type Version struct {
	Site string
	Seq  uint64
}

// Member is what the organs of a member can do for the API. Every field is set.
type Member struct {
	Self  string // machine id
	State func() *spec.State
	Alive func() spec.Alive
	RTT   func(machine string) (time.Duration, bool)
	Notes func() []Note // what this machine suffers from
	// Update runs fn in a transaction and returns when it is durable.
	Update func(ctx context.Context, fn func(Tx) error) (Version, error)
	// DialAPI connects to another machine's API over the mesh.
	DialAPI func(ctx context.Context, machine string) (net.Conn, error)
	// WaitFor returns when the local store has the version.
	WaitFor func(ctx context.Context, v Version) error
	// AwaitLoaded returns when names and ingress use a state that has the version.
	AwaitLoaded func(ctx context.Context, v Version) error
	// IssueTicket makes and records a ticket; the text is the file's content.
	IssueTicket func(ctx context.Context, valid time.Duration, uses int) (id, text string, expires time.Time, err error)
	// Report keeps a ticket holder's note, for people.
	Report func(ctx context.Context, req *uncloudv1.ReportRequest) error
	// Admit decides about a ticket holder and writes the rows.
	Admit func(ctx context.Context, ticket string, req *uncloudv1.AdmitRequest) (*uncloudv1.AdmitResponse, error)
	// ManagementAddress is derived from a machine's public key.
	ManagementAddress func(publicKey string) netip.Addr
	WireGuard         func() (*uncloudv1.WireGuardResponse, error)
	// Authority is the PEM certificate of what signs private names here.
	Authority func(ctx context.Context) (string, error)

	Store    Store
	Rollouts Rollouts
	Upgrades Upgrades
	Replicas Replicas
	Engine   Engine
	Images   Images
}

// Store is this machine's replicated store, as a person looks after it.
type Store interface {
	Status(ctx context.Context) (*uncloudv1.StoreStatusResponse, error)
	// Check reads the whole database. What is wrong is in the response.
	Check(ctx context.Context) (*uncloudv1.CheckStoreResponse, error)
	// Backup makes a copy and opens it; closing removes it from this machine.
	Backup(ctx context.Context) (*uncloudv1.StoreBackup, io.ReadCloser, error)
}

// Note is something that a machine or service suffers from. Hint is what a
// person may do about it; empty where the text says all.
type Note struct{ Code, Text, Hint string }

// Message is the note as the API tells it.
func (n Note) Message() *uncloudv1.HealthNote {
	return &uncloudv1.HealthNote{Code: n.Code, Text: n.Text, Hint: n.Hint}
}

// Replicas runs and retires the replicas of this machine.
type Replicas interface {
	// Ensure runs a replica's container and returns its verdict. The error is
	// about the machine; what is wrong with the container is in the Outcome.
	Ensure(ctx context.Context, replica string, skipHealth bool) (Outcome, error)
	// Retire stops and removes a replica's container; no error when there is none.
	Retire(ctx context.Context, replica string) error
}

// Outcome is how a replica that was asked to run turned out.
type Outcome struct {
	Fault   error    // nil: it runs, and is healthy if it has a check
	Logs    []string // the last lines where Fault is set
	Version Version  // the commit that says what runs
}

// Engine reads and enters containers of this machine.
type Engine interface {
	Logs(ctx context.Context, replica string, opts LogOptions, emit func(LogLine) error) error
	// Exec runs a command in a replica's container and returns its exit code.
	Exec(ctx context.Context, replica string, opts ExecOptions, streams ExecStreams) (int, error)
	// HasImages tells which of these image names the engine has.
	HasImages(ctx context.Context, names []string) ([]string, error)
	ListImages(ctx context.Context) ([]*uncloudv1.Image, error)
	// RemoveVolume removes a volume, by the engine's name, and its content.
	RemoveVolume(ctx context.Context, name string) error
}

// LogOptions select log lines. Tail -1 is all.
type LogOptions struct {
	Follow       bool
	Tail         int
	Since, Until time.Time
	// Container is whose lines were read until Since; empty: nobody's. Of any
	// other container all lines are wanted.
	Container string
}

// LogLine is one line that a container wrote.
type LogLine struct {
	At        time.Time
	Stderr    bool
	Text      string
	Container string // the engine's id
}

// ExecOptions are the choices of an exec.
type ExecOptions struct {
	Command []string
	User    string
	Env     map[string]string
	TTY     bool
	Size    TerminalSize
}

// TerminalSize is in characters.
type TerminalSize struct{ Rows, Columns uint16 }

// ExecStreams are the ends of an exec. Stdin is nil where none is wanted.
type ExecStreams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan TerminalSize
}

// Images takes images in without a registry.
type Images interface {
	// Present tells which of these blobs the machine has.
	Present(ctx context.Context, digests []string) ([]string, error)
	// Receive takes an image: next returns the blobs that follow, io.EOF at the end.
	Receive(ctx context.Context, start ImageStart, next func() (digest string, chunk []byte, err error)) (id string, received int64, err error)
}

// ImageStart announces an image.
type ImageStart struct {
	Name     string
	Manifest []byte
	Config   []byte
}

// Rollouts changes services. Every call tells what it does as it does it, and
// returns the first error after what was begun is finished or taken back. One
// with the digest of an agreed plan does nothing when another would be carried out.
type Rollouts interface {
	PlanDeploy(ctx context.Context, opts DeployOptions) (plan.Plan, error)
	Deploy(ctx context.Context, opts DeployOptions, tell func(Progress)) error
	Scale(ctx context.Context, service string, replicas int, dryRun bool, agreed string, tell func(Progress)) error
	Start(ctx context.Context, services []string, tell func(Progress)) error
	Stop(ctx context.Context, services []string, tell func(Progress)) error
	PlanRemoval(services []string, volumes bool) (plan.Plan, error)
	Remove(ctx context.Context, services []string, volumes bool, agreed string, tell func(Progress)) error
	// RemoveVolumes removes volumes, by id, with what is in them.
	RemoveVolumes(ctx context.Context, volumes []string, tell func(Progress)) error
	// Rollback goes to a revision, or to the one that ran before where it is empty.
	Rollback(ctx context.Context, service, revision string, dryRun bool, agreed string, tell func(Progress)) error
}

// DeployOptions are what a person asked to be deployed.
type DeployOptions struct {
	Project    string
	Specs      []spec.ServiceSpec
	Recreate   bool
	Prune      bool
	SkipHealth bool
	Agreed     string // digest of the plan that was shown; empty: none was
}

// Progress is one thing that happened. Kind is one of those in cluster.proto.
type Progress struct {
	Kind string
	Plan *plan.Plan
	Step *plan.Step
	Text string
	Logs []string
}
