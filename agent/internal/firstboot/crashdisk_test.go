package firstboot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand"
	"path"
	"slices"
	"strings"
)

// crashDisk is a Disk of which the power can be cut. What was not synced is
// then there, not there, or there in part: sectors of a file in any mixture,
// and names up to any point.
type crashDisk struct {
	root  *node
	steps int                         // operations that changed something, or tried to
	cutAt int                         // the power goes before this one; 0: never
	fail  func(op, path string) error // an error instead of the operation
	// loose are folders where a rename may be cut in its middle: both names
	// are there then. FAT does that.
	loose string
	// freed is what lies in blocks that no file has any more: what was not
	// overwritten before it was cut off.
	freed []byte
}

type node struct {
	names   map[string]*node // nil: a file
	was     map[string]*node // as they were synced
	pending []func(names map[string]*node, half bool)
	content []byte
	durable []byte
	mode    fs.FileMode
}

// powerCut is what the operation at the cut panics with.
type powerCut struct{}

const sector = 16 // small, so that small files have many

func newFolder() *node { return &node{names: map[string]*node{}, was: map[string]*node{}, mode: 0o755} }

func newCrashDisk(loose string) *crashDisk { return &crashDisk{root: newFolder(), loose: loose} }

func (d *crashDisk) step(op, at string) error {
	if d.fail != nil {
		if err := d.fail(op, at); err != nil {
			return &fs.PathError{Op: op, Path: at, Err: err}
		}
	}
	d.steps++
	if d.steps == d.cutAt {
		panic(powerCut{})
	}
	return nil
}

func (d *crashDisk) find(at string) *node {
	n := d.root
	for _, part := range strings.FieldsFunc(at, func(r rune) bool { return r == '/' }) {
		if n == nil || n.names == nil {
			return nil
		}
		n = n.names[part]
	}
	return n
}

func missing(op, at string) error { return &fs.PathError{Op: op, Path: at, Err: fs.ErrNotExist} }

func (d *crashDisk) ReadFile(at string) ([]byte, error) {
	n := d.find(at)
	if n == nil || n.names != nil {
		return nil, missing("read", at)
	}
	return bytes.Clone(n.content), nil
}

func (d *crashDisk) List(at string) ([]string, error) {
	n := d.find(at)
	if n == nil || n.names == nil {
		return nil, missing("list", at)
	}
	return slices.Sorted(maps.Keys(n.names)), nil
}

// change does something to the names of a folder, durable at its next sync.
func (n *node) change(do func(names map[string]*node, half bool)) {
	do(n.names, false)
	n.pending = append(n.pending, do)
}

func (n *node) put(name string, child *node) {
	n.change(func(names map[string]*node, _ bool) { names[name] = child })
}

func (d *crashDisk) MkdirAll(at string, mode fs.FileMode) error {
	if err := d.step("mkdir", at); err != nil {
		return err
	}
	n := d.root
	for _, part := range strings.FieldsFunc(at, func(r rune) bool { return r == '/' }) {
		if n.names[part] == nil {
			child := newFolder()
			child.mode = mode
			n.put(part, child)
		}
		n = n.names[part]
	}
	return nil
}

func (d *crashDisk) Write(at string, content []byte, mode fs.FileMode) error {
	if err := d.step("write", at); err != nil {
		return err
	}
	dir := d.find(path.Dir(at))
	if dir == nil {
		return missing("write", at)
	}
	n := dir.names[path.Base(at)]
	if n == nil {
		n = &node{}
		dir.put(path.Base(at), n)
	}
	n.content, n.mode = bytes.Clone(content), mode
	return nil
}

func (d *crashDisk) Overwrite(at string, content []byte) error {
	if err := d.step("overwrite", at); err != nil {
		return err
	}
	n := d.find(at)
	if n == nil {
		return missing("overwrite", at)
	}
	if len(content) > len(n.content) {
		return fmt.Errorf("overwrite %s grows it from %d to %d bytes", at, len(n.content), len(content))
	}
	n.content = append(bytes.Clone(content), n.content[len(content):]...)
	return nil
}

