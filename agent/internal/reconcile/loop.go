package reconcile

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// listPatience bounds one look at the engine.
const listPatience = 30 * time.Second

// recordAgain is when rows that could not be written are tried again: a disk
// that has room again tells nobody.
const recordAgain = 10 * time.Second

// loop is what Run's goroutine knows. Nothing else touches it.
type loop struct {
	*Reconciler
	work  *worker
	tasks sync.WaitGroup

	observed  map[string]runtime.Container // by engine id
	listAt    time.Time                    // when to look at the engine next
	looked    bool                         // the engine was asked with success, ever
	first     bool                         // that was for the first time, in this step
	deaf      error                        // why the engine could not be asked
	deafFor   Hold
	busy      map[string]*task // by replica
	holds     map[string]Hold
	problems  map[string]problem
	verdicts  map[string]Verdict
	up        map[string]run
	watched   map[string]Target
	owed      bool // rows could not be written
	waiters   []*waiter
	addresses addresses
}

// task is an action that is under way.
type task struct {
	action  Action
	subnet  netip.Prefix
	address netip.Addr // that it takes, for Run
	cancel  context.CancelFunc
	// stale: somebody asked again since it began, so its failure is no answer.
	stale bool
}

// outcome is how a task ended.
type outcome struct {
	task  *task
	after *runtime.Container // what the replica has now; nil: nothing
	err   error
}

// problem is why an action failed for a wish.
type problem struct {
	hash string
	err  error
}

// run is one run of a container and when it was seen to begin.
type run struct {
	container string
	started   time.Time
	since     time.Time
}

func newLoop(r *Reconciler) *loop {
	return &loop{
		Reconciler: r, work: newWorker(r.cfg),
		observed: map[string]runtime.Container{}, busy: map[string]*task{}, holds: map[string]Hold{},
		problems: map[string]problem{}, verdicts: map[string]Verdict{}, up: map[string]run{}, watched: map[string]Target{},
	}
}

// step looks, plans, begins what is due and tells what is known. It returns
// when to look again if nothing happens before.
func (l *loop) step(ctx context.Context) time.Time {
	l.first = false
	l.take(l.receive())
	if now := l.cfg.Now(); !now.Before(l.listAt) {
		l.list(ctx, now)
	}
	in := l.input()
	var plan []Action
	if l.looked { // before the first look, everything would seem to be missing
		plan = Plan(in)
	}
	wishes := Wishes(in.State, in.Self)
	l.dropStale(wishes)
	l.tidy(wishes)
	l.begin(ctx, plan, in)
	l.noteRuns()
	l.followHealth(wishes)
	err := l.record(ctx, in)
	l.owed = err != nil
	l.answer(wishes, err)
	return l.next(plan, wishes)
}

func (l *loop) input() Input {
	in := Input{
		Self: l.cfg.Machine, Cluster: l.cfg.Cluster, State: l.cfg.Store.State(), Ready: l.cfg.Store.Ready(),
		Holds: l.holds, Retiring: map[string]bool{},
	}
	for _, c := range l.observed {
		in.Observed = append(in.Observed, c)
	}
	for _, w := range l.waiters {
		if w.retire {
			in.Retiring[w.replica] = true
		}
	}
	return in
}

// take applies what others told.
func (l *loop) take(in inbox) {
	for _, o := range in.done {
		l.finish(o)
	}
	for _, v := range in.verdicts {
		l.verdicts[v.Replica] = v
	}
	if len(in.images) > 0 {
		in.pokes = append(in.pokes, l.replicasOf(in.images)...)
	}
	for id, p := range l.problems {
		if in.network && (errors.Is(p.err, runtime.ErrNoBridge) || errors.Is(p.err, runtime.ErrNetworkBusy)) {
			in.pokes = append(in.pokes, id)
		}
	}
	for _, replica := range in.pokes {
		l.anew(replica)
	}
	for _, w := range in.waiters {
		l.anew(w.replica)
		l.waiters = append(l.waiters, w)
	}
	l.waiters = slices.DeleteFunc(l.waiters, func(w *waiter) bool { return slices.Contains(in.left, w) })
	if in.relist || len(in.waiters) > 0 && l.deaf != nil {
		l.listAt = time.Time{}
	}
}

// anew forgets what went wrong with a replica, so that it is tried at once.
func (l *loop) anew(replica string) {
	delete(l.holds, replica)
	delete(l.problems, replica)
	if t := l.busy[replica]; t != nil {
		t.stale = true
	}
}

func (l *loop) replicasOf(images []string) []string {
	var out []string
	for id, w := range Wishes(l.cfg.Store.State(), l.cfg.Machine) {
		if slices.ContainsFunc(images, func(i string) bool { return plainName(i) == plainName(w.Revision.Spec.Container.Image) }) {
			out = append(out, id)
		}
	}
	return out
}

