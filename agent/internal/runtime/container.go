package runtime

import (
	"maps"
	"net/netip"
	"time"

	"uncloud/internal/spec"
)

// Labels that tell which replica a container was made for.
const (
	LabelCluster  = "uncloud.cluster"  // cluster id
	LabelProject  = "uncloud.project"  // project name
	LabelService  = "uncloud.service"  // service id
	LabelReplica  = "uncloud.replica"  // replica id
	LabelRevision = "uncloud.revision" // revision id at creation
	LabelSpec     = "uncloud.spec"     // spec.ContainerSpec.Hash
	LabelAddress  = "uncloud.address"  // its static address
)

// ContainerRequest is everything an engine needs to make a container.
type ContainerRequest struct {
	Cluster  string
	Project  string
	Service  string // id
	Replica  string
	Revision string
	Name     string // of the container in the engine, unique on the machine
	Hostname string // unless Spec has one
	Spec     spec.ContainerSpec
	Network  string
	Address  netip.Addr
	DNS      netip.Addr
	Search   []string          // DNS search domains
	Env      map[string]string // in addition to Spec.Env, and stronger
	// Volumes maps a volume's name within the project to its name in the
	// engine, for each mount of type volume.
	Volumes map[string]string
}

// Labels are those of the spec and those that identify the container. The
// latter are stronger: a container cannot claim to be another replica.
func (r ContainerRequest) Labels() map[string]string {
	l := maps.Clone(r.Spec.Labels)
	if l == nil {
		l = map[string]string{}
	}
	l[LabelCluster] = r.Cluster
	l[LabelProject] = r.Project
	l[LabelService] = r.Service
	l[LabelReplica] = r.Replica
	l[LabelRevision] = r.Revision
	l[LabelSpec] = r.Spec.Hash()
	l[LabelAddress] = r.Address.String()
	return l
}

// Environment is that of the spec with Env over it.
func (r ContainerRequest) Environment() map[string]string {
	env := map[string]string{}
	maps.Copy(env, r.Spec.Env)
	maps.Copy(env, r.Env)
	return env
}

// State is what a container does.
type State string

const (
	Created  State = "created" // never started
	Running  State = "running"
	Paused   State = "paused"
	Stopping State = "stopping" // the stop signal was sent
	Exited   State = "exited"   // ExitCode is known
	// Lost: the machine lost power while it ran. No exit code is known,
	// whatever the engine says.
	Lost State = "lost"
	// Orphaned: the engine believes that it runs, but its monitor is dead, so
	// no end of it would ever be noticed. Only Stop and Start cure that.
	Orphaned State = "orphaned"
	Removing State = "removing"
)

// Alive tells whether a process of the container may be there.
func (s State) Alive() bool {
	return s == Running || s == Paused || s == Stopping || s == Orphaned
}

// Container is what an engine says of one container.
type Container struct {
	ID         string
	Name       string
	Cluster    string
	Project    string
	Service    string
	Replica    string
	Revision   string
	Spec       string // hash
	Address    netip.Addr
	Image      string
	State      State
	ExitCode   int       // only in state Exited
	OOM        bool      // killed for want of memory
	StartedAt  time.Time // zero: never; whole seconds, UTC, as FinishedAt
	FinishedAt time.Time // zero: unknown or not yet
}

// FromLabels is the part of a container that its labels tell.
func FromLabels(l map[string]string) Container {
	address, _ := netip.ParseAddr(l[LabelAddress]) // invalid: a container without address is replaced
	return Container{
		Cluster:  l[LabelCluster],
		Project:  l[LabelProject],
		Service:  l[LabelService],
		Replica:  l[LabelReplica],
		Revision: l[LabelRevision],
		Spec:     l[LabelSpec],
		Address:  address,
	}
}
