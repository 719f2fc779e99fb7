package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

var messages = protojson.MarshalOptions{EmitUnpopulated: true}

// Message is an API message as JSON in which every field is there. The
// protojson package varies its blanks on purpose; here they are taken out.
func Message(m proto.Message) (json.RawMessage, error) {
	b, err := messages.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return compact.Bytes(), nil
}

// JSON writes a message, indented.
func JSON(w io.Writer, m proto.Message) error {
	b, err := Message(m)
	if err != nil {
		return err
	}
	return Value(w, b)
}

// Value writes any value that is no message, indented.
func Value(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
