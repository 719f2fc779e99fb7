package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Environment variables that move what a lab keeps on the host.
const (
	envState  = "UNCLOUD_LAB_STATE"  // disks of machines; default /var/lib/uncloud-lab
	envCache  = "UNCLOUD_LAB_CACHE"  // root trees; default $XDG_CACHE_HOME/uncloud-lab
	envRootfs = "UNCLOUD_LAB_ROOTFS" // a tar of a Debian trixie root to use, not one made by mmdebstrap
	envBin    = "UNCLOUD_LAB_BIN"    // uc and uncloudd that machines get; default bin/ of the repository
	envMirror = "UNCLOUD_LAB_MIRROR" // Debian mirror; default the host's own
)

func stateDir() string {
	if dir := os.Getenv(envState); dir != "" {
		return dir
	}
	return "/var/lib/uncloud-lab"
}

func cacheDir() (string, error) {
	if dir := os.Getenv(envCache); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w; set %s", err, envCache)
	}
	return filepath.Join(dir, "uncloud-lab"), nil
}

// Bin is the directory whose uc and uncloudd machines get.
func Bin() string {
	if dir := os.Getenv(envBin); dir != "" {
		return dir
	}
	return filepath.Join(Repository(), "bin")
}

// Repository is the root of the source tree that this program was built from
// or runs in: the nearest directory upwards with go.mod and packaging/.
func Repository() string {
	_, source, _, _ := runtime.Caller(0)
	starts := []string{filepath.Dir(source)}
	if wd, err := os.Getwd(); err == nil {
		starts = append([]string{wd}, starts...)
	}
	for _, dir := range starts {
		for ; dir != "/" && dir != "."; dir = filepath.Dir(dir) {
			_, mod := os.Stat(filepath.Join(dir, "go.mod"))
			_, unit := os.Stat(filepath.Join(dir, "packaging"))
			if mod == nil && unit == nil {
				return dir
			}
		}
	}
	return "."
}

// Ready says whether this host can run a lab, and if not, each thing that is
// missing as one sentence.
func Ready() error {
	if runtime.GOOS != "linux" {
		return errors.New("a lab needs Linux")
	}
	if os.Geteuid() != 0 {
		return errors.New("a lab makes namespaces, so it needs root: use sudo")
	}
	var missing []error
	for _, tool := range []string{"ip", "nft", "unshare", "mount", "umount", "pivot_root", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, fmt.Errorf("the program %s is missing (./dev installs it on Debian and Ubuntu)", tool))
		}
	}
	if _, err := cgroupRoot(); err != nil {
		missing = append(missing, err)
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		missing = append(missing, errors.New("/dev/net/tun is missing: try modprobe tun"))
	}
	if !hasFilesystem("overlay") {
		missing = append(missing, errors.New("the kernel has no overlay filesystem: try modprobe overlay"))
	}
	return errors.Join(missing...)
}

func hasFilesystem(name string) bool {
	known := func() bool {
		b, err := os.ReadFile("/proc/filesystems")
		return err == nil && strings.Contains(string(b), "\t"+name+"\n")
	}
	if !known() {
		_ = exec.Command("modprobe", name).Run() // modular kernels load it on the first mount anyway
	}
	return known()
}

// lock keeps two commands from changing one lab at the same time.
func (l *Lab) lock() (unlock func(), err error) { return lockFile(l.lockPath()) }

// lockPath is a file that Down removes, and otherwise the host's next boot.
func (l *Lab) lockPath() string { return "/run/uclab-" + l.Name + ".lock" }

// lockFile waits for its turn. Who held the lock before may have removed the
// file: then the turn is for the one that is there now.
func lockFile(path string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		held, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(held, there) {
			return func() { f.Close() }, nil
		}
		f.Close()
	}
}
