package crdt

import (
	"cmp"
	"fmt"
	"math"
	"strings"
)

// Kind is the type of a Value. The constants are in merge order: of two
// concurrent writes with equal counts and stamps, the higher kind wins.
type Kind uint8

const (
	KindNull Kind = iota
	KindBlob
	KindText
	KindReal
	KindInteger
)

// Value is one immutable cell value, with the five types of SQLite. The zero
// Value is NULL, which is also the value of a column that was never written.
// Values may be compared with ==.
type Value struct {
	kind Kind
	num  uint64
	str  string
}

// Null is the NULL value.
func Null() Value { return Value{} }

// Blob is a value of bytes.
func Blob(b []byte) Value { return Value{kind: KindBlob, str: string(b)} }

// Text is a value of text.
func Text(s string) Value { return Value{kind: KindText, str: s} }

// Integer is a value of 64 bits.
func Integer(i int64) Value { return Value{kind: KindInteger, num: uint64(i)} }

// Real is a floating-point value. SQLite has no NaN and does not keep the sign
// of zero; to be the same on disk and in memory, NaN becomes NULL and -0 is 0.
func Real(f float64) Value {
	if math.IsNaN(f) {
		return Value{}
	}
	return Value{kind: KindReal, num: math.Float64bits(f + 0)}
}

// Kind is v's type.
func (v Value) Kind() Kind { return v.kind }

// IsNull tells whether v is NULL.
func (v Value) IsNull() bool { return v.kind == KindNull }

// Int is the number of an INTEGER, else 0.
func (v Value) Int() int64 {
	if v.kind != KindInteger {
		return 0
	}
	return int64(v.num)
}

// Float is the number of a REAL, else 0.
func (v Value) Float() float64 {
	if v.kind != KindReal {
		return 0
	}
	return math.Float64frombits(v.num)
}

// Str is the content of a TEXT or BLOB, else empty.
func (v Value) Str() string { return v.str }

// Size is about how many bytes v takes on the wire.
func (v Value) Size() int { return 2 + len(v.str) + len("12345678") }

// Compare orders values for the merge: NULL < BLOB < TEXT < REAL < INTEGER,
// then by bytes or by number. This is not SQLite's own ordering.
func (v Value) Compare(w Value) int {
	if v.kind != w.kind {
		return cmp.Compare(v.kind, w.kind)
	}
	switch v.kind {
	case KindInteger:
		return cmp.Compare(v.Int(), w.Int())
	case KindReal:
		return cmp.Compare(v.Float(), w.Float())
	default:
		return strings.Compare(v.str, w.str)
	}
}

func (v Value) String() string {
	switch v.kind {
	case KindInteger:
		return fmt.Sprint(v.Int())
	case KindReal:
		return fmt.Sprint(v.Float())
	case KindText:
		return fmt.Sprintf("%q", v.str)
	case KindBlob:
		return fmt.Sprintf("x'%x'", v.str)
	default:
		return "NULL"
	}
}
