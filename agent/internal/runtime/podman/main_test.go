package podman

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

// The tests against a real Podman run where UNCLOUD_TEST_PODMAN names its
// socket, as in unix:///run/podman/podman.sock. A socket of the form
// unix:///proc/PID/root/PATH is that of a machine in namespaces on this host,
// whose init is PID: the tests then run inside of it, because they look at
// its processes. They need root, and make and delete containers, a network
// "uncloud" and a bridge "uncloud0".
const (
	socketEnv = "UNCLOUD_TEST_PODMAN"
	appEnv    = "UNCLOUD_TEST_APP" // path of the built testdata/app
)

var machineSocket = regexp.MustCompile(`^unix:///proc/(\d+)/root(/.*)$`)

func TestMain(m *testing.M) {
	m2 := machineSocket.FindStringSubmatch(os.Getenv(socketEnv))
	code, err := 0, error(nil)
	switch {
	case m2 != nil:
		code, err = runInside(m2[1], m2[2])
	case os.Getenv(socketEnv) != "" && os.Getenv(appEnv) == "":
		code, err = runHere(m)
	default:
		code = m.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runHere(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "podman-test")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := buildApp(filepath.Join(dir, "app")); err != nil {
		return 0, err
	}
	os.Setenv(appEnv, filepath.Join(dir, "app"))
	return m.Run(), nil
}

// runInside runs this test binary again, in the namespaces of a machine.
func runInside(pid, socket string) (int, error) {
	root := "/proc/" + pid + "/root"
	dir, err := os.MkdirTemp(root+"/run", "podman-test")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	inside := "/run/" + filepath.Base(dir)
	if err := buildApp(dir + "/app"); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	if err := copyFile(self, dir+"/test"); err != nil {
		return 0, err
	}
	args := append([]string{
		"-t", pid, "-m", "-n", "-u", "-p", "-i", "-C", "--root=" + root, "--wd=" + dir,
		"/usr/bin/env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		socketEnv + "=unix://" + socket, appEnv + "=" + inside + "/app", inside + "/test",
	}, os.Args[1:]...)
	cmd := exec.Command("nsenter", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func buildApp(to string) error {
	cmd := exec.Command("go", "build", "-o", to, "./testdata/app")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build testdata/app: %w\n%s", err, out)
	}
	return nil
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
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
