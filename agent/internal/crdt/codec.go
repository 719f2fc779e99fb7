package crdt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Dict gives the small numbers by which an encoded record refers to sites and
// to names of tables and columns. A database file keeps one for good; a frame
// on the wire brings its own.
type Dict interface {
	Site(SiteID) uint64
	Name(string) uint64
}

// Lookup is the other direction of a Dict; false where a number is unknown.
type Lookup interface {
	SiteAt(uint64) (SiteID, bool)
	NameAt(uint64) (string, bool)
}

// ErrCorrupt says that bytes are not what the Append functions wrote.
var ErrCorrupt = errors.New("corrupt encoding")

// recordFormat is the first byte of an encoded record.
const recordFormat = 1

// AppendRecord appends the packed form of a record and its writers to dst.
// Values are left out for columns of which inline reports false: the caller
// keeps them elsewhere. A nil inline keeps all of them in the record.
//
//	format 1 | CL | stamp | site | n, n x (site, version) | n, n x cell
//	cell: name<<1 | has value | ver | stamp - row stamp, zigzag | site | [value]
func AppendRecord(dst []byte, r Record, writers []Version, d Dict, inline func(column string) bool) []byte {
	dst = append(dst, recordFormat)
	dst = binary.AppendUvarint(dst, r.CL)
	dst = binary.AppendUvarint(dst, uint64(r.Stamp))
	born := d.Site(r.Site)
	dst = binary.AppendUvarint(dst, born)
	dst = binary.AppendUvarint(dst, uint64(len(writers)))
	for _, v := range writers {
		dst = binary.AppendUvarint(dst, d.Site(v.Site))
		dst = binary.AppendUvarint(dst, v.Seq)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Cells)))
	for _, c := range r.Cells {
		site := born // most cells of most rows are of one site
		if c.Site != r.Site {
			site = d.Site(c.Site)
		}
		dst = appendCell(dst, c, r.Stamp, site, d, inline == nil || inline(c.Column))
	}
	return dst
}

func appendCell(dst []byte, c Cell, base Stamp, site uint64, d Dict, withValue bool) []byte {
	name := d.Name(c.Column) << 1
	if withValue {
		name |= 1
	}
	dst = binary.AppendUvarint(dst, name)
	dst = binary.AppendUvarint(dst, c.Ver)
	dst = binary.AppendVarint(dst, int64(c.Stamp-base))
	dst = binary.AppendUvarint(dst, site)
	if withValue {
		dst = AppendValue(dst, c.Value)
	}
	return dst
}

// AppendValue appends the packed form of v: its kind and its content.
func AppendValue(dst []byte, v Value) []byte {
	dst = append(dst, byte(v.kind))
	switch v.kind {
	case KindInteger:
		return binary.AppendVarint(dst, int64(v.num))
	case KindReal:
		return binary.BigEndian.AppendUint64(dst, v.num)
	case KindText, KindBlob:
		dst = binary.AppendUvarint(dst, uint64(len(v.str)))
		return append(dst, v.str...)
	}
	return dst
}

// Decoder reads what the Append functions wrote. After a read beyond the end
// or of something impossible it gives zero values, and Err tells. It never
// panics and allocates no more than a small multiple of its input.
type Decoder struct {
	rest []byte
	err  error
}

// NewDecoder reads from b, which must not change while it does.
func NewDecoder(b []byte) *Decoder { return &Decoder{rest: b} }

// Err is the first error, or nil.
func (d *Decoder) Err() error { return d.err }

// Done is Err, or an error if anything was left unread.
func (d *Decoder) Done() error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail("%d bytes too many", len(d.rest))
	}
	return d.err
}

func (d *Decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	d.rest = nil
}

// Uvarint reads an unsigned number.
func (d *Decoder) Uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail("no number")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *Decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail("no number")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// Byte reads one byte.
func (d *Decoder) Byte() byte {
	b := d.Bytes(1)
	if b == nil {
		return 0
	}
	return b[0]
}

// Bytes reads n bytes; they are part of the input.
func (d *Decoder) Bytes(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail("%d bytes wanted of %d", n, len(d.rest))
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

// Text reads a length and that many bytes.
func (d *Decoder) Text() string { return string(d.Bytes(d.Uvarint())) }

// Count reads the number of elements that follow, each of at least size bytes.
func (d *Decoder) Count(size uint64) int {
	n := d.Uvarint()
	if n > uint64(len(d.rest))/size {
		d.fail("%d elements in %d bytes", n, len(d.rest))
		return 0
	}
	return int(n)
}

// Value reads one value.
func (d *Decoder) Value() Value {
	switch kind := Kind(d.Byte()); kind {
	case KindNull:
		return Null()
	case KindInteger:
		return Integer(d.varint())
	case KindReal:
		b := d.Bytes(8)
		if b == nil {
			return Null()
		}
		return Real(math.Float64frombits(binary.BigEndian.Uint64(b)))
	case KindText, KindBlob:
		return Value{kind: kind, str: d.Text()}
	default:
		d.fail("value of kind %d", kind)
		return Null()
	}
}

// Record reads a record and its writers. Columns without a value get it from
// outside, which may be nil if there are none.
func (d *Decoder) Record(l Lookup, outside func(column string) Value) (Record, []Version) {
	if f := d.Byte(); f != recordFormat {
		d.fail("record of format %d", f)
	}
	r := Record{CL: d.Uvarint(), Stamp: Stamp(d.Uvarint()), Site: d.site(l)}
	writers := make([]Version, d.Count(2))
	for i := range writers {
		writers[i] = Version{Site: d.site(l), Seq: d.Uvarint()}
	}
	if n := d.Count(4); n > 0 {
		r.Cells = make([]Cell, n)
	}
	for i := range r.Cells {
		r.Cells[i] = d.cell(l, r.Stamp, outside)
	}
	return r, writers
}

func (d *Decoder) cell(l Lookup, base Stamp, outside func(string) Value) Cell {
	name := d.Uvarint()
	c := Cell{Column: d.name(l, name>>1), Ver: d.Uvarint(), Stamp: base + Stamp(d.varint()), Site: d.site(l)}
	switch {
	case name&1 == 1:
		c.Value = d.Value()
	case outside != nil:
		c.Value = outside(c.Column)
	default:
		d.fail("column %q has no value", c.Column)
	}
	return c
}

func (d *Decoder) site(l Lookup) SiteID {
	n := d.Uvarint()
	s, ok := l.SiteAt(n)
	if !ok {
		d.fail("site %d is not listed", n)
	}
	return s
}

func (d *Decoder) name(l Lookup, n uint64) string {
	s, ok := l.NameAt(n)
	if !ok {
		d.fail("name %d is not listed", n)
	}
	return s
}