// plainName is an image's name without what engines add to a short one.
func plainName(image string) string {
	for _, prefix := range []string{"localhost/", "docker.io/library/", "docker.io/"} {
		if short, ok := strings.CutPrefix(image, prefix); ok {
			image = short
			break
		}
	}
	return strings.TrimSuffix(image, ":latest")
}

// list looks at the engine. What is known of replicas under way is newer than
// any list, and stays.
func (l *loop) list(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, listPatience)
	defer cancel()
	list, err := l.cfg.Engine.List(ctx)
	if err != nil {
		if l.deaf == nil {
			l.cfg.Log.Warn("the container engine does not answer", "err", err)
		}
		l.deaf, l.deafFor = err, l.deafFor.Next("list", now, l.cfg.Random())
		l.listAt = l.deafFor.Until
		return
	}
	if l.deaf != nil {
		l.cfg.Log.Info("the container engine answers again")
	}
	l.deaf, l.deafFor = nil, Hold{}
	l.listAt = now.Add(l.cfg.Resync)
	before := l.observed
	l.observed = map[string]runtime.Container{}
	for id, c := range before {
		if l.busy[c.Replica] != nil {
			l.observed[id] = c
		}
	}
	for _, c := range list {
		if l.busy[c.Replica] == nil {
			l.observe(c)
			l.noteExit(c, before[c.ID].State.Alive())
		}
	}
	l.first, l.looked = !l.looked, true
}

func (l *loop) observe(c runtime.Container) {
	l.observed[c.ID] = c
	if c.Address.IsValid() {
		l.addresses.seen(c.Address)
	}
}

// noteExit tells those who wait for a replica to run that it ran and ended.
// Its next start waits until they have read this run's last lines.
func (l *loop) noteExit(c runtime.Container, ran bool) {
	if c.State != runtime.Exited || !ran {
		return
	}
	for _, w := range l.waiters {
		if w.replica != c.Replica || w.retire || w.exited != nil {
			continue
		}
		w.exited = &c
		now, start := l.cfg.Now(), Action{Kind: Start, Replica: c.Replica, Spec: c.Spec}
		h := l.holds[c.Replica]
		if h.Key != start.Key() {
			h = Hold{Key: start.Key(), Count: 1, At: now}
		}
		if read := now.Add(failureLogWait); h.Until.Before(read) {
			h.Until = read
		}
		l.holds[c.Replica] = h
	}
}

// finish applies the end of a task.
func (l *loop) finish(o outcome) {
	t := o.task
	id := t.action.Replica
	delete(l.busy, id)
	delete(l.observed, t.action.Container.ID)
	if o.after != nil {
		l.observe(*o.after)
	}
	if o.err != nil {
		l.listAt = time.Time{} // what is there now is not certain
	}
	if t.stale && o.err != nil {
		return
	}
	l.holds[id] = l.holds[id].Next(t.action.Key(), l.cfg.Now(), l.cfg.Random())
	delete(l.problems, id)
	if o.err != nil {
		l.problems[id] = problem{t.action.Spec, o.err}
		return
	}
	if o.after != nil {
		l.noteExit(*o.after, t.action.Kind != Stop)
	}
}

// dropStale ends tasks whose wish has changed or gone: an image that nobody
// wants any more need not be waited for.
func (l *loop) dropStale(wishes map[string]*Wish) {
	for id, t := range l.busy {
		w := wishes[id]
		starts := t.action.Kind == Run || t.action.Kind == Start
		if starts && (w == nil || !w.Running || w.Hash != t.action.Spec) {
			t.stale = true
			t.cancel()
		}
	}
}

// tidy forgets what is known of replicas that are no more.
func (l *loop) tidy(wishes map[string]*Wish) {
	known := map[string]bool{}
	for id := range l.holds {
		known[id] = true
	}
	for id := range l.verdicts {
		known[id] = true
	}
	for id := range l.up {
		known[id] = true
	}
	for id := range known {
		if wishes[id] == nil && l.busy[id] == nil && !l.has(id) && !l.awaited(id) {
			delete(l.holds, id)
			delete(l.problems, id)
			delete(l.verdicts, id)
			delete(l.up, id)
		}
	}
}

// has tells whether a replica has a container.
func (l *loop) has(replica string) bool {
	_, ok := l.container(replica)
	return ok
}

// container is the one that stands for a replica.
func (l *loop) container(replica string) (runtime.Container, bool) {
	var own []runtime.Container
	for _, c := range l.observed {
		if c.Replica == replica {
			own = append(own, c)
		}
	}
	if groups := byReplica(own, l.cfg.Cluster); len(groups) > 0 {
		return groups[0][0], true
	}
	return runtime.Container{}, false
}

