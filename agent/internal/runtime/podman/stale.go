package podman

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Podman's and crun's directories under /run. Where /run is not a tmpfs they
// outlive a reboot, and Podman then answers nothing at all.
var runDirs = []string{"libpod", "containers", "crun"}

// clearStaleRun deletes Podman's state under /run when that is surely of an
// earlier boot: the service is this machine's own, the boot id that Podman
// left there is another than the kernel's, and nothing is mounted below. It
// says whether it did.
func (e *Engine) clearStaleRun() (bool, error) {
	if !e.local() {
		return false, nil
	}
	return clearStaleRun(e.runDir, e.bootID, "/proc/self/mountinfo")
}

func clearStaleRun(runDir, bootIDFile, mountInfo string) (bool, error) {
	left, err := os.ReadFile(filepath.Join(runDir, "libpod", "alive"))
	if err != nil || len(left) == 0 {
		return false, nil // Podman never ran, or wrote no id: nothing is known to be stale
	}
	now, err := os.ReadFile(bootIDFile)
	if err != nil || bytes.Equal(bytes.TrimSpace(left), bytes.TrimSpace(now)) {
		return false, err
	}
	if err := refuseMounts(runDir, mountInfo); err != nil {
		return false, err
	}
	for _, d := range runDirs {
		if err := os.RemoveAll(filepath.Join(runDir, d)); err != nil {
			return false, fmt.Errorf("remove state of an earlier boot: %w", err)
		}
	}
	return true, nil
}

// refuseMounts is an error when something is mounted below one of runDirs: no
// mount survives a reboot, so the state is in use and deleting would reach
// into a container's file system.
func refuseMounts(runDir, mountInfo string) error {
	text, err := os.ReadFile(mountInfo)
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		for _, d := range runDirs {
			if strings.HasPrefix(f[4]+"/", filepath.Join(runDir, d)+"/") {
				return fmt.Errorf("%s is mounted", f[4])
			}
		}
	}
	return nil
}
