package spec

import (
	"crypto/sha256"
	"encoding/json"
	"time"
)

// Mode says how many replicas a service has.
type Mode string

const (
	// Replicated services have Service.Replicas replicas on as many machines as possible.
	Replicated Mode = "replicated"
	// Global services have one replica on every eligible machine, also on those that join later.
	Global Mode = "global"
)

// Order says whether a replacement starts before or after the old replica stops.
type Order string

const (
	// StartFirst runs the new replica until it is healthy, then retires the old one.
	StartFirst Order = "start-first"
	// StopFirst retires the old replica first: for host ports and single-writer volumes.
	StopFirst Order = "stop-first"
)

// ServiceSpec is what a user asked for: the content of a revision. It is
// immutable once it has an id, because the id follows from the content.
type ServiceSpec struct {
	Name      string        `json:"name"`
	Mode      Mode          `json:"mode"`
	Replicas  int           `json:"replicas,omitempty"` // wanted by the file; Service.Replicas is what holds now
	Container ContainerSpec `json:"container"`
	Health    *HealthCheck  `json:"health,omitempty"`
	Ports     []Port        `json:"ports,omitempty"`
	Caddy     string        `json:"caddy,omitempty"` // x-caddy: a Caddyfile fragment
	Placement Placement     `json:"placement,omitzero"`
	Update    UpdatePolicy  `json:"update,omitzero"`
	DependsOn []string      `json:"dependsOn,omitempty"` // names of services of the project that come first
	Volumes   []VolumeSpec  `json:"volumes,omitempty"`   // named volumes that Container.Mounts refers to
}

// ContainerSpec is the part of a revision that a container engine sees. A
// change here means a new container; a change elsewhere in ServiceSpec does not.
type ContainerSpec struct {
	Image       string            `json:"image"`
	PullPolicy  string            `json:"pullPolicy,omitempty"` // always, missing (default), never
	Entrypoint  []string          `json:"entrypoint,omitempty"`
	Command     []string          `json:"command,omitempty"`
	Env         map[string]string `json:"env,omitempty"`
	User        string            `json:"user,omitempty"`
	WorkingDir  string            `json:"workingDir,omitempty"`
	Hostname    string            `json:"hostname,omitempty"`
	Init        bool              `json:"init,omitempty"`
	Privileged  bool              `json:"privileged,omitempty"`
	ReadOnly    bool              `json:"readOnly,omitempty"`
	TTY         bool              `json:"tty,omitempty"`
	Stdin       bool              `json:"stdin,omitempty"`
	CapAdd      []string          `json:"capAdd,omitempty"`
	CapDrop     []string          `json:"capDrop,omitempty"`
	GroupAdd    []string          `json:"groupAdd,omitempty"`
	Sysctls     map[string]string `json:"sysctls,omitempty"`
	Ulimits     []Ulimit          `json:"ulimits,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	ExtraHosts  []string          `json:"extraHosts,omitempty"` // host:address
	Mounts      []Mount           `json:"mounts,omitempty"`
	Files       []File            `json:"files,omitempty"` // Compose configs: copied in before start
	StopSignal  string            `json:"stopSignal,omitempty"`
	StopGrace   Duration          `json:"stopGrace,omitempty"` // default 10 s
	Resources   Resources         `json:"resources,omitzero"`
	ShmSize     int64             `json:"shmSize,omitempty"` // bytes
	Devices     []string          `json:"devices,omitempty"` // host[:container[:rwm]] or a CDI name
	SecurityOpt []string          `json:"securityOpt,omitempty"`
}

// Ulimit is one resource limit of a process, as in setrlimit(2).
type Ulimit struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Resources bound a container. Zero means no bound.
type Resources struct {
	CPUs        float64 `json:"cpus,omitempty"`
	Memory      int64   `json:"memory,omitempty"`      // bytes
	Reservation int64   `json:"reservation,omitempty"` // bytes of memory
	Pids        int64   `json:"pids,omitempty"`
}

// MountType is the kind of a mount.
type MountType string

const (
	MountVolume MountType = "volume"
	MountBind   MountType = "bind"
	MountTmpfs  MountType = "tmpfs"
)

// Mount puts a volume, a path of the machine or memory into a container.
type Mount struct {
	Type     MountType `json:"type"`
	Source   string    `json:"source,omitempty"` // volume name within the project, or absolute path
	Target   string    `json:"target"`
	ReadOnly bool      `json:"readOnly,omitempty"`
	Size     int64     `json:"size,omitempty"` // bytes, tmpfs only
}

// VolumeSpec declares a named volume.
type VolumeSpec struct {
	Name     string            `json:"name"`
	Driver   string            `json:"driver,omitempty"`
	Options  map[string]string `json:"options,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	External bool              `json:"external,omitempty"` // must exist, is never made or removed
	Shared   bool              `json:"shared,omitempty"`   // x-shared: more than one writer was asked for
}

