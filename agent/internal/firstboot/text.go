package firstboot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// longest bounds what is read of a file: a ticket is a few kB.
const longest = 256 << 10

var errNoText = errors.New("it is no plain text: save it as plain text, in UTF-8")

// decode makes text of what editors write: UTF-8 with or without a byte order
// mark, or UTF-16 with one.
func decode(content []byte) (string, error) {
	switch {
	case len(content) > longest:
		return "", fmt.Errorf("it is larger than %d kB: that is no such file", longest>>10)
	case bytes.HasPrefix(content, []byte{0xff, 0xfe}):
		return decodeUTF16(content[2:], binary.LittleEndian)
	case bytes.HasPrefix(content, []byte{0xfe, 0xff}):
		return decodeUTF16(content[2:], binary.BigEndian)
	case bytes.HasPrefix(content, []byte(`{\rtf`)):
		return "", errors.New("it is a formatted document: save it as plain text")
	case bytes.IndexByte(content, 0) >= 0:
		return "", errNoText
	}
	return string(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))), nil
}

func decodeUTF16(content []byte, order binary.ByteOrder) (string, error) {
	if len(content)%2 != 0 {
		return "", errNoText
	}
	units := make([]uint16, len(content)/2)
	for i := range units {
		units[i] = order.Uint16(content[2*i:])
	}
	text := string(utf16.Decode(units))
	if strings.ContainsRune(text, 0) {
		return "", errNoText
	}
	return text, nil
}

// linesOf are the lines of a text, whatever ends them.
func linesOf(text string) []string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	return strings.Split(strings.ReplaceAll(text, "\r", "\n"), "\n")
}

// checkLine refuses what nobody can see, and would not find.
func checkLine(line string) error {
	if !utf8.ValidString(line) {
		return errors.New("this is not UTF-8: save the file as UTF-8")
	}
	for _, r := range line {
		switch {
		case r == '\t' || r == zeroWidthJoiner:
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError:
			return fmt.Errorf("there is an invisible character (U+%04X): type the line anew", r)
		}
	}
	return nil
}

// zeroWidthJoiner is in the names of networks that have an emoji.
const zeroWidthJoiner = '\u200d'

// withoutComment cuts a comment: "#" at the beginning or after a space.
func withoutComment(value string) (rest string, had bool) {
	for i, r := range value {
		if r != '#' {
			continue
		}
		before, _ := utf8.DecodeLastRuneInString(value[:i])
		if i == 0 || unicode.IsSpace(before) {
			return strings.TrimSpace(value[:i]), true
		}
	}
	return value, false
}

// quotes are pairs around a value that editors and habits put there.
var quotes = [][2]string{{`"`, `"`}, {"'", "'"}, {"`", "`"}, {"“", "”"}, {"„", "“"}, {"„", "”"}, {"‘", "’"}, {"‚", "‘"}, {"«", "»"}, {"»", "«"}}

func isQuoted(value string) bool {
	for _, q := range quotes {
		if len(value) > len(q[0]) && strings.HasPrefix(value, q[0]) && strings.HasSuffix(value, q[1]) {
			return true
		}
	}
	return false
}
