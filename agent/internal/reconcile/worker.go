package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

const (
	// parallelRuns is how many containers are made or started at a time. More
	// gains little: the engine's own locks and two cores are the bound.
	parallelRuns = 4
	// parallelPulls keeps pulls from sharing a slow line among many.
	parallelPulls = 2
	// patience bounds one call that makes, starts or removes a container.
	patience = 2 * time.Minute
)

// worker does actions. It is safe for concurrent use.
type worker struct {
	engine  runtime.Engine
	machine string
	cluster string
	log     *slog.Logger
	runs    chan struct{}
	pulls   chan struct{}

	makeNetwork func(context.Context, netip.Prefix) error

	mu        sync.Mutex
	network   netip.Prefix    // the subnet that the network has for sure
	unstarted map[string]bool // containers made by this worker that could not be started
}

func newWorker(c Config) *worker {
	return &worker{
		engine: c.Engine, machine: c.Machine, cluster: c.Cluster, makeNetwork: c.Network, log: c.Log,
		runs: make(chan struct{}, parallelRuns), pulls: make(chan struct{}, parallelPulls),
		unstarted: map[string]bool{},
	}
}

// do does a task and returns what container the replica has then.
func (w *worker) do(ctx context.Context, t *task) (*runtime.Container, error) {
	a := t.action
	began := time.Now()
	id, err := w.act(ctx, t)
	if err != nil {
		w.log.Warn("action on a container", "action", string(a.Kind), "replica", a.Replica, "reason", a.Reason, "err", err)
	} else {
		w.log.Info("action on a container", "action", string(a.Kind), "replica", a.Replica, "reason", a.Reason, "took", time.Since(began))
	}
	if id == "" {
		return nil, err
	}
	c, inspectErr := w.engine.Inspect(ctx, id)
	switch {
	case errors.Is(inspectErr, runtime.ErrNoContainer):
		return nil, err
	case inspectErr != nil:
		return nil, errors.Join(err, inspectErr)
	}
	return &c, err
}

// act returns the id of the container that the replica has afterwards.
func (w *worker) act(ctx context.Context, t *task) (string, error) {
	a := t.action
	switch a.Kind {
	case Run:
		return w.run(ctx, t)
	case Start:
		return w.startAgain(ctx, a.Container)
	case Stop:
		return a.Container.ID, w.stop(ctx, a)
	case Cure:
		if err := w.stop(ctx, a); err != nil {
			return a.Container.ID, err
		}
		return w.start(ctx, a.Container.ID)
	case Remove:
		return w.remove(ctx, a)
	}
	panic("reconcile: unknown action " + string(a.Kind))
}

// startAgain starts a container that is there already. The engine does not
// flush what it writes, so one that power was taken from, while it ran or
// before it ever did, may lack files: what cannot be started then is removed,
// which is no failure, and its replica gets another.
func (w *worker) startAgain(ctx context.Context, c runtime.Container) (string, error) {
	id, err := w.start(ctx, c.ID)
	if err == nil || id == "" || !w.mayLackFiles(c) || passes(err) || ctx.Err() != nil {
		return id, err
	}
	w.log.Warn("container is made anew: its files may have gone with the machine's power", "replica", c.Replica, "container", id, "err", err)
	if removeErr := w.engine.Remove(ctx, id); removeErr != nil {
		return id, errors.Join(err, removeErr)
	}
	return "", nil
}

// mayLackFiles tells whether power may have been lost since a container was
// made, and nothing is lost with it. One that exited by itself is kept, for it
// has files of its own.
func (w *worker) mayLackFiles(c runtime.Container) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return c.State == runtime.Lost || c.State == runtime.Created && !w.unstarted[c.ID]
}

// passes tells whether a start may work later with the container as it is.
func passes(err error) bool {
	return errors.Is(err, runtime.ErrNoBridge) || faults.CodeOf(err) == faults.DiskFull
}

