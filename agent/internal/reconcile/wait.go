package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Result is how a replica that was asked to run turned out.
type Result struct {
	Container spec.Container
	Fault     error    // a *faults.Fault that says why it does not run; nil: it does, and is healthy
	Logs      []string // its last lines where Fault is set and it ran
}

// waiter is somebody who waits for a replica to run, or to be gone.
type waiter struct {
	replica    string
	retire     bool
	skipHealth bool
	exited     *runtime.Container // it ran, and ended, since the wait began
	answer     chan answer        // of one
}

type answer struct {
	result Result
	err    error
}

// errStopped is told to those who wait when the agent ends.
var errStopped = faults.New(faults.Interrupted, "the machine's agent is stopping")

// EnsureReplica runs a replica now, whatever held it back, and returns when it
// is healthy (without a check: when it has run for the revision's monitor
// time), or cannot be: the first exit, failed start or unhealthy verdict
// counts. With skipHealth, running is enough. What is wrong with the container
// is in the Result; the error is about this machine. What the Result says has
// been recorded.
func (r *Reconciler) EnsureReplica(ctx context.Context, replica string, skipHealth bool) (Result, error) {
	a, err := r.await(ctx, &waiter{replica: replica, skipHealth: skipHealth})
	if err != nil || a.err != nil {
		return Result{}, errors.Join(err, a.err)
	}
	if a.result.Fault != nil && a.result.Container.EngineID != "" {
		a.result.Logs = r.lastLines(ctx, a.result.Container)
	}
	return a.result, nil
}

// RetireReplica stops and removes the container of a replica and returns when
// it is gone; at once where there is none. A replica whose row says that it
// should run here, and not that it drains, is a conflict fault.
func (r *Reconciler) RetireReplica(ctx context.Context, replica string) error {
	a, err := r.await(ctx, &waiter{replica: replica, retire: true})
	return errors.Join(err, a.err)
}

func (r *Reconciler) await(ctx context.Context, w *waiter) (answer, error) {
	w.answer = make(chan answer, 1)
	r.tell(func(in *inbox) { in.waiters = append(in.waiters, w) })
	select {
	case a := <-w.answer:
		return a, nil
	case <-r.stopped:
		return answer{}, errStopped
	case <-ctx.Done():
		r.tell(func(in *inbox) { in.left = append(in.left, w) })
		return answer{}, ctx.Err()
	}
}

// Lines of the log that go with a failure, and how long to wait for them. A
// log that a journal keeps arrives some tenths of a second late; following it
// to its end is what waits for the last line.
const (
	failureLines   = 20
	failureLogWait = 2 * time.Second
)

func (r *Reconciler) lastLines(ctx context.Context, c spec.Container) []string {
	ctx, cancel := context.WithTimeout(ctx, failureLogWait)
	defer cancel()
	ended := c.State != spec.ContainerRunning
	var lines []string
	err := r.cfg.Engine.Logs(ctx, c.EngineID, runtime.LogOptions{Tail: failureLines, Follow: ended}, func(l runtime.LogLine) error {
		lines = append(lines, l.Text)
		return nil
	})
	if err != nil && ctx.Err() == nil {
		r.cfg.Log.Debug("last lines of a failed container", "replica", c.Replica, "err", err)
	}
	return lines[max(0, len(lines)-failureLines):]
}

// awaited tells whether somebody waits for a replica.
func (l *loop) awaited(replica string) bool {
	for _, w := range l.waiters {
		if w.replica == replica {
			return true
		}
	}
	return false
}

// answer tells those whose wait is over. failed is why what runs could not be
// recorded: then nobody is told that it does.
func (l *loop) answer(wishes map[string]*Wish, failed error) {
	kept := l.waiters[:0]
	for _, w := range l.waiters {
		a, over := l.outcome(w, wishes[w.replica])
		switch {
		case !over:
			kept = append(kept, w)
		case failed != nil:
			w.answer <- answer{err: fmt.Errorf("record what runs: %w", failed)}
		default:
			w.answer <- a
		}
	}
	clear(l.waiters[len(kept):])
	l.waiters = kept
}

