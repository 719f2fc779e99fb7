package firstboot

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountDir is where volumes are mounted that are not mounted anyway.
const mountDir = "/run/uncloud-first-boot"

// fileSystems are what such a volume may be made with, the likely one first.
var fileSystems = []string{"vfat", "exfat", "ext4", "iso9660"}

// MountVolume finds a volume by its label, and a folder by its path: a label
// has no slash. A volume is read where it is mounted, or mounted read-only; it
// is writable between Open and Close.
func MountVolume(label string) (*Volume, error) {
	if strings.Contains(label, "/") {
		if _, err := os.Stat(label); err != nil {
			return nil, err
		}
		return folder(label), nil
	}
	device, err := filepath.EvalSymlinks(filepath.Join("/dev/disk/by-label", escapeLabel(label)))
	if err != nil {
		return nil, err
	}
	return openVolume(label, device, filepath.Join(mountDir, escapeLabel(label)))
}

// openVolume reads a device where it is mounted, or mounts it.
func openVolume(label, device, at string) (*Volume, error) {
	mounted, ok := mountedAt(device)
	if ok {
		return &Volume{Name: label, Path: mounted, Open: func() error { return remount(mounted, false) }, Close: closer(mounted, nil)}, nil
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		return nil, err
	}
	if err := mount(device, at); err != nil {
		os.Remove(at) //nolint:errcheck,gosec // an empty folder in memory
		return nil, err
	}
	return &Volume{Name: label, Path: at, Open: func() error { return remount(at, false) }, Close: closer(at, func() error {
		return errors.Join(unix.Unmount(at, 0), os.Remove(at))
	})}, nil
}

// folder is a volume that needs nothing.
func folder(path string) *Volume {
	nothing := func() error { return nil }
	return &Volume{Name: path, Path: path, Open: nothing, Close: nothing}
}

// escapeLabel is how udev writes a label in the name of a link.
func escapeLabel(label string) string {
	var b strings.Builder
	for _, c := range []byte(label) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c >= 0x80, strings.IndexByte("#+-.:=@_", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

func mount(device, at string) error {
	var said []error
	for _, kind := range fileSystems {
		err := unix.Mount(device, at, kind, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.ENODEV) { // the kernel does not know this kind
			said = append(said, fmt.Errorf("as %s: %w", kind, err))
		}
	}
	return fmt.Errorf("%s cannot be mounted: %w", device, oneLine(said))
}

func oneLine(errs []error) error {
	var out error
	for _, err := range errs {
		if out == nil {
			out = err
			continue
		}
		out = fmt.Errorf("%w, %w", out, err)
	}
	return out
}

// closer makes a volume what it was: read-only again where it was that.
func closer(at string, then func() error) func() error {
	was, err := isReadOnly(at)
	return func() error {
		if err != nil {
			return err
		}
		now, err := isReadOnly(at)
		if err == nil && was && !now {
			err = errors.Join(syncAll(at), remount(at, true))
		}
		if then != nil {
			err = errors.Join(err, then())
		}
		return err
	}
}

func syncAll(at string) error {
	f, err := os.Open(at) //nolint:gosec // a mount point
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close()) //nolint:gosec // a file descriptor
}

func isReadOnly(at string) (bool, error) {
	var st unix.Statfs_t
	err := unix.Statfs(at, &st)
	return st.Flags&unix.ST_RDONLY != 0, err
}

// remount makes a mounted volume writable or read-only, and keeps what else
// was said when it was mounted. Nothing is done where it is that already.
func remount(at string, readOnly bool) error {
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return err
	}
	if (st.Flags&unix.ST_RDONLY != 0) == readOnly {
		return nil
	}
	flags := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME) //nolint:gosec // flags
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	return unix.Mount("", at, "", unix.MS_REMOUNT|flags, "")
}

// mountedAt is where a device is mounted already.
func mountedAt(device string) (string, bool) {
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return "", false
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", false
	}
	defer f.Close() //nolint:errcheck // it was only read
	return mountPoint(f, fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
}

// mountPoint finds a device's whole file system in the kernel's list.
func mountPoint(mounts io.Reader, device string) (string, bool) {
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) > 4 && f[2] == device && f[3] == "/" {
			return unescapeMount(f[4]), true
		}
	}
	return "", false
}

// unescapeMount undoes the octal escapes of the kernel's list.
func unescapeMount(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		if text[0] == '\\' && len(text) >= 4 {
			if n, err := strconv.ParseUint(text[1:4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				text = text[4:]
				continue
			}
		}
		b.WriteByte(text[0])
		text = text[1:]
	}
	return b.String()
}
