package reconcile

import (
	"fmt"
	"slices"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/spec"
)

// Verdict is what a health check came to.
type Verdict struct {
	Replica   string
	Container string // the engine's id: a verdict of another container says nothing
	StartedAt time.Time
	Health    spec.Health
	Output    string // of the probe that decided, for people
}

// Seen is what is known of a replica beside its container.
type Seen struct {
	Verdict Verdict
	Problem string // why the last action failed; empty where none did
}

// Status is the row of each replica that should or does run on this machine.
// Since stays that of the row before while state and health stay theirs.
func Status(in Input, seen map[string]Seen, before map[string]spec.Container, now time.Time) map[string]spec.Container {
	out := map[string]spec.Container{}
	containers := map[string]runtime.Container{}
	for _, g := range byReplica(in.Observed, in.Cluster) {
		containers[g[0].Replica] = g[0]
	}
	for id, w := range Wishes(in.State, in.Self) {
		row := spec.Container{Replica: id, Machine: in.Self}
		c, exists := containers[id]
		if exists {
			row = describe(w, c, seen[id], before[id])
			row.Machine = in.Self
		} else {
			row.State, row.Error = absent(w, seen[id].Problem)
		}
		if row.Health == "" {
			row.Health = spec.HealthNone
		}
		row.Since = now
		if b, ok := before[id]; ok && b.State == row.State && b.Health == row.Health {
			row.Since = b.Since
		}
		out[id] = row
	}
	return out
}

func absent(w *Wish, problem string) (spec.ContainerState, string) {
	switch {
	case !w.Running:
		return spec.ContainerStopped, ""
	case problem != "":
		return spec.ContainerFailed, problem
	}
	return spec.ContainerPending, ""
}

// describe is a container as a row.
func describe(w *Wish, c runtime.Container, seen Seen, before spec.Container) spec.Container {
	row := spec.Container{
		Replica: c.Replica, EngineID: c.ID, Address: c.Address, Revision: c.Revision, StartedAt: c.StartedAt,
	}
	if c.Spec == w.Hash {
		row.Revision = w.Replica.Revision // what else a revision says needs no other container
	}
	switch {
	case c.State.Alive():
		row.State = spec.ContainerRunning
		row.Health, row.Error = health(w, c, seen.Verdict, before)
	case !w.Running:
		row.State = spec.ContainerStopped
	case seen.Problem != "":
		row.State, row.Error = spec.ContainerFailed, seen.Problem
	case c.State == runtime.Created:
		row.State = spec.ContainerPending
	case c.State == runtime.Lost:
		row.State = spec.ContainerLost
	default:
		row.State, row.ExitCode, row.Error = spec.ContainerExited, c.ExitCode, exitText(c)
	}
	return row
}

// exitText says how a container ended.
func exitText(c runtime.Container) string {
	const killed = 128 + 9
	switch {
	case c.OOM:
		return "killed because it needed more memory than it may have"
	case c.ExitCode == killed:
		return fmt.Sprintf("killed (exit code %d)", killed)
	}
	return fmt.Sprintf("exited with code %d", c.ExitCode)
}

// health is the verdict on this run of a container, and the probe's output
// where that is bad. Without a verdict it is what was recorded of this same
// run: an agent that starts again takes no replica out of traffic by that.
func health(w *Wish, c runtime.Container, v Verdict, before spec.Container) (spec.Health, string) {
	if w.Revision.Spec.Health == nil {
		return spec.HealthNone, ""
	}
	if v.Container != c.ID || !v.StartedAt.Equal(c.StartedAt) {
		sameRun := before.EngineID == c.ID && before.StartedAt.Equal(c.StartedAt) && before.State == spec.ContainerRunning
		if sameRun && before.Health != spec.HealthNone && before.Health != "" {
			return before.Health, before.Error
		}
		return spec.HealthStarting, ""
	}
	if v.Health == spec.HealthUnhealthy {
		return v.Health, v.Output
	}
	return v.Health, ""
}

// Gone are the rows of this machine whose replica is no more and has no
// container: nobody needs them. A replica that another machine took over keeps
// its row, which is that machine's to write.
func Gone(in Input) []string {
	if !in.Ready {
		return nil
	}
	running := map[string]bool{}
	for _, c := range in.Observed {
		running[c.Replica] = true
	}
	var out []string
	for id, row := range in.State.Containers {
		if _, exists := in.State.Replicas[id]; row.Machine == in.Self && !exists && !running[id] {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// Changed are the rows that differ from those that were recorded, by replica.
func Changed(rows, recorded map[string]spec.Container) []spec.Container {
	var out []spec.Container
	for id, row := range rows {
		if r, ok := recorded[id]; !ok || !same(r, row) {
			out = append(out, row)
		}
	}
	slices.SortFunc(out, func(a, b spec.Container) int {
		if a.Replica < b.Replica {
			return -1
		}
		return 1
	})
	return out
}

// same compares rows, but times as moments: one that went through the store
// has lost its clock and zone.
func same(a, b spec.Container) bool {
	if !a.Since.Equal(b.Since) || !a.StartedAt.Equal(b.StartedAt) {
		return false
	}
	a.Since, a.StartedAt = b.Since, b.StartedAt
	return a == b
}
