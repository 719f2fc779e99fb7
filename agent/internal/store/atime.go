package store

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// noAtime is the flag of a file whose time of reading is not kept
// (FS_NOATIME_FL in the kernel's uapi/linux/fs.h).
const noAtime = 0x00000080

// withoutAtime keeps the files in dir, and those that will be made in it, from
// noting when they were read. Otherwise the first look at what was written
// before is a write to the disk of a machine that does nothing. It is no error
// that a file system has no such flag: then that is how it is there.
func withoutAtime(dir string) {
	flagWithoutAtime(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			flagWithoutAtime(filepath.Join(dir, e.Name()))
		}
	}
}

func flagWithoutAtime(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close() //nolint:errcheck // read only
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&noAtime == 0 {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|noAtime)
	}
}
