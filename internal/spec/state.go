package spec

import (
	"net/netip"
	"slices"
	"time"
)

// Row is one replicated row. Table is its table, Key the value of its key
// column.
type Row interface {
	Table() string
	Key() string
}

// Cluster is the one row that all machines share. Key: "cluster".
type Cluster struct {
	ID        string       `col:"id"` // always "cluster"
	ClusterID string       `col:"cluster_id"`
	Network   netip.Prefix `col:"network"` // containers and machines; default 10.210.0.0/16
	Domain    string       `col:"domain"`  // default host names of services; empty: none
	CreatedAt time.Time    `col:"created_at"`
}

// Role is something a machine does for others.
type Role string

const (
	// RoleIngress serves routes on ports 80 and 443.
	RoleIngress Role = "ingress"
	// RoleWorker runs replicas.
	RoleWorker Role = "worker"
)

// Machine is a member of the cluster. The machine itself writes its keys,
// endpoints and version; any machine may write Name, Labels, Roles and
// Schedulable. The member that accepted it writes the first row.
type Machine struct {
	ID          string            `col:"id"`
	Name        string            `col:"name"`
	PublicKey   string            `col:"public_key"`  // WireGuard, base64
	SigningKey  string            `col:"signing_key"` // Ed25519, base64
	Subnet      netip.Prefix      `col:"subnet"`      // its /24
	Endpoints   []netip.AddrPort  `col:"endpoints"`   // where its WireGuard port may be reached
	Labels      map[string]string `col:"labels"`
	Roles       []Role            `col:"roles"`
	Schedulable bool              `col:"schedulable"`
	Version     string            `col:"version"`    // of the agent
	Generation  string            `col:"generation"` // of its NixOS, such as "12 (booted)"
	OS          string            `col:"os"`
	Arch        string            `col:"arch"`
	JoinedAt    time.Time         `col:"joined_at"`
	System      string            `col:"system"` // that runs: its name in the Nix store, hash first
	NixOS       string            `col:"nixos"`  // its version; empty elsewhere
}

// Project is a Compose project: the namespace of services and volumes.
type Project struct {
	ID        string    `col:"id"`
	Name      string    `col:"name"`
	CreatedAt time.Time `col:"created_at"`
}

// Wanted is what should be true of a service or replica.
type Wanted string

const (
	WantRunning  Wanted = "running"
	WantStopped  Wanted = "stopped"
	WantDraining Wanted = "draining" // runs on, but takes no new traffic
)

// Service is the living intent: which revision, how many replicas. Revision
// and Replicas are separate columns, so a deploy on one side of a partition
// and a scale on the other both hold after healing.
type Service struct {
	ID        string    `col:"id"`
	Project   string    `col:"project"` // project name
	Name      string    `col:"name"`
	Mode      Mode      `col:"mode"`
	Revision  string    `col:"revision"`
	Replicas  int       `col:"replicas"`
	Wanted    Wanted    `col:"wanted"`
	CreatedAt time.Time `col:"created_at"`
}

// Revision is an immutable ServiceSpec; its id follows from the content.
type Revision struct {
	ID        string      `col:"id"`
	Service   string      `col:"service"`
	Spec      ServiceSpec `col:"spec"`
	CreatedAt time.Time   `col:"created_at"`
}

// Replica is one container's place: service + revision + machine. A rollout
// or a failover claim writes it.
type Replica struct {
	ID        string    `col:"id"`
	Name      string    `col:"name"` // <service>-<4 characters>, the container's host name
	Service   string    `col:"service"`
	Revision  string    `col:"revision"`
	Machine   string    `col:"machine"`
	Wanted    Wanted    `col:"wanted"`
	Epoch     int64     `col:"epoch"` // nobody reads or writes it any more: agents before this one have the column
	Rollout   string    `col:"rollout"`
	CreatedAt time.Time `col:"created_at"`
}

// ContainerState is what a machine observed of a replica's container.
type ContainerState string

const (
	ContainerPending ContainerState = "pending" // not made yet
	ContainerRunning ContainerState = "running"
	ContainerExited  ContainerState = "exited"
	ContainerStopped ContainerState = "stopped" // on purpose
	ContainerFailed  ContainerState = "failed"  // could not be made or started; Error says why
	ContainerLost    ContainerState = "lost"    // ended by a power cut; the exit code is unknown
)

// Health is the verdict of a replica's health check.
type Health string

const (
	HealthNone      Health = "none" // no check is declared: running is enough
	HealthStarting  Health = "starting"
	HealthHealthy   Health = "healthy"
	HealthUnhealthy Health = "unhealthy"
)

// Container is what runs for a replica. Only the machine that runs it writes it.
type Container struct {
	Replica   string         `col:"replica"` // key
	Machine   string         `col:"machine"`
	EngineID  string         `col:"engine_id"` // the engine's container id
	Revision  string         `col:"revision"`  // of the container that exists
	Address   netip.Addr     `col:"address"`
	State     ContainerState `col:"state"`
	Health    Health         `col:"health"`
	ExitCode  int            `col:"exit_code"`
	Error     string         `col:"error"`
	Since     time.Time      `col:"since"` // of State and Health
	StartedAt time.Time      `col:"started_at"`
}

// RolloutStage is where a rollout is.
type RolloutStage string

