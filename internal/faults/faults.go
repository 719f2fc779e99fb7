// Package faults holds errors for people: a stable code, one sentence, and a
// hint that says what to do next, best as the exact command.
//
// A Fault crosses the API unchanged (see ToWire and FromWire of the server and
// connect packages), so that the CLI prints what the machine said. Errors that
// are no Fault are for operators: they are logged, and shown as they are.
package faults

import (
	"errors"
	"fmt"
	"strings"
)

// Code says what kind of thing went wrong. Codes are stable: scripts may
// depend on them.
type Code string

const (
	Invalid       Code = "invalid"        // the input cannot be right
	NotFound      Code = "not-found"      // no such machine, service, revision, volume
	Conflict      Code = "conflict"       // the name, port or host name is taken
	Busy          Code = "busy"           // another rollout of the service is under way
	NoPlace       Code = "no-place"       // no machine satisfies the placement
	MachineDown   Code = "machine-down"   // a needed machine is down
	NoImage       Code = "no-image"       // no machine has the image and it cannot be pulled
	Engine        Code = "engine"         // Podman is not running or refused
	DiskFull      Code = "disk-full"      // no space left on a machine
	TicketExpired Code = "ticket-expired" //
	TicketUsed    Code = "ticket-used"    //
	TicketAltered Code = "ticket-altered" // the signature does not fit the content
	TicketForeign Code = "ticket-foreign" // of another cluster
	NotMember     Code = "not-member"     // the machine belongs to no cluster yet
	IsMember      Code = "is-member"      // the machine belongs to a cluster already
	NotReady      Code = "not-ready"      // the machine still catches up with the others
	Unhealthy     Code = "unhealthy"      // a replica did not become healthy
	Unreachable   Code = "unreachable"    // no answer over the mesh or the socket
	Interrupted   Code = "interrupted"    // the person or the connection ended it
	NotNixOS      Code = "not-nixos"      // the host has no generations
	Internal      Code = "internal"       // a bug or a fault of the host
)

// Fault is an error for people. Sentence has no capital and no full stop, and
// can stand alone. Hint may be empty; it names the next command where one helps.
type Fault struct {
	Code     Code
	Sentence string
	Hint     string
	Err      error // the cause, for the log
}

// New makes a Fault. A format may hold %w: the cause is then kept for
// errors.Is, and its text is part of the sentence.
func New(code Code, format string, args ...any) *Fault {
	err := fmt.Errorf(format, args...)
	return &Fault{Code: code, Sentence: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint is f with what to do next.
func (f *Fault) WithHint(format string, args ...any) *Fault {
	g := *f
	g.Hint = fmt.Sprintf(format, args...)
	return &g
}

// On is f with a hint that says on which machine to follow it. One that begins
// with uc can be followed anywhere, and stays as it is; "on the machine: " in
// front of one is replaced.
func (f *Fault) On(machine string) *Fault {
	const here = "on the machine: "
	if f.Hint == "" || machine == "" || strings.HasPrefix(f.Hint, "uc ") || strings.HasPrefix(f.Hint, "on ") && !strings.HasPrefix(f.Hint, here) {
		return f
	}
	return f.WithHint("on %s: %s", machine, strings.TrimPrefix(f.Hint, here))
}

// Because is f with its cause, which goes to the log and not to people.
func (f *Fault) Because(err error) *Fault {
	g := *f
	g.Err = err
	return &g
}

func (f *Fault) Error() string { return f.Sentence }

func (f *Fault) Unwrap() error { return f.Err }

// CodeOf is the code of the first Fault in err's chain, or Internal. It is
// empty for a nil error.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if f, ok := errors.AsType[*Fault](err); ok {
		return f.Code
	}
	return Internal
}

// Of is err as a Fault: the first in its chain, with the text of the whole
// chain as its sentence, or an Internal one.
func Of(err error) *Fault {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Fault](err); ok {
		return &Fault{Code: f.Code, Sentence: err.Error(), Hint: f.Hint, Err: f.Err}
	}
	return &Fault{Code: Internal, Sentence: err.Error(), Err: err}
}
