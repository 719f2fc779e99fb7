package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/store"
	"uncloud/internal/faults"
)

// value is a cell in JSON, without loss:
//
//	NULL     null
//	INTEGER  a number without fraction or exponent: all 64 bits are written
//	REAL     a number with a fraction or an exponent; {"real":"+Inf"}, {"real":"-Inf"}
//	TEXT     a string; {"text":"<base64>"} where it is no valid UTF-8
//	BLOB     {"blob":"<base64>"}
type value crdt.Value

func (v value) MarshalJSON() ([]byte, error) {
	c := crdt.Value(v)
	switch c.Kind() {
	case crdt.KindInteger:
		return strconv.AppendInt(nil, c.Int(), 10), nil
	case crdt.KindReal:
		return realJSON(c.Float()), nil
	case crdt.KindText:
		if !utf8.ValidString(c.Str()) {
			return json.Marshal(map[string]string{"text": base64.StdEncoding.EncodeToString([]byte(c.Str()))})
		}
		return json.Marshal(c.Str())
	case crdt.KindBlob:
		return json.Marshal(map[string]string{"blob": base64.StdEncoding.EncodeToString([]byte(c.Str()))})
	}
	return []byte("null"), nil
}

func realJSON(f float64) []byte {
	if math.IsInf(f, 0) {
		return fmt.Appendf(nil, `{"real":"%+g"}`, f)
	}
	text := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	return []byte(text)
}

func (v *value) UnmarshalJSON(b []byte) error {
	c, err := parseValue(b)
	*v = value(c)
	return err
}

func parseValue(b []byte) (crdt.Value, error) {
	switch {
	case string(b) == "null":
		return crdt.Null(), nil
	case b[0] == '"':
		var s string
		err := json.Unmarshal(b, &s)
		return crdt.Text(s), err
	case b[0] == '{':
		return parseMarked(b)
	case b[0] != '-' && (b[0] < '0' || b[0] > '9'):
		return crdt.Value{}, invalid("%s is no value: use null, a number, a string or {\"blob\":\"<base64>\"}", b)
	case strings.ContainsAny(string(b), ".eE"):
		f, err := strconv.ParseFloat(string(b), 64)
		if err != nil {
			return crdt.Value{}, invalid("%s is no 64-bit real number", b)
		}
		return crdt.Real(f), nil
	}
	i, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return crdt.Value{}, invalid("%s is no 64-bit integer; a real number has a fraction or an exponent", b)
	}
	return crdt.Integer(i), nil
}

func parseMarked(b []byte) (crdt.Value, error) {
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil || len(m) != 1 {
		return crdt.Value{}, invalid("%s is no value: an object is {\"blob\":\"<base64>\"}, {\"text\":\"<base64>\"} or {\"real\":\"+Inf\"}", b)
	}
	for kind, text := range m {
		raw, err := base64.StdEncoding.DecodeString(text)
		switch {
		case kind == "blob" && err == nil:
			return crdt.Blob(raw), nil
		case kind == "text" && err == nil:
			return crdt.Text(string(raw)), nil
		case kind == "real":
			if f, err := strconv.ParseFloat(text, 64); err == nil {
				return crdt.Real(f), nil
			}
		}
	}
	return crdt.Value{}, invalid("%s is no value", b)
}

func invalid(format string, args ...any) error {
	return faults.New(faults.Invalid, format, args...)
}

// cells is the columns of a row, or of its key.
type cells map[string]value

func cellsOf(v store.Values) cells {
	out := cells{}
	for name, c := range v {
		out[name] = value(c)
	}
	return out
}

func (c cells) values() store.Values {
	out := store.Values{}
	for name, v := range c {
		out[name] = crdt.Value(v)
	}
	return out
}
