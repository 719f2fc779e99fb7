package store

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"uncloud/agent/internal/crdt"
)

// field is how one struct field is kept in its column:
//
//	string kinds           TEXT
//	integer kinds, bool    INTEGER
//	float kinds            REAL
//	time.Time              TEXT, RFC 3339 with nanoseconds, in UTC; NULL where zero
//	types with a text form TEXT (addresses, prefixes)
//	anything else          TEXT, canonical JSON; NULL for an empty slice or map
//
// NULL, which is also a column that was never written, reads as the zero value.
type field struct {
	column string
	index  int
	encode func(reflect.Value) (crdt.Value, error)
	decode func(crdt.Value, reflect.Value) error
}

// fieldsOf is the fields of a row struct, by their col tags. The first is the key.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		sf := t.Field(i)
		column, ok := sf.Tag.Lookup("col")
		if !ok {
			continue
		}
		f := codecOf(sf.Type)
		f.column, f.index = column, i
		out = append(out, f)
	}
	return out
}

func codecOf(t reflect.Type) field {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return field{encode: encodeTime, decode: decodeTime}
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return field{encode: encodeTextual, decode: decodeTextual}
	}
	switch {
	case t.Kind() == reflect.String:
		return field{encode: func(v reflect.Value) (crdt.Value, error) { return crdt.Text(v.String()), nil }, decode: decodeString}
	case t.Kind() == reflect.Bool:
		return field{encode: encodeBool, decode: decodeBool}
	case reflect.Zero(t).CanInt():
		return field{encode: func(v reflect.Value) (crdt.Value, error) { return crdt.Integer(v.Int()), nil }, decode: decodeInt}
	case reflect.Zero(t).CanFloat():
		return field{encode: func(v reflect.Value) (crdt.Value, error) { return crdt.Real(v.Float()), nil }, decode: decodeFloat}
	}
	return field{encode: encodeJSON, decode: decodeJSON}
}

func wrongKind(v crdt.Value, want string) error {
	return fmt.Errorf("%v is no %s", v, want)
}

func encodeTime(v reflect.Value) (crdt.Value, error) {
	t := v.Interface().(time.Time)
	if t.IsZero() {
		return crdt.Null(), nil
	}
	return crdt.Text(t.UTC().Format(time.RFC3339Nano)), nil
}

func decodeTime(v crdt.Value, into reflect.Value) error {
	if v.Kind() != crdt.KindText {
		return wrongKind(v, "time")
	}
	t, err := time.Parse(time.RFC3339Nano, v.Str())
	if err == nil {
		into.Set(reflect.ValueOf(t.UTC()))
	}
	return err
}

func encodeTextual(v reflect.Value) (crdt.Value, error) {
	b, err := v.Interface().(encoding.TextMarshaler).MarshalText()
	return crdt.Text(string(b)), err
}

func decodeTextual(v crdt.Value, into reflect.Value) error {
	if v.Kind() != crdt.KindText {
		return wrongKind(v, into.Type().String())
	}
	return into.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(v.Str()))
}

func decodeString(v crdt.Value, into reflect.Value) error {
	if v.Kind() != crdt.KindText {
		return wrongKind(v, "text")
	}
	into.SetString(v.Str())
	return nil
}

func encodeBool(v reflect.Value) (crdt.Value, error) {
	if v.Bool() {
		return crdt.Integer(1), nil
	}
	return crdt.Integer(0), nil
}

func decodeBool(v crdt.Value, into reflect.Value) error {
	if v.Kind() != crdt.KindInteger {
		return wrongKind(v, "truth value")
	}
	into.SetBool(v.Int() != 0)
	return nil
}

func decodeInt(v crdt.Value, into reflect.Value) error {
	if v.Kind() != crdt.KindInteger || into.OverflowInt(v.Int()) {
		return wrongKind(v, into.Type().String())
	}
	into.SetInt(v.Int())
	return nil
}

func decodeFloat(v crdt.Value, into reflect.Value) error {
	if v.Kind() != crdt.KindReal {
		return wrongKind(v, "number")
	}
	into.SetFloat(v.Float())
	return nil
}

func encodeJSON(v reflect.Value) (crdt.Value, error) {
	if k := v.Kind(); (k == reflect.Map || k == reflect.Slice) && v.Len() == 0 {
		return crdt.Null(), nil
	}
	b, err := json.Marshal(v.Interface())
	return crdt.Text(string(b)), err
}

func decodeJSON(v crdt.Value, into reflect.Value) error {
	if v.Kind() != crdt.KindText {
		return wrongKind(v, "JSON text")
	}
	return json.Unmarshal([]byte(v.Str()), into.Addr().Interface())
}
