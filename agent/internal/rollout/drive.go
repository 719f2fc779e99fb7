package rollout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// errSuperseded ends a drive whose claim does not hold any more: the service
// was removed, another revision won, or another machine drives.
var errSuperseded = errors.New("superseded")

// drive is one rollout under way in this process.
type drive struct {
	*Driver
	rollout spec.Rollout // as claimed; Stage is kept up to date
	name    string       // project/service
	// before and after are the service row around the change; nil when another
	// process made it, or when there was or will be none.
	before, after *spec.Service
	options       plan.Options
	images        plan.Images
	skipHealth    bool
	level         int // services of lower levels come first
	// stays keeps what was reached when a step fails, as for a start.
	stays bool
	// resumable drives stop where they are when the agent ends: they are taken up again.
	resumable bool
	say       *reporter

	mu       sync.Mutex
	version  Version // newest of this machine's store that matters
	verified map[string]bool
	planned  map[string]plan.Step // by replica: the step that made its row
	seen     map[string]Version   // by site: the newest commit that says what runs
	volumes  map[string]bool      // rows that this drive has written
	deaf     map[string]bool      // machines whose engine did not answer
	behind   map[string]bool      // machines that did not say in time that their traffic follows
}

// planView is what the drive plans from.
func (d *drive) planView(s *spec.State) plan.View { return d.viewOf(s, d.images) }

// serviceName is the service's own name, without its project.
func (d *drive) serviceName() string { return d.name[strings.LastIndexByte(d.name, '/')+1:] }

// holds tells whether the claim still holds in a state.
func (d *drive) holds(s *spec.State) error {
	row, ok := s.Rollouts[d.rollout.ID]
	svc, exists := s.Services[d.rollout.Service]
	switch {
	case !ok || !exists:
		return fmt.Errorf("%w: %s was removed", errSuperseded, d.name)
	case row.Stage != d.rollout.Stage:
		return fmt.Errorf("%w: the rollout of %s is %s", errSuperseded, d.name, row.Stage)
	case row.Driver != d.Self:
		return fmt.Errorf("%w: %s drives the rollout of %s now", errSuperseded, s.MachineName(row.Driver), d.name)
	case svc.Revision != target(row):
		return fmt.Errorf("%w: revision %s of %s won", errSuperseded, plan.RevisionName(svc.Revision), d.name)
	}
	if first := firstActive(s, d.rollout.Service); first.ID != d.rollout.ID {
		return fmt.Errorf("%w: %s rolls %s out since before", errSuperseded, s.MachineName(first.Driver), d.name)
	}
	return nil
}

// whileHeld is ctx until the claim does not hold any more, so that no call to a
// machine outlives what it was for.
func (d *drive) whileHeld(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	rows, unsubscribe := d.Store.Subscribe()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer unsubscribe()
		for {
			if err := d.holds(d.Store.State()); err != nil {
				cancel(err)
				return
			}
			select {
			case <-rows:
			case <-ctx.Done():
				return
			}
		}
	})
	return ctx, func() { cancel(nil); wg.Wait() }
}

// target is the revision that a rollout leads to in its stage.
func target(r spec.Rollout) string {
	if r.Stage == spec.RolloutReturning {
		return r.From
	}
	return r.To
}

func active(r spec.Rollout) bool {
	return r.Stage == spec.RolloutRunning || r.Stage == spec.RolloutReturning
}

// firstActive is the one of a service's unfinished rollouts that goes on when
// a partition left several: of those that lead to the service's revision the
// one that began first, then the lower id.
func firstActive(s *spec.State, service string) spec.Rollout {
	var first spec.Rollout
	for _, r := range s.Rollouts {
		if r.Service != service || !active(r) || target(r) != s.Services[service].Revision {
			continue
		}
		if first.ID == "" || r.StartedAt.Before(first.StartedAt) || r.StartedAt.Equal(first.StartedAt) && r.ID < first.ID {
			first = r
		}
	}
	return first
}

