package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/plan"
	"uncloud/internal/spec"
)

// When Supervise looks. A look in the middle of a partition's healing, or while
// machines come up one after another, would move replicas for nothing.
const (
	// storeQuiet is how long no commit has come.
	storeQuiet = time.Second
	// quietAtMost bounds waiting for quiet in a cluster that never is.
	quietAtMost = 10 * time.Second
	// membersStable is how long nobody came or went.
	membersStable = 3 * time.Second
	// lookAnyway is the safety net below the wakes.
	lookAnyway = time.Minute
	// orphanAge is how old a row has to be before it is taken for one whose
	// service was removed, and not for one whose service is on its way here.
	orphanAge = time.Minute
	// repairs bounds how many services are made to fit at a time.
	repairs = 4
)

// trouble is a service that could not be made to fit.
type trouble struct {
	Note // without a code: nothing for people
	attempts
	// waits tells that the service does not fit, and is tried again after a pause.
	waits bool
}

// Note is something that a service suffers from.
type Note struct {
	Service string // id
	Code    string
	Text    string
}

// Notes are the services that could not be made to fit their rows, by id.
func (d *Driver) Notes() []Note {
	d.mu.Lock()
	defer d.mu.Unlock()
	notes := make([]Note, 0, len(d.troubles))
	for _, id := range slices.Sorted(maps.Keys(d.troubles)) {
		if n := d.troubles[id].Note; n.Code != "" {
			notes = append(notes, n)
		}
	}
	return notes
}

// Supervise takes over rollouts whose driver is gone, and makes services fit
// their rows: after a partition healed, when a machine joined or was removed,
// where failover is asked for. It acts on the living machine with the lowest
// id; what an earlier process of this machine left unfinished it resumes
// wherever it is. It returns when ctx ends and nothing of it runs any more.
func (d *Driver) Supervise(ctx context.Context) error {
	rows, cancel := d.Store.Subscribe()
	defer cancel()
	members, stop := d.Members.Subscribe()
	defer stop()
	var work sync.WaitGroup
	defer work.Wait()
	room := make(chan struct{}, repairs)
	q := newQuiet(time.Now())
	timer := time.NewTimer(q.due(time.Now()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.poke:
			q.changed(time.Now())
		case <-rows:
			q.changed(time.Now())
		case <-members:
			q.moved(time.Now())
		case <-timer.C:
			if d.Store.Ready() {
				d.turn.Begin()
				q.looked(time.Now(), d.look(ctx, &work, room))
				d.turn.End()
			} else {
				q.changed(time.Now())
			}
		}
		timer.Reset(q.due(time.Now()))
	}
}

// Stalled is for how long Supervise has been at one look, 0 while it waits. A
// look writes rows and waits for no machine.
func (d *Driver) Stalled() time.Duration { return d.turn.Took() }

// quiet says when to look next.
type quiet struct {
	next        time.Time // without any wake
	first, last time.Time // changes of rows that were not looked at; zero: none
	members     time.Time // last change
}

func newQuiet(now time.Time) *quiet { return &quiet{first: now, last: now, members: now} }

func (q *quiet) changed(now time.Time) {
	if q.last = now; q.first.IsZero() {
		q.first = now
	}
}

func (q *quiet) moved(now time.Time) {
	q.members = now
	q.changed(now)
}

// looked notes a look; again is when something has to be tried again, or zero.
func (q *quiet) looked(now, again time.Time) {
	q.first, q.next = time.Time{}, now.Add(lookAnyway)
	if soonest := now.Add(firstPause); !again.IsZero() && again.Before(soonest) {
		again = soonest
	}
	if !again.IsZero() && again.Before(q.next) {
		q.next = again
	}
}

// due is how long to wait for the next look.
func (q *quiet) due(now time.Time) time.Duration {
	at := q.next
	if !q.first.IsZero() {
		at = q.last.Add(storeQuiet)
		if latest := q.first.Add(quietAtMost); latest.Before(at) {
			at = latest
		}
	}
	if stable := q.members.Add(membersStable); at.Before(stable) {
		at = stable
	}
	return max(at.Sub(now), 0)
}

