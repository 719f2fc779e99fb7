package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// execCgroup holds what is run in a machine from the host. PID 1 would refuse
// strangers in its root cgroup once that has controllers.
const execCgroup = "lab-exec"

// cgroupRoot is where the cgroup2 tree is mounted: /sys/fs/cgroup on a pure
// host, /sys/fs/cgroup/unified on a hybrid one.
func cgroupRoot() (string, error) {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", errors.New("no cgroup2 tree is mounted: boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none /sys/fs/cgroup/unified")
}

func (l *Lab) cgroup() string {
	root, _ := cgroupRoot() // Ready has seen it; without one there is nothing to find below it
	return filepath.Join(root, "uclab-"+l.Name)
}

func (m *Machine) cgroup() string { return filepath.Join(m.lab.cgroup(), m.Name) }

// makeCgroup makes the machine's cgroup and hands down all controllers that
// the host gives. On a hybrid host there are none, and limits are not enforced.
func (m *Machine) makeCgroup() error {
	if err := os.MkdirAll(m.cgroup(), 0o755); err != nil {
		return fmt.Errorf("make cgroup of %s: %w", m.Name, err)
	}
	root, _ := cgroupRoot()
	for _, dir := range []string{root, m.lab.cgroup()} {
		for _, controller := range controllers(dir) {
			// Refused where the parent holds processes; the machine then lives without.
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
		}
	}
	return nil
}

func controllers(dir string) []string {
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return strings.Fields(string(b))
}

// limitsPids tells whether containers in the machine can have a pids limit.
func (m *Machine) limitsPids() bool { return slices.Contains(controllers(m.cgroup()), "pids") }

// removeCgroup kills what is left in a cgroup and removes it with all below.
func removeCgroup(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		killAll(dir)
		err := rmdirAll(dir)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// killAll kills what lives in a cgroup and below.
func killAll(dir string) {
	if os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	// Linux before 5.14: one by one.
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
		if filepath.Base(path) != "cgroup.procs" {
			return nil
		}
		b, _ := os.ReadFile(path)
		for field := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return nil
	})
}

// rmdirAll removes a tree of directories, deepest first; files in a cgroup
// cannot be removed and need not be.
func rmdirAll(dir string) error {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	slices.Reverse(dirs)
	for _, d := range dirs {
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
