package crdt

import (
	"errors"
	"fmt"
	"slices"
)

// Row is one replicated row as it travels: whole, with its record, and with
// the newest version in which each site wrote it.
type Row struct {
	Table   string
	Key     string
	Record  Record
	Writers []Version // sorted by site, at most one a site
}

// Size is about how many bytes r takes on the wire.
func (r Row) Size() int {
	n := len(r.Table) + len(r.Key) + 32 + 24*len(r.Writers)
	for _, c := range r.Record.Cells {
		n += 12 + c.Value.Size()
	}
	return n
}

// ErrImpossible says that another replica sent what no replica can hold.
var ErrImpossible = errors.New("no replica can have this")

// Check says what makes r no possible row.
func (r Row) Check() error {
	if r.Table == "" || r.Key == "" {
		return fmt.Errorf("row %q of table %q has no name", r.Key, r.Table)
	}
	if err := r.Record.Check(); err != nil {
		return fmt.Errorf("row %q of table %q: %w", r.Key, r.Table, err)
	}
	for i, v := range r.Writers {
		if v.Seq == 0 || i > 0 && r.Writers[i-1].Site.Compare(v.Site) >= 0 {
			return fmt.Errorf("row %q of table %q: writers out of order", r.Key, r.Table)
		}
	}
	return nil
}

// Batch is the unit that a replica applies at once: rows, and the versions
// that are completely known to whoever has merged them.
type Batch struct {
	Rows  []Row
	Marks Known
}

// Size is about how many bytes b takes on the wire.
func (b Batch) Size() int {
	n := 32 * len(b.Marks)
	for _, r := range b.Rows {
		n += r.Size()
	}
	return n
}

// MergeWriters is the newer version for each site, of those within known.
//
// A replica may point a row only at versions that it knows completely. A row
// that it got early, in the newer state of a version it lacks, then stays
// listed under the older version it does know, and is passed on with it;
// otherwise a third replica could count the older version as complete without
// ever seeing the row.
//
// The result may be have or got itself.
func MergeWriters(have, got []Version, known Known) []Version {
	if len(have) == 0 && !slices.ContainsFunc(got, func(v Version) bool { return !known.Covers(v) }) {
		return got
	}
	out, shared := have, true
	for _, v := range got {
		if !known.Covers(v) {
			continue
		}
		i, found := slices.BinarySearchFunc(out, v.Site, func(w Version, s SiteID) int { return w.Site.Compare(s) })
		if found && out[i].Seq >= v.Seq {
			continue
		}
		if shared {
			out, shared = slices.Clone(out), false
		}
		if found {
			out[i] = v
		} else {
			out = slices.Insert(out, i, v)
		}
	}
	return out
}