// nudge makes Supervise look again, as after a rollout ended.
func (d *Driver) nudge() {
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

// look begins what has to be done and returns when to look again at the latest,
// or zero.
func (d *Driver) look(ctx context.Context, work *sync.WaitGroup, room chan struct{}) (again time.Time) {
	state := d.Store.State()
	lead := state.Leads(d.Members.Alive(), d.Self)
	if !lead {
		d.forgetNotes() // they are another machine's now
	}
	for _, id := range slices.Sorted(maps.Keys(state.Services)) {
		dr, err := d.take(ctx, state, id, lead)
		if err != nil && ctx.Err() == nil {
			d.complain(state.Services[id], err)
		}
		if dr == nil {
			continue
		}
		work.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			// A look waits for no machine, so who has the image is asked only now.
			revisions := d.Store.State().Revisions
			dr.images = d.imagesFor(ctx, []spec.ServiceSpec{revisions[dr.rollout.From].Spec, revisions[dr.rollout.To].Spec})
			switch err := dr.carry(ctx); {
			case err == nil:
				d.recover(id)
			case ctx.Err() == nil:
				d.rest(state.Services[id], err)
			}
		})
	}
	together := d.together(state)
	if lead {
		err := d.sweep(ctx)
		if together {
			err = errors.Join(err, d.forgetFirsts(ctx))
		}
		if err != nil && ctx.Err() == nil {
			d.Log.Warn("rows of removed services are left", "err", err)
		}
	}
	return d.nextTry(state)
}

// take claims what there is to do for a service, or returns nil.
func (d *Driver) take(ctx context.Context, s *spec.State, service string, lead bool) (*drive, error) {
	d.claiming.Lock()
	defer d.claiming.Unlock()
	for _, id := range slices.Sorted(maps.Keys(s.Rollouts)) {
		r := s.Rollouts[id]
		if r.Service != service || !active(r) {
			continue
		}
		if d.driven(s, r) || !lead && r.Driver != d.Self {
			return nil, nil
		}
		if !d.dependenciesRest(s, service) || !d.mayTry(s, service) {
			return nil, nil
		}
		return d.resume(ctx, r)
	}
	if !lead {
		return nil, nil
	}
	return d.repair(ctx, s, service)
}

// dependenciesRest tells whether no service that this one depends on is rolled out.
func (d *Driver) dependenciesRest(s *spec.State, service string) bool {
	svc := s.Services[service]
	for _, name := range s.Revisions[svc.Revision].Spec.DependsOn {
		dep := spec.ServiceID(svc.Project, name)
		for _, r := range s.Rollouts {
			if r.Service == dep && dep != service && active(r) {
				return false
			}
		}
	}
	return true
}

// resume takes over a rollout that nobody drives. What its driver did is told
// by the rows, so the drive begins by asking what is left to do.
func (d *Driver) resume(ctx context.Context, r spec.Rollout) (*drive, error) {
	var dr *drive
	v, err := d.Store.Update(ctx, func(tx Tx) error {
		dr = nil
		now, ok := tx.State().Rollouts[r.ID]
		if !ok || !active(now) || d.driven(tx.State(), now) {
			return nil
		}
		if firstActive(tx.State(), r.Service).ID != r.ID {
			now.Stage, now.EndedAt = spec.RolloutSuperseded, d.Now()
			now.Error = "the service went another way while its driver was gone"
			return tx.Put(now)
		}
		former := tx.State().MachineName(now.Driver)
		now.Driver = d.Self
		svc := tx.State().Services[r.Service]
		dr = d.newDrive(now, svc.Project+"/"+svc.Name)
		if err := tx.Put(now); err != nil {
			return err
		}
		return d.event(tx, "rollout.resumed", r.Service, fmt.Sprintf("the rollout of %s goes on; %s drove it", dr.name, former))
	})
	if err != nil || dr == nil {
		return nil, err
	}
	dr.version, dr.resumable = v, true
	d.hold(r.ID)
	return dr, nil
}

// repair claims a rollout that makes the replicas of a service fit its row, if
// they do not. Nothing is written while there is no place for one.
func (d *Driver) repair(ctx context.Context, s *spec.State, service string) (*drive, error) {
	if settled, err := d.settleFirst(ctx, s, service); settled || err != nil {
		return nil, err
	}
	var steps []plan.Step
	if !s.NeverRan()[service] {
		var err error
		if steps, err = plan.Converge(d.viewOf(s, nil), service, plan.Options{}); err != nil {
			return nil, err
		}
	}
	if len(steps) == 0 {
		d.fits(service)
		return nil, nil
	}
	if !d.mayTry(s, service) {
		return nil, nil
	}
	var dr *drive
	v, err := d.Store.Update(ctx, func(tx Tx) error {
		dr = nil
		svc, ok := tx.State().Services[service]
		if !ok {
			return nil
		}
		if err := d.free(tx, svc.Project+"/"+svc.Name, service, false); err != nil {
			return err
		}
		r, err := d.newRollout(service, svc.Revision, svc.Revision)
		if err != nil {
			return err
		}
		dr = d.newDrive(r, svc.Project+"/"+svc.Name)
		return tx.Put(r)
	})
	if faults.CodeOf(err) == faults.Busy {
		return nil, nil
	}
	if err != nil || dr == nil {
		return nil, err
	}
	dr.version, dr.resumable = v, true
	d.hold(dr.rollout.ID)
	d.Log.Info("service does not fit its row", "service", dr.name, "rollout", dr.rollout.ID, "step", steps[0].Text, "reason", steps[0].Reason)
	return dr, nil
}

