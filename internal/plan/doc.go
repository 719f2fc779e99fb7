// Package plan turns what is wanted, what is there and who lives into ordered
// steps with a reason each. It is pure: equal input gives equal steps in the
// same order on every machine, whatever the order of maps.
//
// Converge is the heart: the steps that make the replicas of one service fit
// its row. Everything else changes rows in a copy of the state and asks
// Converge what that would take. So a plan that a person sees, the rollout
// that carries it out, the takeover of a rollout whose driver died, and the
// repair after a partition healed are one piece of logic.
//
// It refuses to do anything: package rollout writes rows and calls machines.
// It does not choose machines either: a Scheduler does.
package plan
