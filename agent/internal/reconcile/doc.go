// Package reconcile makes what runs on this machine what the replicated state
// wants to run here, for as long as the agent lives, without asking anybody.
//
// It owns this machine's containers: their addresses, their restarts, and the
// rows that say what they do. It refuses to decide where a replica runs or
// which revision (rollout and schedule do), whether a replica is healthy
// (health does), and to touch a container that carries another cluster's
// label or none.
//
// Inputs: the state, what the engine lists, verdicts of health checks, time.
// Outputs: calls of the engine, and spec.Container rows of this machine.
//
// Plan and Status are pure. Reconciler is the loop around them: look, plan,
// do at most one thing per replica, look again. DESIGN.md has the reasons.
package reconcile