// outcome is the answer to a waiter, if there is one by now.
func (l *loop) outcome(w *waiter, wish *Wish) (answer, bool) {
	switch {
	case l.deaf != nil:
		return answer{err: l.deaf}, true
	case w.exited != nil && wish != nil && w.exited.Spec == wish.Hash:
		return fail(l.row(w.replica), l.exitFault(wish, *w.exited))
	case !l.looked || l.busy[w.replica] != nil:
		return answer{}, false
	case w.retire:
		return l.retired(w, wish)
	case wish == nil:
		return fail(l.row(w.replica), faults.New(faults.NotReady, "replica %s is not one of this machine", w.replica).
			WithHint("see where it is: uc ps"))
	case !wish.Running:
		return fail(l.row(w.replica), faults.New(faults.Conflict, "replica %s is wanted stopped", wish.Replica.Name).
			WithHint("to run it again: uc start %s/%s", wish.Service.Project, wish.Service.Name))
	}
	return l.ran(w, wish)
}

func fail(c spec.Container, fault error) (answer, bool) {
	return answer{result: Result{Container: c, Fault: fault}}, true
}

// row is what was recorded of a replica.
func (l *loop) row(replica string) spec.Container { return l.cfg.Store.State().Containers[replica] }

func (l *loop) retired(w *waiter, wish *Wish) (answer, bool) {
	switch p := l.problems[w.replica]; {
	case wish != nil && !wish.mayRetire():
		return answer{err: faults.New(faults.Conflict, "replica %s is wanted running on this machine", wish.Replica.Name).
			WithHint("see what is under way: uc inspect %s/%s", wish.Service.Project, wish.Service.Name)}, true
	case !l.has(w.replica):
		return answer{}, true
	case p.err != nil:
		return answer{err: fmt.Errorf("retire replica %s: %w", w.replica, p.err)}, true
	}
	return answer{}, false
}

// ran is the answer about a replica that should run and has nothing under way.
func (l *loop) ran(w *waiter, wish *Wish) (answer, bool) {
	row := l.row(w.replica)
	name := wish.Replica.Name
	if p, ok := l.problems[w.replica]; ok && p.hash == wish.Hash {
		return fail(row, faults.Of(fmt.Errorf("replica %s: %w", name, p.err)))
	}
	c, ok := l.container(w.replica)
	if !ok || c.Spec != wish.Hash {
		return answer{}, false
	}
	switch {
	case c.State == runtime.Exited && wish.Draining: // nothing will start it
		return fail(row, l.exitFault(wish, c))
	case c.State != runtime.Running:
		return answer{}, false
	case w.skipHealth:
		return answer{result: Result{Container: row}}, true
	case wish.Revision.Spec.Health == nil:
		due, _ := l.monitored(w, wish)
		return answer{result: Result{Container: row}}, !l.cfg.Now().Before(due)
	}
	return l.judged(wish, row)
}

// judged is the answer about a replica with a health check.
func (l *loop) judged(wish *Wish, row spec.Container) (answer, bool) {
	switch row.Health {
	case spec.HealthHealthy:
		return answer{result: Result{Container: row}}, true
	case spec.HealthUnhealthy:
		said := row.Error
		if said == "" {
			said = "its check failed"
		}
		return fail(row, faults.New(faults.Unhealthy, "replica %s did not become healthy: %s", wish.Replica.Name, said).
			WithHint("uc logs %s/%s", wish.Service.Project, wish.Service.Name))
	}
	return answer{}, false
}

// monitored is when a replica without a check has run for long enough, if it
// runs and somebody waits for that.
func (l *loop) monitored(w *waiter, wish *Wish) (time.Time, bool) {
	up, ok := l.up[w.replica]
	if !ok || w.retire || wish == nil || wish.Revision.Spec.Health != nil {
		return time.Time{}, false
	}
	if c, exists := l.observed[up.container]; !exists || c.State != runtime.Running {
		return time.Time{}, false
	}
	monitor := spec.DefaultMonitor
	if m := wish.Revision.Spec.Update.Monitor; m != nil {
		monitor = time.Duration(*m)
	}
	return up.since.Add(monitor), true
}

// exitFault says how a container that should run has ended.
func (l *loop) exitFault(wish *Wish, c runtime.Container) error {
	after := ""
	if up := l.up[c.Replica]; up.container == c.ID && c.FinishedAt.Sub(c.StartedAt) >= time.Second {
		after = fmt.Sprintf(" after %s", c.FinishedAt.Sub(c.StartedAt).Round(time.Second))
	}
	return faults.New(faults.Unhealthy, "replica %s %s%s", wish.Replica.Name, exitText(c), after).
		WithHint("uc logs %s/%s", wish.Service.Project, wish.Service.Name)
}
