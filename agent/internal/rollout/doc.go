// Package rollout drives plans over machines: it writes the rows, calls the
// machines, waits for health and for traffic to follow, and returns a service
// to what ran before when a step fails. It also watches: it takes over rollouts
// whose driver died, and makes services fit their rows again.
//
// It owns the rollout rows and the writing of replica rows. It refuses to
// decide what is to be done or where: package plan and package schedule do, and
// it asks them again after every batch. So nothing of a rollout is kept in
// memory that another machine would need to go on with it.
package rollout
