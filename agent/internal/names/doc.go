// Package names is the DNS of a machine: it answers names under `internal`
// from an immutable Table and forwards the rest to the machine's resolvers. It
// owns the sockets on port 53 of the machine's address. It refuses to answer
// anyone outside the cluster network, keeps no cache, and asks no other machine:
// each answers from its own copy of the state.
//
// Compile makes a Table and is pure; Server swaps it in. DESIGN.md lists the
// names, the order of search and what each answer means.
package names
