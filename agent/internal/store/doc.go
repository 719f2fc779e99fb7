// Package store holds the replicated rows of this machine: durable in SQLite,
// and in memory as one immutable spec.State for every reader.
//
// It owns the database file, its schema and every line of SQL. It stamps local
// writes with versions of its site, merges what other sites wrote by the laws
// of package crdt, and hands out the changes that others lack. It refuses to
// talk to other machines (package sync does), and it refuses SQL from callers.
//
// Readers call State and never wait. Writers call Update with a function: all
// that it puts and deletes becomes visible and durable at once, or nothing.
// DESIGN.md beside this file gives the layout, the guarantees and what was
// decided against.
package store
