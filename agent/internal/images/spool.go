package images

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// spool is a directory of layers:
//
//	sha256-HEX               a layer as it was sent, whole
//	sha256-HEX -> sha256-U   a layer that the engine took, and its diff id U
//	part-RANDOM              a layer on its way
//
// Files appear by rename after fsync, so a name tells the truth after a power
// cut. Only a damaged disk makes it lie, which verify finds out.
type spool struct {
	dir        string
	maxBytes   int64
	maxEntries int
	minFree    int64
	free       func(dir string) (int64, error)
	log        *slog.Logger

	mu      sync.Mutex
	opened  bool
	entries map[string]*entry // by digest
	pins    map[string]int    // digests that pushes under way need
	tick    uint64
}

type entry struct {
	size     int64
	unpacked string // diff id, where the engine took the content; empty: it is here
	retiring string // diff id, once the engine took it and pushes still need it
	used     uint64 // tick of the last use
}

const (
	partPrefix = "part-"
	dirMode    = 0o700 // images may hold secrets
)

func newSpool(o Options) *spool {
	return &spool{
		dir: o.Dir, maxBytes: o.MaxBytes, maxEntries: o.MaxEntries, minFree: o.MinFree, free: o.Free, log: o.Log,
		entries: map[string]*entry{}, pins: map[string]int{},
	}
}

func fileName(digest string) string { return strings.Replace(digest, ":", "-", 1) }

func (s *spool) path(digest string) string { return filepath.Join(s.dir, fileName(digest)) }

// open makes the directory and, the first time, reads it and removes the parts
// in it.
func (s *spool) open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.MkdirAll(s.dir, dirMode); err != nil { // each time: someone may have cleaned up by hand
		return explain("make the spool of images", err)
	}
	if s.opened {
		return nil
	}
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("read the spool of images: %w", err)
	}
	var infos []fs.FileInfo
	for _, f := range files {
		if strings.HasPrefix(f.Name(), partPrefix) {
			if err := os.Remove(filepath.Join(s.dir, f.Name())); err != nil {
				return fmt.Errorf("clean the spool of images: %w", err)
			}
		} else if info, err := f.Info(); err == nil { // an error: it is gone
			infos = append(infos, info)
		}
	}
	// Uses are not written down; after a start the order is that of arrival.
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, info := range infos {
		s.adopt(info)
	}
	s.opened = true
	return nil
}

// adopt notes a file of an earlier run. It ignores files that are not ours.
func (s *spool) adopt(info fs.FileInfo) {
	digest := strings.Replace(info.Name(), "-", ":", 1)
	if !validDigest(digest) {
		return
	}
	switch {
	case info.Mode().IsRegular():
		s.note(digest, entry{size: info.Size()})
	case info.Mode().Type() == fs.ModeSymlink:
		target, err := os.Readlink(s.path(digest))
		if diffID := strings.Replace(target, "-", ":", 1); err == nil && validDigest(diffID) {
			s.note(digest, entry{unpacked: diffID})
		}
	}
}

// note needs s.mu.
func (s *spool) note(digest string, e entry) {
	s.tick++
	e.used = s.tick
	s.entries[digest] = &e
}

// holds tells whether the content of a layer is here, and counts as a use.
func (s *spool) holds(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[digest]
	if e == nil || e.unpacked != "" {
		return false
	}
	if info, err := os.Lstat(s.path(digest)); err != nil || info.Size() != e.size {
		delete(s.entries, digest) // someone cleaned up by hand
		return false
	}
	s.tick++
	e.used = s.tick
	return true
}

// unpacked is the diff id of a layer that the engine took, or empty.
func (s *spool) unpacked(digest string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[digest]
	if e == nil {
		return ""
	}
	s.tick++
	e.used = s.tick
	return e.unpacked
}

// pin keeps layers from eviction and retirement until the returned function is
// called.
func (s *spool) pin(digests []string) (unpin func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range digests {
		s.pins[d]++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, d := range digests {
			if s.pins[d]--; s.pins[d] == 0 {
				delete(s.pins, d)
				s.retireNow(d)
			}
		}
	}
}

// retire gives up the content of a pinned layer once no push needs it: the
// engine has it.
func (s *spool) retire(l layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[l.digest]; e != nil && e.unpacked == "" {
		e.retiring = l.diffID
	}
}

// retireNow needs s.mu.
func (s *spool) retireNow(digest string) {
	e := s.entries[digest]
	switch {
	case e == nil || e.retiring == "":
	case e.retiring == digest:
		s.remove(digest)
	default:
		if err := s.link(digest, e.retiring); err != nil {
			// The bytes stay until they are evicted, and are as good.
			s.log.Warn("could not note what a layer unpacks to", "digest", digest, "err", err)
			e.retiring = ""
			return
		}
		s.note(digest, entry{unpacked: e.retiring})
	}
}

// link replaces the content of a layer by its diff id.
func (s *spool) link(digest, diffID string) error {
	name := filepath.Join(s.dir, partPrefix+fileName(digest))
	if err := os.Symlink(fileName(diffID), name); err != nil {
		return err
	}
	return os.Rename(name, s.path(digest))
}

// forget drops a layer and what is known of it, whoever needs it.
func (s *spool) forget(digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[digest] != nil {
		s.remove(digest)
	}
}

// remove needs s.mu.
func (s *spool) remove(digest string) {
	if err := os.Remove(s.path(digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("could not remove a layer", "digest", digest, "err", err)
	}
	delete(s.entries, digest)
}

func (s *spool) file(digest string) (*os.File, error) { return os.Open(s.path(digest)) }