// begin starts a task for each action that is due.
func (l *loop) begin(ctx context.Context, plan []Action, in Input) {
	now := l.cfg.Now()
	for _, a := range plan {
		if l.busy[a.Replica] != nil || a.NotBefore.After(now) || l.deaf != nil {
			continue
		}
		t := &task{action: a, subnet: in.subnet()}
		if a.Kind == Run {
			address, err := l.addresses.take(in.subnet(), l.taken())
			if err != nil {
				l.problems[a.Replica] = problem{a.Spec, err}
				l.holds[a.Replica] = l.holds[a.Replica].Next(a.Key(), now, l.cfg.Random())
				continue
			}
			t.address = address
		}
		l.busy[a.Replica] = t
		l.cfg.Log.Debug("begin", "action", string(a.Kind), "replica", a.Replica, "reason", a.Reason)
		taskCtx, cancel := context.WithCancel(ctx)
		t.cancel = cancel
		l.tasks.Go(func() {
			defer cancel()
			after, err := l.work.do(taskCtx, t)
			l.tell(func(in *inbox) { in.done = append(in.done, outcome{t, after, err}) })
		})
	}
}

// taken are the addresses that containers have or are about to get.
func (l *loop) taken() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, c := range l.observed {
		out[c.Address] = true
	}
	for _, t := range l.busy {
		out[t.address] = true
	}
	return out
}

// noteRuns notes since when each container runs. Those that ran when the agent
// started tell it themselves.
func (l *loop) noteRuns() {
	for _, c := range l.observed {
		if c.State != runtime.Running {
			continue
		}
		if u := l.up[c.Replica]; u.container == c.ID && u.started.Equal(c.StartedAt) {
			continue
		}
		since := l.cfg.Now()
		if l.first {
			since = c.StartedAt
		}
		l.up[c.Replica] = run{c.ID, c.StartedAt, since}
	}
}

// record writes the rows that changed.
func (l *loop) record(ctx context.Context, in Input) error {
	if !l.looked || l.deaf != nil {
		return nil // what runs is not known
	}
	seen := map[string]Seen{}
	for id, w := range Wishes(in.State, in.Self) {
		s := Seen{Verdict: l.verdicts[id]}
		if p, ok := l.problems[id]; ok && p.hash == w.Hash {
			s.Problem = faults.Of(p.err).Sentence
		}
		seen[id] = s
	}
	rows := Status(in, seen, in.State.Containers, l.cfg.Now().UTC())
	changed, gone := Changed(rows, in.State.Containers), Gone(in)
	gone = slices.DeleteFunc(gone, func(id string) bool { return l.busy[id] != nil })
	if len(changed)+len(gone) == 0 {
		return nil
	}
	err := l.cfg.Recorder.Record(ctx, changed, gone)
	if err != nil && ctx.Err() == nil {
		l.cfg.Log.Error("record what runs", "err", err)
	}
	return err
}

// next is when something is due.
func (l *loop) next(plan []Action, wishes map[string]*Wish) time.Time {
	next := l.listAt
	if again := l.cfg.Now().Add(recordAgain); l.owed && again.Before(next) {
		next = again
	}
	for _, a := range plan {
		if l.busy[a.Replica] == nil && a.NotBefore.Before(next) && l.deaf == nil {
			next = a.NotBefore
		}
	}
	for _, w := range l.waiters {
		if due, ok := l.monitored(w, wishes[w.replica]); ok && due.Before(next) && due.After(l.cfg.Now()) {
			next = due
		}
	}
	return next
}

// followHealth has the running containers probed. Health is also told of a changed check: that changes no container.
func (l *loop) followHealth(wishes map[string]*Wish) {
	for id, w := range wishes {
		c, ok := l.container(id)
		check := w.Revision.Spec.Health
		if check == nil || !ok || c.State != runtime.Running || c.Spec != w.Hash || !w.Running {
			continue
		}
		t := Target{Container: c.ID, StartedAt: c.StartedAt, Address: c.Address, Check: *check}
		if !sameTarget(l.watched[id], t) {
			l.watched[id] = t
			l.cfg.Health.Watch(id, t)
		}
	}
	for id, t := range l.watched {
		w := wishes[id]
		if c, ok := l.observed[t.Container]; !ok || !c.State.Alive() || w == nil || w.Revision.Spec.Health == nil || !w.Running {
			delete(l.watched, id)
			l.cfg.Health.Forget(id)
		}
	}
}

func sameTarget(a, b Target) bool {
	return a.Container == b.Container && a.StartedAt.Equal(b.StartedAt) && a.Address == b.Address &&
		string(spec.Canonical(a.Check)) == string(spec.Canonical(b.Check))
}
