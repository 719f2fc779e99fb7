package crdt

import "encoding/binary"

// Floor is what is left of tombstones that a replica has forgotten. The zero
// Floor is that of a replica that has forgotten nothing.
type Floor struct {
	// Known is the versions among which they were. A replica that does not
	// cover it may hold rows whose removal is forgotten: it must not be merged
	// from, nor be given ranges of versions, until it has taken a Snapshot.
	Known Known
	// CL is the highest of their causal lengths; it is even. A row that is born
	// anew counts on from it, so that it beats the tombstone of its past life on
	// a replica that has not forgotten that yet.
	CL uint64
}

// Union is the floor of who has forgotten both.
func (f Floor) Union(g Floor) Floor {
	return Floor{Known: f.Known.Union(g.Known), CL: max(f.CL, g.CL)}
}

// Lift is r in a life above the floor, unless it is in one already: alive if r
// is, else deleted. Whoever still has a forgotten tombstone of the row takes it
// for newer than that.
func (f Floor) Lift(r Record, at Stamp, by SiteID) Record {
	if r.CL > f.CL {
		return r
	}
	above := f.CL + 2
	if r.Alive() {
		above--
	}
	r.CL, r.Stamp, r.Site = above, at, by
	return r
}

// AppendFloor appends the wire form of f: CL | known.
func AppendFloor(dst []byte, f Floor) []byte {
	return AppendKnown(binary.AppendUvarint(dst, f.CL), f.Known)
}

// Floor reads what AppendFloor wrote.
func (d *Decoder) Floor() Floor {
	f := Floor{CL: d.Uvarint(), Known: d.Known()}
	if f.CL%2 != 0 || f.CL > maxCount {
		d.fail("a floor of causal length %d", f.CL)
	}
	return f
}

// Snapshot is all that a replica holds, as of one moment: every row, also
// deleted ones, the versions it knows, and its Floor.
type Snapshot struct {
	Batch
	Floor Floor
}