// File is content that is placed in a container before it starts.
type File struct {
	Target  string `json:"target"`
	Content []byte `json:"content"`
	Mode    uint32 `json:"mode,omitempty"` // default 0444
	UID     int    `json:"uid,omitempty"`
	GID     int    `json:"gid,omitempty"`
}

// HealthCheck says when a replica may take traffic. Exactly one of Exec, HTTP
// and TCP is set. The agent runs it, so it needs no timer of the host.
type HealthCheck struct {
	Exec        []string `json:"exec,omitempty"` // argv in the container; exit code 0 is healthy
	HTTP        string   `json:"http,omitempty"` // ":8080/path": a GET answered 200-399 is healthy
	TCP         string   `json:"tcp,omitempty"`  // ":5432": an accepted connection is healthy
	Interval    Duration `json:"interval,omitempty"`
	Timeout     Duration `json:"timeout,omitempty"`
	StartPeriod Duration `json:"startPeriod,omitempty"`
	StartEvery  Duration `json:"startEvery,omitempty"` // start_interval
	Retries     int      `json:"retries,omitempty"`
}

// Defaults of a health check, those of the Compose specification except that
// probing before the first success is quick, so that a deploy does not wait
// for an interval that is meant for steady state.
const (
	DefaultHealthInterval   = 30 * time.Second
	DefaultHealthTimeout    = 30 * time.Second
	DefaultHealthStartEvery = 500 * time.Millisecond
	DefaultHealthRetries    = 3
	DefaultStopGrace        = 10 * time.Second
	// DefaultMonitor is how long a replica without a health check must stay
	// up before a rollout believes it.
	DefaultMonitor = 5 * time.Second
)

// PortMode says who answers on a port.
type PortMode string

const (
	// IngressPort is served by Caddy on machines with the ingress role.
	IngressPort PortMode = "ingress"
	// HostPort is forwarded by the firewall of the machine that runs the replica.
	HostPort PortMode = "host"
)

// Port is one published port: [hostname:]container/protocol, or
// [ip:]published:container/protocol@host.
type Port struct {
	Mode      PortMode `json:"mode"`
	Hostname  string   `json:"hostname,omitempty"`  // ingress only
	HostIP    string   `json:"hostIP,omitempty"`    // host only; an address or a prefix
	Published uint16   `json:"published,omitempty"` // ingress: 0 means 80 or 443
	Container uint16   `json:"container"`
	Protocol  string   `json:"protocol"` // http, https, tcp, udp
}

// Placement limits where replicas may run. Empty means everywhere.
type Placement struct {
	Machines    []string `json:"machines,omitempty"`    // names or ids
	Constraints []string `json:"constraints,omitempty"` // "label.key==value", "label.key!=value"
	Failover    bool     `json:"failover,omitempty"`    // x-failover: re-place replicas of dead machines
}

// UpdatePolicy says how a rollout replaces replicas.
type UpdatePolicy struct {
	Order       Order     `json:"order,omitempty"` // empty: start-first unless a port or volume forbids it
	Parallelism int       `json:"parallelism,omitempty"`
	Delay       Duration  `json:"delay,omitempty"`
	Monitor     *Duration `json:"monitor,omitempty"` // nil: DefaultMonitor
}

// Duration is a time.Duration that reads and writes as text ("1m30s").
type Duration time.Duration

func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Or is d, or fallback where d is zero.
func (d Duration) Or(fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return time.Duration(d)
}

// RevisionID is the id of this content as a revision of a service. The number
// of replicas is not part of it: scaling makes no revision.
func (s ServiceSpec) RevisionID(service string) string {
	s.Replicas = 0
	return DerivedID(RevisionPrefix, service, string(Canonical(s)))
}

// Hash identifies the container that this spec asks for. It is the value of a
// container's spec label: a container whose label differs has to be replaced.
func (c ContainerSpec) Hash() string {
	sum := sha256.Sum256(Canonical(c))
	return idEncoding.EncodeToString(sum[:16])
}

// Canonical is the one JSON text of v: struct order, sorted map keys, no
// spaces. It panics for a type that JSON cannot hold, which is a bug.
func Canonical(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("spec: value without JSON form: " + err.Error())
	}
	return b
}
