// Package statesync carries changes between the stores of a cluster: it pushes
// each local commit to every connected machine at once, and pulls what this
// machine lacks from whoever has it.
//
// It owns the protocol between stores and its connections. It refuses to know
// what rows mean, to merge them (package store does) and to find out who is a
// member: the agent tells it its peers. It is in a folder called sync and not
// a package of that name, which the standard library has.
//
// The protocol is in type core, which does no I/O: events go in, actions come
// out, time and randomness are arguments. Syncer is the thin part around
// it that has sockets and a clock. DESIGN.md beside this file says why.
package statesync