const (
	RolloutRunning    RolloutStage = "running"
	RolloutReturning  RolloutStage = "returning" // a step failed: going back to From
	RolloutDone       RolloutStage = "done"
	RolloutFailed     RolloutStage = "failed"     // returned to From; Error says why
	RolloutSuperseded RolloutStage = "superseded" // another revision won
)

// Rollout takes a service from one revision to another. Its driver writes it.
type Rollout struct {
	ID        string       `col:"id"`
	Service   string       `col:"service"`
	From      string       `col:"from_revision"` // empty for a first deploy
	To        string       `col:"to_revision"`
	Stage     RolloutStage `col:"stage"`
	Driver    string       `col:"driver"` // machine
	Error     string       `col:"error"`
	StartedAt time.Time    `col:"started_at"`
	EndedAt   time.Time    `col:"ended_at"`
}

// Volume is a named volume of a project on one machine.
type Volume struct {
	ID        string     `col:"id"`
	Project   string     `col:"project"`
	Name      string     `col:"name"`
	Machine   string     `col:"machine"`
	Spec      VolumeSpec `col:"spec"`
	CreatedAt time.Time  `col:"created_at"`
}

// LongestTicket is for how long a ticket may be valid. Whoever issues one keeps
// to it, because a use whose ticket is not known is forgotten when no ticket
// can be that old: with a longer one, a ticket could be used once more.
const LongestTicket = 90 * 24 * time.Hour

// Ticket lets a machine join. The secret half is only in the ticket file.
type Ticket struct {
	ID     string `col:"id"`
	Issuer string `col:"issuer"` // machine
	// PublicKeys are those of its doors, base64: WireGuard peers with one purpose.
	PublicKeys []string  `col:"public_keys"`
	Uses       int       `col:"uses"` // how many machines may join with it
	ExpiresAt  time.Time `col:"expires_at"`
	Revoked    bool      `col:"revoked"`
	CreatedAt  time.Time `col:"created_at"`
	// Notes are sentences about machines that hold the ticket and could not ask
	// to be admitted, by the id that each will have.
	Notes map[string]string `col:"notes"`
}

// NotesOfTickets are those of good tickets that a machine issued, sorted; a
// machine that joined has none.
func (s *State) NotesOfTickets(issuer string, now time.Time) []string {
	var out []string
	for _, t := range s.Tickets {
		if t.Issuer != issuer || t.Revoked || !now.Before(t.ExpiresAt) {
			continue
		}
		for machine, note := range t.Notes {
			if _, member := s.Machines[machine]; !member {
				out = append(out, note)
			}
		}
	}
	slices.Sort(out)
	return out
}

// TicketUse is one machine that joined with a ticket. Key: ticket + "/" + machine.
type TicketUse struct {
	ID      string    `col:"id"`
	Ticket  string    `col:"ticket"`
	Machine string    `col:"machine"`
	At      time.Time `col:"at"`
}

// Event is something a person may want to know afterwards. The machine where
// it happened writes it; the number kept is bounded.
type Event struct {
	ID      string    `col:"id"`
	Machine string    `col:"machine"`
	At      time.Time `col:"at"`
	Kind    string    `col:"kind"`    // dotted, stable: rollout.failed, machine.joined
	Subject string    `col:"subject"` // id
	Text    string    `col:"text"`
}

func (Cluster) Table() string   { return "cluster" }
func (c Cluster) Key() string   { return c.ID }
func (Machine) Table() string   { return "machines" }
func (m Machine) Key() string   { return m.ID }
func (Project) Table() string   { return "projects" }
func (p Project) Key() string   { return p.ID }
func (Service) Table() string   { return "services" }
func (s Service) Key() string   { return s.ID }
func (Revision) Table() string  { return "revisions" }
func (r Revision) Key() string  { return r.ID }
func (Replica) Table() string   { return "replicas" }
func (r Replica) Key() string   { return r.ID }
func (Container) Table() string { return "containers" }
func (c Container) Key() string { return c.Replica }
func (Rollout) Table() string   { return "rollouts" }
func (r Rollout) Key() string   { return r.ID }
func (Volume) Table() string    { return "volumes" }
func (v Volume) Key() string    { return v.ID }
func (Ticket) Table() string    { return "tickets" }
func (t Ticket) Key() string    { return t.ID }
func (TicketUse) Table() string { return "ticket_uses" }
func (t TicketUse) Key() string { return t.ID }
func (Event) Table() string     { return "events" }
func (e Event) Key() string     { return e.ID }

// ClusterKey is the key of the one row of the cluster table.
const ClusterKey = "cluster"

// State is one consistent view of the replicated rows, typed. It is immutable:
// whoever holds one may read it for ever, and nobody may write to its maps.
type State struct {
	Cluster    Cluster
	Machines   map[string]Machine
	Projects   map[string]Project
	Services   map[string]Service
	Revisions  map[string]Revision
	Replicas   map[string]Replica
	Containers map[string]Container // by replica
	Rollouts   map[string]Rollout
	Volumes    map[string]Volume
	Tickets    map[string]Ticket
	TicketUses map[string]TicketUse
	Events     map[string]Event
	Upgrades   map[string]Upgrade
	Turns      map[string]Turn // by machine
}

// Alive tells which machines live, by the view of the machine that asks. The
// machine itself is always in it.
type Alive map[string]bool
