package hostos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Twin is a NixOS machine in memory: a profile, a boot loader, and what runs.
// Tests break it at any moment. Its methods may be called side by side.
type Twin struct {
	mu       sync.Mutex
	boots    int
	began    time.Time
	now      func() time.Time
	current  string
	booted   string
	profile  []string // systems by generation; the first is number 1, a deleted one empty
	standard int      // the default's number
	loader   string   // what the next boot boots
	refuse   map[string]error
	at       func(moment string)
	restart  func()
	kept     string // from the garbage collector
	flakes   map[string]string
}

// NewTwin is a machine that booted a system, its generation 1.
func NewTwin(system string, now func() time.Time) *Twin {
	return &Twin{boots: 1, began: now(), now: now, current: system, booted: system, profile: []string{system}, standard: 1,
		loader: system, refuse: map[string]error{}, at: func(string) {}}
}

// Refuse makes an action with a system fail, as "stage nixos-2"; nil ends that.
func (t *Twin) Refuse(what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refuse[what] = err
}

// OnMoment has fn called before, in and after each thing that changes the
// machine. It may panic, and then nothing after it happens.
func (t *Twin) OnMoment(fn func(moment string)) { t.at = fn }

// OnRestart has fn called for a restart, which is then fn's to do, with Boot.
func (t *Twin) OnRestart(fn func()) { t.restart = fn }

// Boot starts the machine anew, as after a power cut.
func (t *Twin) Boot() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.boots++
	t.began = t.now()
	t.booted, t.current = t.loader, t.loader
}

// Running is the system that runs, and Loader the one that would be booted.
func (t *Twin) Running() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current
}

// Loader is the system that the next boot boots.
func (t *Twin) Loader() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.loader
}

// Boots is how often the machine was started.
func (t *Twin) Boots() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.boots
}

// Seen is part of Machine.
func (t *Twin) Seen(context.Context) (Seen, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Seen{Boot: fmt.Sprint("boot-", t.boots), Uptime: t.now().Sub(t.began), Current: t.current, Booted: t.booted,
		Default: Generation{t.standard, t.profile[t.standard-1]}, Newest: len(t.profile)}, nil
}

// Push makes a flake be this commit from now on. Others have none.
func (t *Twin) Push(flake, commit string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flakes = map[string]string{flake: commit}
}

// Lock is part of Machine.
func (t *Twin) Lock(_ context.Context, flake string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ref, name, _ := strings.Cut(flake, "#")
	if t.flakes[ref] == "" {
		return "", nil
	}
	return withName(ref+"/"+t.flakes[ref], name), nil
}

// Stage is part of Machine. Every system exists that is not refused.
func (t *Twin) Stage(_ context.Context, target Target) (system string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case target.Generation < 0 || target.Generation > len(t.profile) || target.Generation > 0 && t.profile[target.Generation-1] == "":
		return "", fmt.Errorf("there is no generation %d on this machine", target.Generation)
	case target.Generation != 0:
		system = t.profile[target.Generation-1]
	case target.System != "":
		system = target.System
	default:
		system = Attribute(target.Flake, target.Name)
	}
	t.kept = system
	return system, t.refuse["stage "+system]
}

// Release is part of Machine.
func (t *Twin) Release(context.Context) error {
	return t.change("release", func() { t.kept = "" })
}

// Try is part of Machine.
func (t *Twin) Try(_ context.Context, system string) error {
	return t.change("try "+system, func() { t.current = system })
}

// MakeDefault is part of Machine.
func (t *Twin) MakeDefault(_ context.Context, g Generation, failed Made) error {
	if g.System == "" {
		return nil
	}
	if err := t.change("profile "+g.System, func() { t.setProfile(g) }); err != nil {
		return err
	}
	was := slices.Clone(t.profile)
	if failed.After > 0 && failed.System != g.System {
		if err := t.change("delete "+failed.System, func() { t.delete(failed) }); err != nil {
			return err
		}
	}
	err := t.change("loader "+g.System, func() { t.loader = g.System })
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.profile = was
	}
	return err
}