// start starts a container. One whose address a stranger took cannot start
// ever again, so it is removed: its replica gets another with another address.
func (w *worker) start(ctx context.Context, id string) (string, error) {
	release, ctx, err := w.slot(ctx)
	if err != nil {
		return id, err
	}
	defer release()
	err = w.engine.Start(ctx, id)
	if errors.Is(err, runtime.ErrAddressTaken) {
		if removeErr := w.engine.Remove(ctx, id); removeErr == nil {
			return "", err
		}
	}
	return id, err
}

// stop takes no slot: it is mostly waiting. A container's own grace is not
// known here, so its stop is waited for without a bound: to give up is to kill.
func (w *worker) stop(ctx context.Context, a Action) error {
	if a.Grace != runtime.OwnGrace {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.Grace+patience)
		defer cancel()
	}
	return w.engine.Stop(ctx, a.Container.ID, a.Grace)
}

func (w *worker) remove(ctx context.Context, a Action) (string, error) {
	id := a.Container.ID
	if a.Container.State.Alive() {
		if err := w.stop(ctx, a); err != nil && !errors.Is(err, runtime.ErrNoContainer) {
			w.log.Warn("stop before removal", "replica", a.Replica, "container", id, "err", err)
		}
	}
	release, ctx, err := w.slot(ctx)
	if err != nil {
		return id, err
	}
	defer release()
	if err := w.engine.Remove(ctx, id); err != nil {
		return id, err
	}
	w.note(id, false)
	return "", nil
}

// run creates and starts the container of a wish.
func (w *worker) run(ctx context.Context, t *task) (string, error) {
	wish := t.action.Run
	request := w.request(wish, t.subnet, t.address)
	c := wish.Revision.Spec.Container
	if c.PullPolicy == "always" {
		if err := w.refresh(ctx, c.Image); err != nil {
			return "", err
		}
	}
	id, err := w.create(ctx, wish, request, t.subnet)
	// Looking first would cost each start a question that most answer "yes".
	if faults.CodeOf(err) == faults.NoImage && c.PullPolicy != "never" {
		if err := w.pull(ctx, c.Image); err != nil {
			return "", err
		}
		id, err = w.create(ctx, wish, request, t.subnet)
	}
	if err != nil {
		return "", err
	}
	after, err := w.start(ctx, id)
	w.note(id, err != nil && after != "")
	return after, err
}

// note remembers whether a container that this worker made waits for its first start.
func (w *worker) note(id string, unstarted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if unstarted {
		w.unstarted[id] = true
	} else {
		delete(w.unstarted, id)
	}
}

func (w *worker) create(ctx context.Context, wish *Wish, r runtime.ContainerRequest, subnet netip.Prefix) (string, error) {
	release, ctx, err := w.slot(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	if err := w.ensureNetwork(ctx, subnet); err != nil {
		return "", err
	}
	if err := w.ensureVolumes(ctx, wish); err != nil {
		return "", err
	}
	id, err := w.engine.Create(ctx, r)
	if errors.Is(err, runtime.ErrNameTaken) && w.free(ctx, r.Name) {
		id, err = w.engine.Create(ctx, r)
	}
	if errors.Is(err, runtime.ErrNameTaken) && !w.ours(ctx, r.Name) {
		return "", faults.New(faults.Conflict, "a container named %s is there already, and it is not uncloud's", r.Name).
			WithHint("podman rename %s OTHER-NAME", r.Name).Because(err)
	}
	if err != nil {
		w.forgetNetwork() // a person may have removed it
	}
	return id, err
}

// free frees a name that is taken though no container has it: power that went
// in the middle of a creation leaves files under the name, and nothing else.
func (w *worker) free(ctx context.Context, name string) bool {
	_, err := w.engine.Inspect(ctx, name)
	return errors.Is(err, runtime.ErrNoContainer) && w.engine.Remove(ctx, name) == nil
}

// ours tells whether a container of this name is one of the agent's: it was
// made by a call whose answer never came. The next look finds it.
func (w *worker) ours(ctx context.Context, name string) bool {
	list, err := w.engine.List(ctx)
	return err != nil || slices.ContainsFunc(list, func(c runtime.Container) bool { return c.Name == name })
}

// slot waits for one of the places to make or start a container, and bounds
// what is done there.
func (w *worker) slot(ctx context.Context) (func(), context.Context, error) {
	select {
	case w.runs <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	return func() { cancel(); <-w.runs }, ctx, nil
}

// ensureNetwork makes the network once, and again when the subnet changes.
func (w *worker) ensureNetwork(ctx context.Context, subnet netip.Prefix) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.network == subnet {
		return nil
	}
	if err := w.makeNetwork(ctx, subnet); err != nil {
		return err
	}
	w.network = subnet
	return nil
}

func (w *worker) forgetNetwork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.network = netip.Prefix{}
}

