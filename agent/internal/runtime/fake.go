package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Fake is the in-memory twin of an engine, with the engine's bad habits: it
// never pulls at creation, finds a taken address or a missing bridge at start
// only, forgets exit codes in a power cut, and believes in a container whose
// monitor died. Containers run until a test ends them. The zero value is not
// ready: use NewFake.
type Fake struct {
	mu         sync.Mutex
	onCall     func(method, object string) error
	registry   map[string]bool // images that can be pulled
	serial     int
	calls      []string
	bridge     bool
	network    *Network
	containers map[string]*fakeContainer
	graces     map[string]time.Duration // of the last Stop, by name
	volumes    map[string]Volume
	images     map[string][]string // layers by name
	watchers   map[int]func()
	changed    chan struct{} // closed and replaced at each change
}

type fakeContainer struct {
	Container
	request ContainerRequest
	logs    []LogLine
}

var _ Engine = (*Fake)(nil)

// NewFake makes an engine with a bridge, and without images and containers.
func NewFake() *Fake {
	return &Fake{
		registry: map[string]bool{}, bridge: true, containers: map[string]*fakeContainer{}, graces: map[string]time.Duration{},
		volumes: map[string]Volume{}, images: map[string][]string{}, watchers: map[int]func(){}, changed: make(chan struct{}),
	}
}

// OnCall has f asked before each call of an Engine method, named as there, with
// the container's name, image or volume that it is about. Its error is the
// call's. It may block. Nil: every call is let through.
func (f *Fake) OnCall(ask func(method, object string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onCall = ask
}

// Publish makes an image one that can be pulled.
func (f *Fake) Publish(image string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.registry[image] = true
}

// called notes a call and asks whether it may be, then locks.
func (f *Fake) called(ctx context.Context, method, object string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	ask := f.onCall
	f.mu.Unlock()
	if ask != nil {
		if err := ask(method, object); err != nil {
			return err
		}
	}
	f.mu.Lock()
	f.calls = append(f.calls, strings.TrimSpace(method+" "+object))
	return nil
}

// Calls are the calls so far, as "Method object", containers by name. Reading
// calls (List, Inspect) are left out.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.calls), func(c string) bool {
		return strings.HasPrefix(c, "List") || strings.HasPrefix(c, "Inspect")
	})
}

// change wakes the watchers. The lock is held.
func (f *Fake) change() {
	close(f.changed)
	f.changed = make(chan struct{})
	for _, wake := range f.watchers {
		go wake()
	}
}

// AddImage puts an image there, with its layers' digests.
func (f *Fake) AddImage(name string, layers ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[name] = layers
}

// SetBridge puts the machine's bridge there or takes it away.
func (f *Fake) SetBridge(there bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bridge = there
}

// each calls do for the containers of a replica.
func (f *Fake) each(replica string, do func(*fakeContainer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		if c.Replica == replica {
			do(c)
		}
	}
	f.change()
}

// Exit ends a replica's container with a code.
func (f *Fake) Exit(replica string, code int) {
	f.each(replica, func(c *fakeContainer) { c.end(code) })
}

// Say writes a line to a replica's log.
func (f *Fake) Say(replica, text string) {
	f.each(replica, func(c *fakeContainer) { c.logs = append(c.logs, LogLine{At: time.Now(), Text: text}) })
}

// KillMonitor ends what watches over a replica's container, not the container.
func (f *Fake) KillMonitor(replica string) {
	f.each(replica, func(c *fakeContainer) {
		if c.State == Running {
			c.State = Orphaned
		}
	})
}

// RemoveByHand removes a replica's containers behind the agent's back.
func (f *Fake) RemoveByHand(replica string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.containers, func(_ string, c *fakeContainer) bool { return c.Replica == replica })
	f.change()
}

// PowerCut ends everything without a trace, as a cut of the power does.
func (f *Fake) PowerCut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		if c.State.Alive() {
			c.State, c.ExitCode, c.FinishedAt = Lost, 0, time.Time{}
		}
	}
	f.bridge = false
	f.change()
}

// Request is what a replica's container was made from.
func (f *Fake) Request(replica string) (ContainerRequest, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		if c.Replica == replica {
			return c.request, true
		}
	}
	return ContainerRequest{}, false
}

