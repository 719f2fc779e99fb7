package spec

import (
	"crypto/sha256"
	"encoding/base32"
	"io"
	"strings"
)

// Prefixes of ids. An id is prefix + 13 characters of lower-case base32
// (64 bits), short enough to read aloud and long enough never to be met twice
// among the few thousand objects of a cluster.
const (
	MachinePrefix  = "mch_"
	ProjectPrefix  = "prj_"
	ServicePrefix  = "svc_"
	RevisionPrefix = "rev_"
	ReplicaPrefix  = "rep_"
	RolloutPrefix  = "rol_"
	VolumePrefix   = "vol_"
	TicketPrefix   = "tkt_"
	EventPrefix    = "evt_"
	ClusterPrefix  = "cls_"
)

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewID makes an id from 64 bits of random. It returns the reader's error.
func NewID(prefix string, random io.Reader) (string, error) {
	var b [8]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", err
	}
	return prefix + idEncoding.EncodeToString(b[:]), nil
}

// IsID tells whether text is an id with this prefix.
func IsID(prefix, text string) bool {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return false
	}
	b, err := idEncoding.DecodeString(rest)
	return err == nil && len(b) == 8
}

// DerivedID makes the id that follows from parts. Machines that name the same
// thing in two partitions thereby write the same row, so that healing merges
// it and never leaves two things with one name.
func DerivedID(prefix string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return prefix + idEncoding.EncodeToString(sum[:8])
}

// ProjectID is the id of the project with this name.
func ProjectID(name string) string { return DerivedID(ProjectPrefix, name) }

// ServiceID is the id of a service: it follows from its project and name.
func ServiceID(project, name string) string { return DerivedID(ServicePrefix, project, name) }

// EngineVolume is the name that a project's volume has in the engine of its
// machine. An external one has the name it was declared with.
func EngineVolume(project string, v VolumeSpec) string {
	if v.External {
		return v.Name
	}
	return project + "_" + v.Name
}

// VolumeID is the id of a project's volume on one machine.
func VolumeID(project, name, machine string) string {
	return DerivedID(VolumePrefix, project, name, machine)
}
