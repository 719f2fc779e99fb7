package firstboot

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// apartEnv tells that this process has mounts of its own.
const apartEnv = "UNCLOUD_TEST_APART"

// TestMain gives the tests that mount a namespace of their own. Whatever else
// of the host makes a namespace at that moment would copy their mounts, and
// keep a device busy that they have unmounted.
func TestMain(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv(apartEnv) != "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()                            // Pdeathsig is of the thread
	again := exec.Command(os.Args[0], os.Args[1:]...) //nolint:gosec,noctx // itself; it ends with this process
	again.Env = append(os.Environ(), apartEnv+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := again.Run()
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		os.Exit(ended.ExitCode())
	case errors.Is(err, unix.EPERM): // no root that may mount
		os.Exit(m.Run())
	case err != nil:
		fmt.Fprintln(os.Stderr, "mounts of their own for the tests:", err)
		os.Exit(1)
	}
}
