// Package runtime says what a container engine must do for a machine, and
// ships an in-memory twin of one (Fake) for every test that needs containers
// without an engine.
//
// It owns the contract and its words: request, container, state, label. It
// decides nothing: what should run, when to start again and which address to
// take is the business of package reconcile. It talks to no engine either:
// package runtime/podman does.
//
// An engine keeps no intent. What it is asked to make carries labels that say
// for which replica it was made, so that an agent that starts with an empty
// memory finds its containers again.
package runtime
