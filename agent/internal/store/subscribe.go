package store

import "sync"

// Subscription wakes its holder after commits that touch its tables.
type Subscription struct {
	wake   chan struct{}
	tables map[string]bool // empty: any commit
	of     *listeners
}

// listeners is everyone who is told of commits.
type listeners struct {
	mu    sync.Mutex
	subs  map[*Subscription]bool
	hooks []func(Commit)
}

// Subscribe wakes on commits, local and merged, that change rows of the given
// tables. If none is given it wakes on all commits, also on those that change
// no row and only make more versions known; who reports what StateKnown gave
// needs these. Wake-ups that nobody has taken yet become one: read State once
// after Subscribe, and again after each.
func (s *Store) Subscribe(tables ...string) *Subscription {
	sub := &Subscription{wake: make(chan struct{}, 1), tables: map[string]bool{}, of: &s.listeners}
	for _, t := range tables {
		sub.tables[t] = true
	}
	s.listeners.mu.Lock()
	defer s.listeners.mu.Unlock()
	s.listeners.subs[sub] = true
	return sub
}

// C gives one element after each burst of commits. It is never closed.
func (s *Subscription) C() <-chan struct{} { return s.wake }

// Close ends the wake-ups.
func (s *Subscription) Close() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	delete(s.of.subs, s)
}

// OnCommit has f called after every commit, in order, while no other can
// start. f must not block and must not write to the store.
func (s *Store) OnCommit(f func(Commit)) {
	s.listeners.mu.Lock()
	defer s.listeners.mu.Unlock()
	s.listeners.hooks = append(s.listeners.hooks, f)
}

func (l *listeners) tell(c Commit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	touched := map[string]bool{}
	if len(l.subs) > 0 {
		for _, row := range c.Batch.Rows {
			touched[row.Table] = true
		}
	}
	for sub := range l.subs {
		if sub.wants(touched) {
			select {
			case sub.wake <- struct{}{}:
			default:
			}
		}
	}
	for _, hook := range l.hooks {
		hook(c)
	}
}

func (s *Subscription) wants(touched map[string]bool) bool {
	if len(s.tables) == 0 {
		return true
	}
	for t := range touched {
		if s.tables[t] {
			return true
		}
	}
	return false
}
