package hostos

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// DefaultDir holds the files by which agent and host process speak.
const DefaultDir = "/var/lib/uncloud-host"

// files is that directory.
type files struct{ dir string }

func (f files) journal() string        { return filepath.Join(f.dir, "attempt.json") }
func (f files) orders() string         { return filepath.Join(f.dir, "orders") }
func (f files) order(id string) string { return filepath.Join(f.orders(), id+".json") }

func (f files) saveAttempt(a Attempt) error { return f.write(f.journal(), a) }

// attempt is the journal; the zero Attempt where there is none.
func (f files) attempt() (a Attempt, err error) {
	_, err = readJSON(f.journal(), &a)
	return a, err
}

// saveOrder replaces what is wanted of an attempt.
func (f files) saveOrder(o Order) error {
	if o.ID == "" || strings.ContainsAny(o.ID, "/.") {
		return fmt.Errorf("order %q cannot be a file", o.ID)
	}
	if err := os.MkdirAll(f.orders(), 0o700); err != nil {
		return fmt.Errorf("make the folder of orders: %w", err)
	}
	return f.write(f.order(o.ID), o)
}

// orderOf is what is wanted of an attempt. An order that cannot be understood
// is none: it would be no better at the next look.
func (f files) orderOf(id string) (o Order, known bool, err error) {
	known, err = readJSON(f.order(id), &o)
	if errors.Is(err, errNotUnderstood) || known && o.ID != id {
		return Order{}, false, f.removeOrder(id)
	}
	return o, known, err
}

// errNotUnderstood is of a file whose content is not what it should be.
var errNotUnderstood = errors.New("it is not understood")

// nextOrder is the one with the lowest id; the zero Order when nothing is ordered.
func (f files) nextOrder() (Order, error) {
	entries, err := os.ReadDir(f.orders()) // sorted
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Order{}, fmt.Errorf("read orders: %w", err)
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		if o, known, err := f.orderOf(id); known || err != nil {
			return o, err
		}
	}
	return Order{}, nil
}

func (f files) removeOrder(id string) error {
	err := os.Remove(f.order(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func readJSON(path string, to any) (found bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(text, to); err != nil {
		return false, fmt.Errorf("read %s: %w: %w", path, errNotUnderstood, err)
	}
	return true, nil
}

// write replaces a file so that after a power cut there is either the old one
// or the new one, whole. It is not atomicfile's: nothing else may lie beside an order.
func (f files) write(path string, v any) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(f.dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // it is gone when all went well
	_, err = temp.Write(append(text, '\n'))
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
