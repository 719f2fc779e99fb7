// Package podman makes a Podman service fulfil runtime.Engine. It owns the
// knowledge of Podman's API and of where that API says less, or other, than
// the truth; nobody else imports Podman. It decides nothing: it never starts,
// restarts or removes a container that it was not told to.
//
// Plain calls go through Podman's own bindings. Streams (logs, exec, load) go
// over the same connection but are spoken here, because the bindings' versions
// block on a channel nobody reads, take over the process's terminal, or repeat
// a request whose body is spent. DESIGN.md lists the traps and the cures.
package podman
