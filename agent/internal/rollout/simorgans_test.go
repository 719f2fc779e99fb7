package rollout

import (
	"context"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// simView is a machine's store as its driver sees it.
type simView struct {
	m   *simMachine
	run int // of the agent
}

func (v simView) State() *spec.State { return v.m.replica().State() }

func (v simView) Ready() bool { return true }

func (v simView) Update(ctx context.Context, fn func(Tx) error) (Version, error) {
	if err := v.m.call(v.run, "before update"); err != nil {
		return Version{}, err
	}
	version, err := v.m.replica().Update(ctx, fn)
	if err == nil {
		err = v.m.call(v.run, "after update")
	}
	return version, err
}

func (v simView) Subscribe() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	v.m.w.mu.Lock()
	v.m.subs[ch] = true
	v.m.store.join(ch)
	v.m.w.mu.Unlock()
	return ch, func() {
		v.m.w.mu.Lock()
		delete(v.m.subs, ch)
		v.m.store.leave(ch)
		v.m.w.mu.Unlock()
	}
}

type simMembers struct{ m *simMachine }

func (v simMembers) Alive() spec.Alive {
	v.m.w.mu.Lock()
	defer v.m.w.mu.Unlock()
	alive := spec.Alive{v.m.id: true}
	for id, o := range v.m.w.machines {
		if o.up && o.side == v.m.side {
			alive[id] = true
		}
	}
	return alive
}

func (v simMembers) Subscribe() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	v.m.w.mu.Lock()
	v.m.w.watchers[ch] = true
	v.m.w.mu.Unlock()
	return ch, func() {
		v.m.w.mu.Lock()
		delete(v.m.w.watchers, ch)
		v.m.w.mu.Unlock()
	}
}

// simPeers calls the machines on the same side.
type simPeers struct {
	m   *simMachine
	run int
}

func (p simPeers) to(id string) (*simMachine, error) {
	p.m.w.mu.Lock()
	defer p.m.w.mu.Unlock()
	o := p.m.w.machines[id]
	if o == nil || !o.up || o.side != p.m.side {
		return nil, faults.New(faults.Unreachable, "%s does not answer", id)
	}
	return o, nil
}

func (p simPeers) around(ctx context.Context, what, machine string, do func(*simMachine) error) error {
	if err := p.m.call(p.run, "before "+what); err != nil {
		return err
	}
	o, err := p.to(machine)
	if err == nil {
		err = do(o)
	}
	if crashed := p.m.call(p.run, "after "+what); crashed != nil {
		return crashed
	}
	return err
}

func (p simPeers) RunReplica(ctx context.Context, machine, replica string, _ Version, skipHealth bool) (verdict Verdict, err error) {
	err = p.around(ctx, "run", machine, func(o *simMachine) error {
		for {
			o.w.mu.Lock()
			c, changed := o.containers[replica], o.changed
			o.w.mu.Unlock()
			r, ok := o.replica().State().Replicas[replica]
			if !ok {
				return faults.New(faults.NotReady, "no replica %s", replica)
			}
			fits := c != nil && spec.SameContainer(o.replica().State(), c.revision, r.Revision)
			failed := o.replica().State().Containers[replica].State == spec.ContainerFailed
			switch {
			case !fits && failed:
				verdict = Verdict{Fault: faults.New(faults.NoImage, "no such image")}
				return nil
			case !fits:
			case c.state == spec.ContainerExited:
				verdict = Verdict{Fault: faults.New(faults.Unhealthy, "exited with code 1"), Logs: []string{"panic: no config"}}
				return nil
			case c.health == spec.HealthUnhealthy:
				verdict = Verdict{Fault: faults.New(faults.Unhealthy, "did not become healthy"), Logs: []string{"connection refused"}}
				return nil
			case c.health == spec.HealthHealthy || skipHealth:
				// Wait for the row, as the machine's own answer would.
				return nil
			}
			if _, err := p.to(machine); err != nil {
				return err
			}
			select {
			case <-changed:
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return verdict, err
}

func (p simPeers) RetireReplica(ctx context.Context, machine, replica string, _ Version) error {
	return p.around(ctx, "retire", machine, func(o *simMachine) error {
		if _, exists := o.running()[replica]; exists {
			o.end(ctx, replica)
		}
		return ctx.Err()
	})
}

func (p simPeers) RemoveVolume(ctx context.Context, v spec.Volume) error {
	return p.around(ctx, "volume", v.Machine, func(o *simMachine) error {
		if n := len(o.running()); n > 0 {
			p.m.w.t.Errorf("volume %s is removed while %d containers run", v.Name, n)
		}
		o.emptied = append(o.emptied, v.Project+"/"+v.Name)
		return ctx.Err()
	})
}

func (p simPeers) AwaitLoaded(ctx context.Context, machine string, _ Version) error {
	return p.around(ctx, "await", machine, func(o *simMachine) error {
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return err
		}
		o.load()
		return nil
	})
}

func (p simPeers) HasImages(ctx context.Context, machine string, images []string) (present []string, err error) {
	err = p.around(ctx, "images", machine, func(o *simMachine) error {
		for _, i := range images {
			if o.has[i] {
				present = append(present, i)
			}
		}
		return nil
	})
	return present, err
}

// image of a container, or none where there is none.
func (c *simContainer) image() string {
	if c == nil {
		return ""
	}
	return c.spec.Image
}

// becomes says how containers of an image behave from now on.
func (w *simWorld) becomes(image string, b behaviour) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.images[image] = b
}

func (w *simWorld) how(image string) behaviour {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.images[image]
}