func (c *fakeContainer) end(code int) {
	if c.State.Alive() {
		c.State, c.ExitCode, c.FinishedAt = Exited, code, now()
	}
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// Version implements Engine.
func (f *Fake) Version(ctx context.Context) (string, error) {
	if err := f.called(ctx, "Version", ""); err != nil {
		return "", err
	}
	defer f.mu.Unlock()
	return "fake", nil
}

// EnsureNetwork implements Engine.
func (f *Fake) EnsureNetwork(ctx context.Context, n Network) error {
	if err := f.called(ctx, "EnsureNetwork", n.Subnet.String()); err != nil {
		return err
	}
	defer f.mu.Unlock()
	if f.network != nil && *f.network == n {
		return nil
	}
	if f.network != nil && len(f.containers) > 0 {
		return fmt.Errorf("network %s: %w", n.Name, ErrNetworkBusy)
	}
	f.network = &n
	return nil
}

// Create implements Engine.
func (f *Fake) Create(ctx context.Context, r ContainerRequest) (string, error) {
	if err := f.called(ctx, "Create", r.Name); err != nil {
		return "", err
	}
	defer f.mu.Unlock()
	if _, ok := f.images[r.Spec.Image]; !ok {
		return "", faults.New(faults.NoImage, "image %s is not on this machine", r.Spec.Image).WithHint("uc image push %s", r.Spec.Image)
	}
	for _, c := range f.containers {
		if c.Name == r.Name {
			return "", fmt.Errorf("create container %s: %w", r.Name, ErrNameTaken)
		}
	}
	f.serial++
	c := &fakeContainer{Container: FromLabels(r.Labels()), request: r}
	c.ID, c.Name, c.Image, c.State = fmt.Sprintf("ctr%d", f.serial), r.Name, r.Spec.Image, Created
	f.containers[c.ID] = c
	return c.ID, nil
}

// find is a container by id. The lock is held.
func (f *Fake) find(id string) (*fakeContainer, error) {
	if c := f.containers[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, ErrNoContainer)
}

// name is that of a container, or its id. It is what Calls shows.
func (f *Fake) name(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.containers[id]; c != nil {
		return c.Name
	}
	return id
}

// Start implements Engine.
func (f *Fake) Start(ctx context.Context, id string) error {
	if err := f.called(ctx, "Start", f.name(id)); err != nil {
		return err
	}
	defer f.mu.Unlock()
	c, err := f.find(id)
	if err != nil || c.State.Alive() {
		return err
	}
	if !f.bridge {
		return fmt.Errorf("start container %s: %w", c.Name, ErrNoBridge)
	}
	if f.network == nil || !f.network.Subnet.Contains(c.Address) {
		return fmt.Errorf("start container %s: address %s is in no subnet", c.Name, c.Address)
	}
	if f.holder(c.Address) != nil {
		return fmt.Errorf("start container %s: %w", c.Name, ErrAddressTaken)
	}
	c.State, c.StartedAt, c.FinishedAt, c.ExitCode = Running, now(), time.Time{}, 0
	f.change()
	return nil
}

func (f *Fake) holder(a netip.Addr) *fakeContainer {
	for _, c := range f.containers {
		if c.Address == a && c.State.Alive() {
			return c
		}
	}
	return nil
}

// Grace is what the last Stop gave a container, by its name, to end by itself.
func (f *Fake) Grace(name string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.graces[name]
}

// Stop implements Engine. Containers stop at once.
func (f *Fake) Stop(ctx context.Context, id string, grace time.Duration) error {
	if err := f.called(ctx, "Stop", f.name(id)); err != nil {
		return err
	}
	defer f.mu.Unlock()
	c, err := f.find(id)
	if err != nil {
		return err
	}
	if grace == OwnGrace {
		grace = c.request.Spec.StopGrace.Or(spec.DefaultStopGrace)
	}
	f.graces[c.Name] = grace
	c.end(0)
	f.change()
	return nil
}

// Remove implements Engine.
func (f *Fake) Remove(ctx context.Context, id string) error {
	if err := f.called(ctx, "Remove", f.name(id)); err != nil {
		return err
	}
	defer f.mu.Unlock()
	delete(f.containers, id)
	f.change()
	return nil
}

// List implements Engine.
func (f *Fake) List(ctx context.Context) ([]Container, error) {
	if err := f.called(ctx, "List", ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	out := []Container{}
	for _, c := range f.containers {
		out = append(out, c.Container)
	}
	slices.SortFunc(out, func(a, b Container) int {
		return cmp.Or(cmp.Compare(a.Replica, b.Replica), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// Inspect implements Engine.
func (f *Fake) Inspect(ctx context.Context, id string) (Container, error) {
	if err := f.called(ctx, "Inspect", f.name(id)); err != nil {
		return Container{}, err
	}
	defer f.mu.Unlock()
	c, err := f.find(id)
	if err != nil {
		return Container{}, err
	}
	return c.Container, nil
}

// Watch implements Engine.
func (f *Fake) Watch(ctx context.Context, wake func()) error {
	f.mu.Lock()
	f.serial++
	id := f.serial
	f.watchers[id] = wake
	f.mu.Unlock()
	<-ctx.Done()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, id)
	return nil
}

// Logs implements Engine.
func (f *Fake) Logs(ctx context.Context, id string, o LogOptions, each func(LogLine) error) error {
	if err := f.called(ctx, "Logs", f.name(id)); err != nil {
		return err
	}
	f.mu.Unlock()
	for sent := -1; ; {
		lines, ended, changed, err := f.log(id, o)
		if err != nil {
			return err
		}
		if sent < 0 {
			sent = 0
			if o.Tail >= 0 {
				sent = max(0, len(lines)-o.Tail)
			}
		}
		for ; sent < len(lines); sent++ {
			if err := each(lines[sent]); err != nil {
				return err
			}
		}
		if !o.Follow || ended {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// log is what a log holds now, whether it has ended, and what tells of more.
func (f *Fake) log(id string, o LogOptions) (lines []LogLine, ended bool, changed <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(id)
	if err != nil {
		return nil, false, nil, err
	}
	for _, l := range c.logs {
		if !l.At.Before(o.Since) && (o.Until.IsZero() || !l.At.After(o.Until)) {
			lines = append(lines, l)
		}
	}
	return lines, !c.State.Alive(), f.changed, nil
}

// Exec implements Engine.
func (f *Fake) Exec(ctx context.Context, id string, r ExecRequest) (int, error) {
	if err := f.called(ctx, "Exec", f.name(id)); err != nil {
		return 0, err
	}
	found, err := f.find(id)
	if err != nil {
		f.mu.Unlock()
		return 0, err
	}
	state := found.Container.State
	f.mu.Unlock()
	if state != Running {
		return 0, errors.New("exec: the container does not run")
	}
	return 0, nil
}
