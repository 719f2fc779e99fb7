package firstboot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// directory is where what was read is kept for the boots to come.
type directory struct {
	disk Disk
	path string
}

func (d directory) read(name string) (string, bool) {
	content, err := d.disk.ReadFile(path.Join(d.path, name))
	return string(content), err == nil
}

// put makes a file whole or not at all, and durable. A file that is there as
// it should be is left alone: it may be on a card.
func (d directory) put(f file) error {
	at := path.Join(d.path, f.name)
	if was, err := d.disk.ReadFile(at); err == nil && bytes.Equal(was, []byte(f.content)) {
		return d.disk.Sync(path.Dir(at)) // the name may be of a moment ago
	}
	if err := d.folder(path.Dir(at), f.mode); err != nil {
		return err
	}
	fresh := at + ".new"
	if err := d.disk.Write(fresh, []byte(f.content), f.mode); err != nil {
		return d.failed(f.name, fresh, err)
	}
	if err := d.disk.Sync(fresh); err != nil {
		return d.failed(f.name, fresh, err)
	}
	if err := d.disk.Rename(fresh, at); err != nil {
		return d.failed(f.name, fresh, err)
	}
	return d.disk.Sync(path.Dir(at))
}

// failed leaves no half of a secret behind.
func (d directory) failed(name, fresh string, err error) error {
	d.disk.Remove(fresh) //nolint:errcheck,gosec // it may not be there
	return fmt.Errorf("write %s: %w", path.Join(d.path, name), err)
}

// folder makes a folder. One of secrets is for root only; the directory itself
// is open, since sshd reads the keys in it as the user who comes.
func (d directory) folder(dir string, mode fs.FileMode) error {
	folder := fs.FileMode(0o755)
	if dir != d.path && mode&0o077 == 0 {
		folder = 0o700
	}
	if err := d.disk.MkdirAll(dir, folder); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	for at := dir; ; at = path.Dir(at) {
		if err := d.disk.Sync(path.Dir(at)); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
		if at == d.path || len(at) < len(d.path) {
			return nil
		}
	}
}

func (d directory) remove(name string) error {
	at := path.Join(d.path, name)
	err := d.disk.Remove(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", at, err)
	}
	return d.disk.Sync(path.Dir(at))
}

// before reads what the new files follow from. A configuration that cannot be
// read is as good as none: it is about to be written anew.
func (d directory) before() before {
	var was before
	if text, ok := d.read(ConfigFile); ok {
		json.Unmarshal([]byte(text), &was.config) //nolint:errcheck,gosec // see above
	}
	wifis, err := d.wifis()
	was.hasWiFi = err == nil && len(wifis) > 0
	return was
}

// wifis are the files of the known networks.
func (d directory) wifis() ([]string, error) {
	names, err := d.disk.List(path.Join(d.path, wifiDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, n := range names {
		if strings.HasSuffix(n, ".psk") {
			out = append(out, path.Join(wifiDir, n))
		}
	}
	return out, nil
}

// given are the networks that iwd has from here, by the names of their files.
// Those of wanted are written down as such before it has them, so that no
// password is left of which nobody knows any more.
func (d directory) given(wanted []string) ([]string, error) {
	text, _ := d.read(givenFile)
	given := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
	return given, d.give(slices.Concat(given, wanted))
}

// give writes down which networks iwd has from here.
func (d directory) give(names []string) error {
	all := make([]string, 0, len(names))
	for _, n := range names {
		all = append(all, path.Base(n))
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) == 0 {
		return d.remove(givenFile)
	}
	return d.put(file{givenFile, strings.Join(all, "\n") + "\n", 0o600})
}

// place puts the settings into the directory. It can be repeated after it
// stopped anywhere, with the same result.
func (d directory) place(s Settings) error {
	files, err := s.files(d.path, d.before())
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := d.put(f); err != nil {
			return err
		}
	}
	if s.WiFi.Network == "" {
		return nil
	}
	wifis, err := d.wifis()
	if err != nil {
		return err
	}
	for _, old := range wifis {
		if old != path.Join(wifiDir, wifiName(s.WiFi.Network)) {
			if err := d.remove(old); err != nil {
				return err
			}
		}
	}
	return nil
}
