package images

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"uncloud/internal/faults"
)

// room makes sure that need bytes can be written and the disk's reserve stays,
// by evicting layers that no push needs. It may be a little wrong: pushes do
// not reserve, and others write on the disk too.
func (s *spool) room(need int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, err := s.free(s.dir)
	if err != nil {
		return fmt.Errorf("free space of the spool of images: %w", err)
	}
	if left-need >= s.minFree {
		return nil
	}
	s.evict((*entry).isContent, func() bool {
		left, err = s.free(s.dir)
		return err != nil || left-need >= s.minFree
	})
	if err != nil {
		return fmt.Errorf("free space of the spool of images: %w", err)
	}
	if left-need < s.minFree {
		return diskFull("the disk of this machine has %s left, which is too little for %s more and a reserve of %s", size(left), size(need), size(s.minFree))
	}
	return nil
}

// trim evicts what exceeds the limits, the longest unused first.
func (s *spool) trim() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evict((*entry).isContent, func() bool { return s.bytes() <= s.maxBytes })
	s.evict((*entry).isAny, func() bool { return len(s.entries) <= s.maxEntries })
	s.evict((*entry).isContent, func() bool {
		left, err := s.free(s.dir)
		return err != nil || left >= s.minFree // whoever writes next sees the error
	})
}

func (e *entry) isContent() bool { return e.unpacked == "" }
func (e *entry) isAny() bool     { return true }

// bytes needs s.mu.
func (s *spool) bytes() int64 {
	var sum int64
	for _, e := range s.entries {
		sum += e.size
	}
	return sum
}

// evict removes entries that no push needs, the longest unused first, until
// there is enough. It needs s.mu.
func (s *spool) evict(eligible func(*entry) bool, enough func() bool) {
	if enough() {
		return
	}
	var victims []string
	for digest, e := range s.entries {
		if s.pins[digest] == 0 && eligible(e) {
			victims = append(victims, digest)
		}
	}
	slices.SortFunc(victims, func(a, b string) int { return cmp.Compare(s.entries[a].used, s.entries[b].used) })
	for _, digest := range victims {
		s.log.Debug("evicted a layer", "digest", digest, "bytes", s.entries[digest].size)
		s.remove(digest)
		if enough() {
			return
		}
	}
}

func diskFull(format string, args ...any) *faults.Fault {
	return faults.New(faults.DiskFull, format, args...).WithHint("df -h /var/lib; podman image prune")
}

// explain tells a full disk from other troubles of writing.
func explain(doing string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return diskFull("%s: no space left on the disk", doing).Because(err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// size is a number of bytes as people read it.
func size(n int64) string {
	const step = 1024
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(n), 0
	for ; value >= step && unit < len(units)-1; unit++ {
		value /= step
	}
	if value == float64(int64(value)) {
		return fmt.Sprintf("%d %s", int64(value), units[unit])
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