func (w *worker) ensureVolumes(ctx context.Context, wish *Wish) error {
	for _, v := range wish.Revision.Spec.Volumes {
		if !mounts(wish.Revision.Spec.Container, v.Name) {
			continue
		}
		name := VolumeName(wish.Service.Project, v)
		if v.External {
			has, err := w.engine.HasVolume(ctx, name)
			if err != nil {
				return err
			}
			if !has {
				return faults.New(faults.NotFound, "volume %s, which is external, is not on this machine", name).
					WithHint("podman volume create %s", name)
			}
			continue
		}
		if err := w.engine.EnsureVolume(ctx, engineVolume(name, wish, v, w.cluster)); err != nil {
			return err
		}
	}
	return nil
}

func mounts(c spec.ContainerSpec, volume string) bool {
	for _, m := range c.Mounts {
		if m.Type == spec.MountVolume && m.Source == volume {
			return true
		}
	}
	return false
}

func engineVolume(name string, wish *Wish, v spec.VolumeSpec, cluster string) runtime.Volume {
	labels := map[string]string{}
	for k, l := range v.Labels {
		labels[k] = l
	}
	labels[runtime.LabelCluster], labels[runtime.LabelProject] = cluster, wish.Service.Project
	return runtime.Volume{Name: name, Driver: v.Driver, Options: v.Options, Labels: labels}
}

// refresh pulls a newer image. A machine that is cut off runs the one it has.
func (w *worker) refresh(ctx context.Context, image string) error {
	err := w.pull(ctx, image)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if has, hasErr := w.engine.HasImage(ctx, image); hasErr == nil && has {
		w.log.Warn("running the image that is here, for its registry has not answered", "image", image, "err", err)
		return nil
	}
	return err
}

func (w *worker) pull(ctx context.Context, image string) error {
	select {
	case w.pulls <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.pulls }()
	return w.engine.PullImage(ctx, image)
}

// zone is the domain of the cluster's names.
const zone = "internal"

// request is a wish with an address, for the engine.
func (w *worker) request(wish *Wish, subnet netip.Prefix, address netip.Addr) runtime.ContainerRequest {
	r, svc := wish.Replica, wish.Service
	volumes := map[string]string{}
	for _, v := range wish.Revision.Spec.Volumes {
		volumes[v.Name] = VolumeName(svc.Project, v)
	}
	network := runtime.Network{Subnet: subnet}
	return runtime.ContainerRequest{
		Cluster: w.cluster, Project: svc.Project, Service: svc.ID, Replica: r.ID, Revision: r.Revision,
		Name: svc.Project + "-" + r.Name, Hostname: r.Name,
		Spec: wish.Revision.Spec.Container, Network: runtime.NetworkName,
		Address: address, DNS: network.Gateway(),
		Search:  []string{svc.Project + "." + zone, zone},
		Volumes: volumes,
		Env: map[string]string{
			"UNCLOUD_MACHINE_ID": w.machine, "UNCLOUD_PROJECT": svc.Project,
			"UNCLOUD_SERVICE": svc.Name, "UNCLOUD_REPLICA": r.Name,
		},
	}
}

// VolumeName is the name that a project's volume has in the engine. An
// external one has the name it was declared with.
func VolumeName(project string, v spec.VolumeSpec) string {
	return spec.EngineVolume(project, v)
}
