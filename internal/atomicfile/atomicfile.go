// Package atomicfile owns how a small file is replaced as a whole: after a
// crash or a power cut there is the old content or the new one, and when
// Replace has returned it is the new one. It refuses to know what is in the
// file, to make folders, and to keep two writers apart: the last one wins.
//
// The agent's process for generations writes by itself (agent/internal/hostos):
// what it makes lies elsewhere than what it replaces, because a folder of its
// own is read as a list of orders.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Replace makes content that of the file at path, with the mode. The folder
// must be there. Beside the file there is another one meanwhile, whose name
// begins with a dot and has no suffix that anybody looks for; a crash may leave
// it. An error is of the file system, and names what it was about; the old
// content may then be there, or the new one.
func Replace(path string, content []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone already when the rename succeeded
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
