package firstboot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"strings"
)

// takenHead begins a file whose secrets are being overwritten. It fits into
// one sector, so it is there or not there after a loss of power, and it is
// shorter than what is removed with any secret.
const takenHead = "#read\n"

// readSuffix is put to the name of a file that was read.
const readSuffix = ".read"

// taking says that a file of a volume is in the directory whole, and what is
// to be left of it on the volume.
type taking struct {
	Volume string `json:"volume"`
	File   string `json:"file"`
	Left   string `json:"left"`
}

// redact is the text of a file without ticket and password, for its owner to
// read. It is never longer than the content that it was made of, so that it
// fits on a full volume in the same place.
func redact(content []byte) string {
	text, err := decode(content)
	if err != nil {
		return takenHead
	}
	out := strings.Builder{}
	out.WriteString(takenHead)
	for _, line := range linesOf(strings.TrimRight(text, "\r\n")) {
		// Also of a line that somebody made a comment: what it says may still be good.
		bare := strings.TrimLeft(line, "# \t")
		name, _, ok := split(bare)
		switch {
		case !ok || !keys[name].secret:
		case name == "wifi":
			if network, _, whole := strings.Cut(bare, " / "); whole {
				line = "#" + network + " /"
			}
		default:
			line = "#" + name
		}
		out.WriteString(line + "\n")
	}
	return out.String()[:min(out.Len(), len(content))]
}

// isTaken tells whether the overwriting of a file has begun. Only the machine
// that began knows: elsewhere the head is a comment like any other.
func (d directory) isTaken(volume, name string, content []byte) (taking, bool) {
	t, ok := d.taking()
	return t, ok && t.Volume == volume && t.File == name && bytes.HasPrefix(content, []byte(takenHead))
}

// take gets the secrets of a file off its volume. The directory has all of it.
// A file without a secret only gets its new name.
func (d directory) take(volume, at string, content []byte, secret bool) error {
	if !secret {
		return d.finish(at)
	}
	t := taking{Volume: volume, File: path.Base(at), Left: redact(content)}
	text, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("encode %s: %w", takingFile, err)
	}
	if err := d.put(file{takingFile, string(text) + "\n", 0o600}); err != nil {
		return err
	}
	if err := d.disk.Overwrite(at, []byte(takenHead)); err != nil {
		return err
	}
	if err := d.disk.Sync(at); err != nil {
		return err
	}
	return d.wipe(at, t, len(content))
}

// wipe overwrites a file that begins with the head, whatever else is in it.
func (d directory) wipe(at string, t taking, size int) error {
	over := t.Left + strings.Repeat("\n", max(0, size-len(t.Left)))
	if err := d.disk.Overwrite(at, []byte(over)); err != nil {
		return err
	}
	// Cut off before that, the old bytes would lie in blocks that nobody has.
	if err := d.disk.Sync(at); err != nil {
		return err
	}
	if err := d.disk.Truncate(at, int64(len(t.Left))); err != nil {
		return err
	}
	if err := d.disk.Sync(at); err != nil {
		return err
	}
	if err := d.finish(at); err != nil {
		return err
	}
	return d.remove(takingFile)
}

func (d directory) finish(at string) error {
	if err := d.disk.Rename(at, at+readSuffix); err != nil {
		return err
	}
	return d.disk.Sync(path.Dir(at))
}

func (d directory) taking() (t taking, ok bool) {
	text, ok := d.read(takingFile)
	return t, ok && json.Unmarshal([]byte(text), &t) == nil
}
