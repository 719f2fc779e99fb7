// Package podmantest lets tests meet a real Podman: it finds its socket, and
// runs the tests on the machine whose Podman it is. It is for tests only, and
// refuses to know what they do there.
//
// They run where UNCLOUD_TEST_PODMAN names a socket, as in
// unix:///run/podman/podman.sock. One of the form unix:///proc/PID/root/PATH
// is that of a machine in namespaces on this host, whose init is PID: the tests
// then run inside of it, because they look at its processes and files. They
// need root, and make and delete containers, images, a network "uncloud" and a
// bridge "uncloud0". `./dev test` gives them a machine of their own.
package podmantest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

const (
	socketEnv = "UNCLOUD_TEST_PODMAN"
	filesEnv  = "UNCLOUD_TEST_FILES"
)

var machineSocket = regexp.MustCompile(`^unix:///proc/(\d+)/root(/.*)$`)

// Socket is the socket of the Podman to test with. Without one, or without
// root, the test is skipped.
func Socket(t testing.TB) string {
	t.Helper()
	socket := os.Getenv(socketEnv)
	if socket == "" {
		t.Skip("needs a Podman service: set " + socketEnv)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	return socket
}

// File is the path of a file that prepare made.
func File(name string) string { return filepath.Join(os.Getenv(filesEnv), name) }

// Run runs the tests where their Podman is, and returns the exit code. prepare
// makes files that the tests need in a directory that goes with them; it is
// called on this host, and only where there is a Podman. It may be nil.
func Run(m *testing.M, prepare func(dir string) error) int {
	code, err := run(m, prepare)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func run(m *testing.M, prepare func(dir string) error) (int, error) {
	socket := os.Getenv(socketEnv)
	if socket == "" || os.Getenv(filesEnv) != "" {
		return m.Run(), nil
	}
	machine := machineSocket.FindStringSubmatch(socket)
	base := ""
	if machine != nil {
		base = "/proc/" + machine[1] + "/root/run"
	}
	dir, err := os.MkdirTemp(base, "podman-test")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if prepare != nil {
		if err := prepare(dir); err != nil {
			return 0, err
		}
	}
	if machine != nil {
		return inside(machine[1], machine[2], dir)
	}
	if err := os.Setenv(filesEnv, dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// inside runs this test binary again, in the namespaces of a machine.
func inside(pid, socket, dir string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	if err := copyFile(self, filepath.Join(dir, "test")); err != nil {
		return 0, err
	}
	there := "/run/" + filepath.Base(dir)
	args := append([]string{
		"-t", pid, "-m", "-n", "-u", "-p", "-i", "-C", "--root=/proc/" + pid + "/root", "--wd=" + dir,
		"/usr/bin/env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		socketEnv + "=unix://" + socket, filesEnv + "=" + there, there + "/test",
	}, os.Args[1:]...)
	cmd := exec.Command("nsenter", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