func (d *crashDisk) Truncate(at string, size int64) error {
	if err := d.step("truncate", at); err != nil {
		return err
	}
	n := d.find(at)
	if int64(len(n.durable)) > size {
		d.freed = append(d.freed, n.durable[size:]...)
	}
	n.content = bytes.Clone(n.content[:size])
	return nil
}

func (d *crashDisk) Sync(at string) error {
	if err := d.step("sync", at); err != nil {
		return err
	}
	n := d.find(at)
	if n == nil {
		return missing("sync", at)
	}
	n.sync()
	return nil
}

func (n *node) sync() {
	n.durable = bytes.Clone(n.content)
	n.was, n.pending = maps.Clone(n.names), nil
}

func (d *crashDisk) Rename(from, to string) error {
	if err := d.step("rename", from); err != nil {
		return err
	}
	if path.Dir(from) != path.Dir(to) {
		return errors.New("a rename to another folder")
	}
	dir := d.find(path.Dir(from))
	n := dir.names[path.Base(from)]
	if n == nil {
		return missing("rename", from)
	}
	loose := d.loose != "" && strings.HasPrefix(from, d.loose)
	dir.change(func(names map[string]*node, half bool) {
		if half && !loose {
			return
		}
		names[path.Base(to)] = n
		if !half {
			delete(names, path.Base(from))
		}
	})
	return nil
}

func (d *crashDisk) Remove(at string) error {
	if err := d.step("remove", at); err != nil {
		return err
	}
	dir := d.find(path.Dir(at))
	if dir == nil || dir.names[path.Base(at)] == nil {
		return missing("remove", at)
	}
	dir.change(func(names map[string]*node, half bool) {
		if !half {
			delete(names, path.Base(at))
		}
	})
	return nil
}

// restart is what the disk holds after the power went: one of the many
// possibilities, by chance.
func (d *crashDisk) restart(chance *rand.Rand) {
	d.steps, d.cutAt = 0, 0
	d.root.settle(chance, map[*node]bool{})
}

func (n *node) settle(chance *rand.Rand, seen map[*node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	if n.names == nil {
		n.content = mixture(chance, n.durable, n.content)
		n.sync()
		return
	}
	names := maps.Clone(n.was)
	upTo := chance.Intn(len(n.pending) + 1)
	for i, do := range n.pending {
		if i < upTo || i == upTo && chance.Intn(2) == 0 {
			do(names, i == upTo)
		}
	}
	n.names = names
	n.sync()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		names[name].settle(chance, seen)
	}
}

// mixture has each sector of one or the other, and the length of one of them.
func mixture(chance *rand.Rand, a, b []byte) []byte {
	out := make([]byte, []int{len(a), len(b)}[chance.Intn(2)])
	for at := 0; at < len(out); at += sector {
		from := [][]byte{a, b}[chance.Intn(2)]
		if at < len(from) {
			copy(out[at:min(at+sector, len(out))], from[at:])
		}
	}
	return out
}

// all is every file by its path, with its mode.
func (d *crashDisk) all() map[string]string {
	out := map[string]string{}
	d.root.walk("", out)
	return out
}

func (n *node) walk(at string, out map[string]string) {
	if n.names == nil {
		out[at] = fmt.Sprintf("%o %s", n.mode.Perm(), n.content)
		return
	}
	for name, child := range n.names {
		child.walk(at+"/"+name, out)
	}
}

// lay puts a durable file there.
func (d *crashDisk) lay(at, content string) {
	d.MkdirAll(path.Dir(at), 0o755)          //nolint:errcheck // a fake
	d.Write(at, []byte(content), 0o755)      //nolint:errcheck // a fake
	for p := at; p != "/"; p = path.Dir(p) { //nolint:intrange // paths
		d.find(p).sync()
	}
	d.root.sync()
	d.steps = 0
}
