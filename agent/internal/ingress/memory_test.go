package ingress

import (
	"context"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// memory is a certmagic.Storage that keeps all in memory. That the ingress
// runs on it shows that the storage can be replaced as a whole.
type memory struct {
	mu    sync.Mutex
	files map[string]file
	locks map[string]chan struct{}
}

type file struct {
	content  []byte
	modified time.Time
}

var _ certmagic.Storage = (*memory)(nil)

func newMemory() *memory {
	return &memory{files: map[string]file{}, locks: map[string]chan struct{}{}}
}

func (m *memory) Lock(ctx context.Context, name string) error {
	for {
		m.mu.Lock()
		held, locked := m.locks[name]
		if !locked {
			m.locks[name] = make(chan struct{})
			m.mu.Unlock()
			return nil
		}
		m.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *memory) Unlock(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.locks[name])
	delete(m.locks, name)
	return nil
}

func (m *memory) Store(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[key] = file{slices.Clone(value), time.Now()}
	return nil
}

func (m *memory) Load(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.files[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(f.content), nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.files, func(k string, _ file) bool { return k == key || strings.HasPrefix(k, key+"/") })
	return nil
}

func (m *memory) Exists(_ context.Context, key string) bool {
	_, err := m.Stat(context.Background(), key)
	return err == nil
}

// List gives the direct children of a prefix, or all below it.
func (m *memory) List(_ context.Context, prefix string, recursive bool) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := map[string]bool{}
	for k := range m.files {
		rest, below := strings.CutPrefix(k, strings.TrimSuffix(prefix, "/")+"/")
		if !below {
			continue
		}
		if first, _, deeper := strings.Cut(rest, "/"); deeper && !recursive {
			rest = first
		}
		found[strings.TrimSuffix(prefix, "/")+"/"+rest] = true
	}
	return slices.Sorted(maps.Keys(found)), nil
}

func (m *memory) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.files[key]
	if ok {
		return certmagic.KeyInfo{Key: key, Modified: f.modified, Size: int64(len(f.content)), IsTerminal: true}, nil
	}
	for k := range m.files {
		if strings.HasPrefix(k, key+"/") {
			return certmagic.KeyInfo{Key: key}, nil
		}
	}
	return certmagic.KeyInfo{}, fs.ErrNotExist
}