// update writes rows while the claim holds.
func (d *drive) update(ctx context.Context, fn func(Tx) error) (Version, error) {
	v, err := d.Store.Update(ctx, func(tx Tx) error {
		if err := d.holds(tx.State()); err != nil {
			return err
		}
		return fn(tx)
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && v.Seq > d.version.Seq { // a transaction that changed nothing has no version
		d.version = v
	}
	return d.version, err
}

func (d *drive) newest() Version {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.version
}

// settle asks for steps and does them until there are none.
func (d *drive) settle(ctx context.Context) error {
	done, replaced := "", false
	for {
		state := d.Store.State()
		if err := d.holds(state); err != nil {
			return err
		}
		steps, err := plan.Converge(d.planView(state), d.rollout.Service, d.settings())
		if err != nil || len(steps) == 0 {
			return err
		}
		batch := next(steps, d.parallelism(state))
		key := keys(batch)
		if key == done {
			return faults.New(faults.Internal, "the rollout of %s makes no progress at: %s", d.name, batch[0].Text).
				WithHint("see what happened: uc events; then deploy again: uc deploy")
		}
		done = key
		replaces := batch[len(batch)-1].Order != ""
		if replaces && replaced {
			if err := sleep(ctx, d.delay(state)); err != nil {
				return err
			}
		}
		if err := d.do(ctx, batch); err != nil {
			return err
		}
		replaced = replaced || replaces
	}
}

func (d *drive) settings() plan.Options {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.options
	o.Rollout, o.Verified, o.Now = d.rollout.ID, map[string]bool{}, d.Now()
	for id := range d.verified {
		o.Verified[id] = true
	}
	return o
}

func (d *drive) policy(s *spec.State) spec.UpdatePolicy {
	return s.Revisions[target(d.rollout)].Spec.Update
}

func (d *drive) parallelism(s *spec.State) int { return max(d.policy(s).Parallelism, 1) }

func (d *drive) delay(s *spec.State) time.Duration { return time.Duration(d.policy(s).Delay) }

// next is the first of the steps that may be done side by side: rows are
// written together, replicas start together and go together, and as many are
// replaced as the policy allows. A volume goes with the step that needs it,
// which is the one after it.
func next(steps []plan.Step, parallelism int) []plan.Step {
	classes := make([]class, len(steps))
	for i := len(steps) - 1; i >= 0; i-- {
		if classes[i] = classOf(steps[i].Kind); steps[i].Kind == plan.KindVolume && i+1 < len(steps) {
			classes[i] = classes[i+1]
		}
	}
	replacements := 0
	for i, s := range steps {
		if classes[i] != classes[0] || replacements == parallelism {
			return steps[:i]
		}
		if s.Order != "" {
			replacements++
		}
	}
	return steps
}

// class is what may be done side by side.
type class int

const (
	rows class = iota
	starts
	removals
	replacements
)

func classOf(k plan.Kind) class {
	switch k {
	case plan.KindStart:
		return starts
	case plan.KindRemove:
		return removals
	case plan.KindReplace, plan.KindMove:
		return replacements
	}
	return rows
}

func keys(steps []plan.Step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(s.Key)
		b.WriteByte('\n')
	}
	return b.String()
}

// do carries a batch out: its rows in one transaction, the rest side by side.
func (d *drive) do(ctx context.Context, batch []plan.Step) error {
	by := map[class][]plan.Step{}
	for _, s := range batch {
		by[classOf(s.Kind)] = append(by[classOf(s.Kind)], s)
	}
	if err := d.write(ctx, by[rows]); err != nil {
		return err
	}
	if err := d.removeAll(ctx, by[removals]); err != nil {
		return err
	}
	if err := each(ctx, by[starts], d.start); err != nil {
		return err
	}
	return each(ctx, by[replacements], d.replace)
}

// each does steps side by side. The first that fails cuts the others off, and
// its error is the one returned: theirs only follow from it.
func each(ctx context.Context, steps []plan.Step, do func(context.Context, plan.Step) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, s := range steps {
		wg.Go(func() {
			if err := do(ctx, s); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
