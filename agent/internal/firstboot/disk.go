package firstboot

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// Disk is what first boot does to files. The power may go between any two of
// these operations, and what was not synced may then be there, not there, or
// there in part.
type Disk interface {
	// ReadFile reads at most one byte more than a file may have.
	ReadFile(path string) ([]byte, error)
	// List names what is in a folder.
	List(dir string) ([]string, error)
	MkdirAll(dir string, mode fs.FileMode) error
	// Write makes or replaces a file, with that mode.
	Write(path string, content []byte, mode fs.FileMode) error
	// Overwrite replaces the first bytes of a file where they lie.
	Overwrite(path string, content []byte) error
	Truncate(path string, size int64) error
	// Sync makes a file's content durable, or the names in a folder.
	Sync(path string) error
	Rename(from, to string) error
	Remove(path string) error
}

// OS is the machine's own Disk.
type OS struct{}

func (OS) ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // paths are the caller's
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	return io.ReadAll(io.LimitReader(f, longest+1))
}

func (OS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func (OS) MkdirAll(dir string, mode fs.FileMode) error { return os.MkdirAll(dir, mode) }

func (OS) Write(path string, content []byte, mode fs.FileMode) error {
	return onFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode, func(f *os.File) error {
		// The mode of a file that is there already is that of another time.
		if err := f.Chmod(mode); err != nil {
			return err
		}
		_, err := f.Write(content)
		return err
	})
}

func (OS) Overwrite(path string, content []byte) error {
	return onFile(path, os.O_WRONLY, 0, func(f *os.File) error {
		_, err := f.WriteAt(content, 0)
		return err
	})
}

func (OS) Truncate(path string, size int64) error { return os.Truncate(path, size) }

func (OS) Sync(path string) error {
	return onFile(path, os.O_RDONLY, 0, (*os.File).Sync)
}

func (OS) Rename(from, to string) error { return os.Rename(from, to) }

func (OS) Remove(path string) error { return os.Remove(path) }

func onFile(path string, flags int, mode fs.FileMode, do func(*os.File) error) error {
	f, err := os.OpenFile(path, flags, mode) //nolint:gosec // paths are the caller's
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}
