package crdt

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Cell is one column of a living row with what decides its merges.
type Cell struct {
	Column string
	Ver    uint64 // edits in this life of the row, from 1
	Stamp  Stamp  // of the last edit
	Site   SiteID // of the last edit
	Value  Value
}

// Record is all that replicas must agree on about one row. The zero Record is
// a row that was never written. Records are immutable: their cells may be
// shared, and nobody may write to them.
type Record struct {
	CL    uint64 // births and deaths: odd is alive, even is deleted, 0 never was
	Stamp Stamp  // of the write that gave CL
	Site  SiteID // of the write that gave CL
	Cells []Cell // sorted by Column; none unless alive
}

// Assignment is one column that a local write sets.
type Assignment struct {
	Column string
	Value  Value
}

// Alive tells whether the row exists.
func (r Record) Alive() bool { return r.CL%2 == 1 }

// Find is the cell of a column, or false where it was never written.
func (r Record) Find(column string) (Cell, bool) {
	i, ok := slices.BinarySearchFunc(r.Cells, column, func(c Cell, name string) int {
		return strings.Compare(c.Column, name)
	})
	if !ok {
		return Cell{}, false
	}
	return r.Cells[i], true
}

// Put is r after a local write of some columns, and whether that changed
// anything. On a living row it counts only the columns whose value differs; a
// column that was never written counts as NULL. A row that is not alive is
// born anew with just these columns.
func (r Record) Put(set []Assignment, at Stamp, by SiteID) (Record, bool) {
	if !r.Alive() {
		return Record{CL: r.CL + 1, Stamp: at, Site: by, Cells: firstCells(set, at, by)}, true
	}
	next, changed := r, false
	for _, a := range set {
		old, _ := next.Find(a.Column)
		if old.Value == a.Value {
			continue
		}
		if !changed {
			next.Cells, changed = slices.Clone(r.Cells), true
		}
		next.Cells = withCell(next.Cells, Cell{Column: a.Column, Ver: old.Ver + 1, Stamp: at, Site: by, Value: a.Value})
	}
	return next, changed
}

func firstCells(set []Assignment, at Stamp, by SiteID) []Cell {
	cells := make([]Cell, 0, len(set))
	for _, a := range set {
		cells = withCell(cells, Cell{Column: a.Column, Ver: 1, Stamp: at, Site: by, Value: a.Value})
	}
	return cells
}

// withCell sets c in cells, which the caller owns.
func withCell(cells []Cell, c Cell) []Cell {
	if n := len(cells); n == 0 || cells[n-1].Column < c.Column {
		return append(cells, c)
	}
	i, found := slices.BinarySearchFunc(cells, c, func(a, b Cell) int { return strings.Compare(a.Column, b.Column) })
	if found {
		cells[i] = c
		return cells
	}
	return slices.Insert(cells, i, c)
}

// Delete is r after a local delete, and whether that changed anything.
func (r Record) Delete(at Stamp, by SiteID) (Record, bool) {
	if !r.Alive() {
		return r, false
	}
	return Record{CL: r.CL + 1, Stamp: at, Site: by}, true
}

// Merge is the join of two records of one row: commutative, associative,
// idempotent, and never below either of them.
func Merge(a, b Record) Record {
	switch {
	case a.CL > b.CL:
		return a
	case a.CL < b.CL:
		return b
	}
	out := a
	if cmp.Or(cmp.Compare(b.Stamp, a.Stamp), b.Site.Compare(a.Site)) > 0 {
		out.Stamp, out.Site = b.Stamp, b.Site
	}
	out.Cells = mergeCells(a.Cells, b.Cells)
	return out
}

func mergeCells(a, b []Cell) []Cell {
	out := make([]Cell, 0, max(len(a), len(b)))
	for len(a) > 0 && len(b) > 0 {
		switch c := strings.Compare(a[0].Column, b[0].Column); {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, winner(a[0], b[0])), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

func winner(a, b Cell) Cell {
	if compareCells(a, b) >= 0 {
		return a
	}
	return b
}

func compareCells(a, b Cell) int {
	return cmp.Or(
		cmp.Compare(a.Ver, b.Ver),
		cmp.Compare(a.Stamp, b.Stamp),
		a.Value.Compare(b.Value),
		a.Site.Compare(b.Site),
	)
}

// Equal tells whether two records are the same in every part.
func (r Record) Equal(s Record) bool {
	return r.CL == s.CL && r.Stamp == s.Stamp && r.Site == s.Site && slices.Equal(r.Cells, s.Cells)
}

// MaxStamp is the latest stamp within r.
func (r Record) MaxStamp() Stamp {
	latest := r.Stamp
	for _, c := range r.Cells {
		latest = max(latest, c.Stamp)
	}
	return latest
}

// maxCount bounds the counters of a record. No row lives to see it; a counter
// near its end would begin anew with the next local write, which then is lost.
const maxCount = 1 << 62

// Check says what makes r no possible record. Merge relies on these properties
// of what other machines send: a record that breaks them could break the
// agreement of those that hold it.
func (r Record) Check() error {
	if r.CL == 0 {
		return fmt.Errorf("record without a causal length")
	}
	if r.CL > maxCount {
		return fmt.Errorf("record with a causal length of %d", r.CL)
	}
	if !r.Alive() && len(r.Cells) > 0 {
		return fmt.Errorf("deleted record with %d cells", len(r.Cells))
	}
	for i, c := range r.Cells {
		if c.Ver == 0 {
			return fmt.Errorf("column %q was never edited", c.Column)
		}
		if c.Ver > maxCount {
			return fmt.Errorf("column %q was edited %d times", c.Column, c.Ver)
		}
		if i > 0 && r.Cells[i-1].Column >= c.Column {
			return fmt.Errorf("column %q is out of order", c.Column)
		}
	}
	return nil
}