func (t *Twin) delete(failed Made) {
	for i := range t.profile {
		if i >= failed.After && t.profile[i] == failed.System {
			t.profile[i] = ""
		}
	}
	for t.profile[len(t.profile)-1] == "" {
		t.profile = t.profile[:len(t.profile)-1]
	}
}

func (t *Twin) setProfile(g Generation) {
	switch {
	case t.profile[t.standard-1] == g.System:
	case g.Number > 0 && g.Number <= len(t.profile) && t.profile[g.Number-1] == g.System:
		t.standard = g.Number
	default:
		if t.profile[len(t.profile)-1] != g.System { // Nix makes none twice in a row
			t.profile = append(t.profile, g.System)
		}
		t.standard = len(t.profile)
	}
}

// Restart is part of Machine.
func (t *Twin) Restart(context.Context) error {
	if err := t.change("restart", func() {}); err != nil {
		return err
	}
	if t.restart != nil {
		t.restart()
	}
	return nil
}

func (t *Twin) change(what string, do func()) error {
	t.at("before " + what)
	t.mu.Lock()
	err := t.refuse[what]
	if err == nil {
		do()
	}
	t.mu.Unlock()
	t.at("after " + what)
	return err
}

// Is tells that the machine is NixOS.
func (t *Twin) Is() bool { return true }

// Generations are those of the profile.
func (t *Twin) Generations() ([]Info, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Info
	for i, system := range t.profile {
		if system == "" {
			continue
		}
		all = append(all, Info{Generation: Generation{i + 1, system}, NixOS: "26.05", Default: i+1 == t.standard,
			Current: system == t.current, Booted: system == t.booted})
	}
	return all, nil
}

// Pair is a host and its client that share papers in memory, on a twin.
func (t *Twin) Pair(o Options) (*Host, *Client) {
	papers := &memoryDesk{orders: map[string]Order{}, wakes: map[chan<- struct{}]bool{}}
	o.Machine = t
	h := New(o)
	h.files = papers
	return h, &Client{files: papers, os: t}
}

// memoryDesk survives what a disk survives.
type memoryDesk struct {
	mu      sync.Mutex
	journal Attempt
	orders  map[string]Order
	wakes   map[chan<- struct{}]bool
}

func (m *memoryDesk) change(do func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	do()
	for wake := range m.wakes {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	return nil
}

func (m *memoryDesk) attempt() (Attempt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.journal, nil
}

func (m *memoryDesk) saveAttempt(a Attempt) error {
	return m.change(func() { m.journal = a })
}

func (m *memoryDesk) saveOrder(o Order) error {
	return m.change(func() { m.orders[o.ID] = o })
}

func (m *memoryDesk) removeOrder(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.orders, id) // nobody waits for that
	return nil
}

func (m *memoryDesk) orderOf(id string) (Order, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, known := m.orders[id]
	return o, known, nil
}

func (m *memoryDesk) nextOrder() (Order, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(m.orders)) {
		return m.orders[id], nil
	}
	return Order{}, nil
}

func (m *memoryDesk) watch(ctx context.Context, wake chan<- struct{}) error {
	m.mu.Lock()
	m.wakes[wake] = true
	m.mu.Unlock()
	select {
	case wake <- struct{}{}:
	default:
	}
	<-ctx.Done()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.wakes, wake)
	return ctx.Err()
}

// Moments are the names that OnMoment's fn is called with for systems.
func Moments(systems ...string) []string {
	all := map[string]bool{"before restart": true, "after restart": true, "before release": true, "after release": true}
	for _, when := range []string{"before ", "after "} {
		for _, what := range []string{"try ", "profile ", "delete ", "loader "} {
			for _, s := range systems {
				all[when+what+s] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

var _ Machine = (*Twin)(nil)