// sweep deletes what belongs to services that were removed while a partition
// made or changed it. The machines end the containers.
func (d *Driver) sweep(ctx context.Context) error {
	if len(d.orphans(d.Store.State())) == 0 {
		return nil
	}
	_, err := d.Store.Update(ctx, func(tx Tx) error {
		for _, row := range d.orphans(tx.State()) {
			if err := tx.Delete(row.Table(), row.Key()); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// orphans are the rows of services that do not exist, except young ones: the
// row of their service may be on its way here.
func (d *Driver) orphans(s *spec.State) (rows []spec.Row) {
	young := func(t time.Time) bool { return d.Now().Sub(t) < orphanAge }
	for _, r := range s.Replicas {
		if _, ok := s.Services[r.Service]; !ok && !young(r.CreatedAt) {
			rows = append(rows, r)
		}
	}
	for _, r := range s.Rollouts {
		if _, ok := s.Services[r.Service]; !ok && !young(r.StartedAt) {
			rows = append(rows, r)
		}
	}
	for _, r := range s.Revisions {
		if _, ok := s.Services[r.Service]; !ok && !young(r.CreatedAt) {
			rows = append(rows, r)
		}
	}
	return rows
}

// mayTry tells whether a service's pause is over.
func (d *Driver) mayTry(s *spec.State, service string) bool {
	around := surroundings(s, d.Members.Alive(), service)
	d.mu.Lock()
	defer d.mu.Unlock()
	t, troubled := d.troubles[service]
	if !troubled || !time.Now().Before(t.next(s.Services[service], around)) {
		return true
	}
	t.waits = true
	d.troubles[service] = t
	return false
}

// complain notes why a service cannot be made to fit its row.
func (d *Driver) complain(svc spec.Service, err error) {
	f := faults.Of(err)
	d.mu.Lock()
	t := d.troubles[svc.ID]
	news := t.Text != f.Sentence
	t.Note, t.waits = Note{svc.ID, string(f.Code), f.Sentence}, false
	d.troubles[svc.ID] = t
	d.mu.Unlock()
	if news {
		d.Log.Warn("service does not fit its row", "service", svc.Project+"/"+svc.Name, "err", err)
	}
}

// rest begins the pause of a service after an attempt failed that was made for
// the row tried. Every failure counts, whatever the engine called it. One that
// was superseded is nobody's trouble, and counts all the same: two machines
// that each take the other for dead would take a rollout from one another for ever.
func (d *Driver) rest(tried spec.Service, err error) {
	state := d.Store.State()
	svc, exists := state.Services[tried.ID]
	superseded := errors.Is(err, errSuperseded)
	if !exists || superseded && svc != tried {
		return // it was removed, or went another way
	}
	if !superseded {
		d.complain(svc, err)
	}
	around := surroundings(state, d.Members.Alive(), svc.ID)
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.troubles[svc.ID]
	t.attempts, t.waits = t.failed(svc, around, time.Now()), true
	d.troubles[svc.ID] = t
}

// forgetNotes leaves the complaints to another machine.
func (d *Driver) forgetNotes() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.troubles {
		d.calm(id)
	}
}

// fits notes that a service fits its row as it is. Its failures still count for
// a while: what fits for a moment after each of them would else never pause.
func (d *Driver) fits(service string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calm(service)
}

// calm takes a complaint back. It needs d.mu.
func (d *Driver) calm(service string) {
	t, troubled := d.troubles[service]
	switch {
	case !troubled:
	case t.over(time.Now()):
		delete(d.troubles, service)
	default:
		t.Note, t.waits = Note{}, false
		d.troubles[service] = t
	}
}

// recover forgets all failures: a rollout of the service succeeded.
func (d *Driver) recover(service string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.troubles, service)
}

// nextTry is when the first pause ends, or zero.
func (d *Driver) nextTry(s *spec.State) (first time.Time) {
	alive := d.Members.Alive()
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, t := range d.troubles {
		svc, ok := s.Services[id]
		if !ok {
			delete(d.troubles, id)
			continue
		}
		if !t.waits {
			continue
		}
		if next := t.next(svc, surroundings(s, alive, id)); first.IsZero() || next.Before(first) {
			first = next
		}
	}
	return first
}
