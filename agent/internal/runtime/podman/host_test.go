package podman

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
)

func TestNetwork(t *testing.T) {
	e := realPodman(t)
	t.Cleanup(func() {
		must(t, e.EnsureNetwork(context.Background(), testNetwork))
	})
	must(t, e.EnsureNetwork(t.Context(), testNetwork)) // again is nothing
	other := testNetwork
	other.Subnet = netip.MustParsePrefix("10.210.8.0/24")

	id := run(t, e, request(t))
	if err := e.EnsureNetwork(t.Context(), other); !errors.Is(err, runtime.ErrNetworkBusy) {
		t.Fatalf("new subnet while a container has the old one: %v", err)
	}
	must(t, e.Remove(t.Context(), id))
	must(t, e.EnsureNetwork(t.Context(), other))
	if out := command(t, "podman", "network", "inspect", other.Name); !strings.Contains(out, "10.210.8.0/24") {
		t.Errorf("network: %s", out)
	}
}

// The bridge has its address, but Podman lost the network: its API refuses.
func TestNetworkThatPodmanLost(t *testing.T) {
	e := realPodman(t)
	if !e.local() {
		t.Skip("needs the machine's own Podman")
	}
	removeAll(t, e)
	command(t, "podman", "network", "rm", testNetwork.Name)
	must(t, e.EnsureNetwork(t.Context(), testNetwork))
	if _, err := os.Stat(filepath.Join(DefaultNetworkDir, testNetwork.Name+".json")); err != nil {
		t.Fatal(err)
	}
	must(t, e.EnsureNetwork(t.Context(), testNetwork))
	output(t, e, run(t, e, request(t)), "host")
}

func TestPodmanNotRunning(t *testing.T) {
	e := New(Config{Socket: "unix://" + filepath.Join(t.TempDir(), "absent.sock")})
	_, err := e.List(t.Context())
	fault := faults.Of(err)
	if fault == nil || fault.Code != faults.Engine || fault.Hint != "systemctl start podman.socket" ||
		!strings.HasPrefix(fault.Sentence, "Podman does not answer on /") {
		t.Errorf("%+v", fault)
	}
}

func TestPodmanComesBack(t *testing.T) {
	e := realPodman(t)
	_, err := e.Version(t.Context())
	must(t, err)
	command(t, "systemctl", "stop", "podman.socket", "podman.service")
	if _, err := e.Version(t.Context()); faults.CodeOf(err) != faults.Engine || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("stopped: %v", err)
	}
	command(t, "systemctl", "start", "podman.socket")
	if v, err := e.Version(t.Context()); err != nil || !strings.HasPrefix(v, "5.") {
		t.Errorf("started again: %q, %v", v, err)
	}
}

// powerCut leaves of Podman what a power cut leaves: no process, and no /run.
func powerCut(t *testing.T, e *Engine) {
	t.Helper()
	list, err := e.List(t.Context())
	must(t, err)
	for _, c := range list {
		if c.State.Alive() {
			conmon, process := pids(t, e, c.ID)
			kill(conmon)
			kill(process)
		}
	}
	command(t, "systemctl", "stop", "podman.service")
	unmountAll(t)
	for _, d := range runDirs {
		must(t, os.RemoveAll(filepath.Join(defaultRunDir, d)))
	}
}

func kill(pid int) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	_ = p.Kill() // gone already is as good
}

// unmountAll unmounts what containers had mounted.
func unmountAll(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if strings.HasPrefix(f[4], "/run/containers/") || strings.HasPrefix(f[4], "/run/netns/") || strings.HasSuffix(f[4], "/merged") {
			_ = exec.Command("umount", "-l", f[4]).Run() // one may be below another
		}
	}
}

func TestPowerCut(t *testing.T) {
	e := realPodman(t)
	ran, never, ended := run(t, e, request(t)), create(t, e, request(t)), run(t, e, request(t, "exit", "3"))
	awaitState(t, e, watcher(t, e), ended, runtime.Exited)
	powerCut(t, e)

	for id, want := range map[string]runtime.State{ran: runtime.Lost, never: runtime.Created, ended: runtime.Exited} {
		if c := listed(t, e, id); c.State != want || c.State == runtime.Exited && c.ExitCode != 3 {
			t.Errorf("list: %+v, want state %s", c, want)
		}
		if c := inspect(t, e, id); c.State != want {
			t.Errorf("inspect: %+v, want state %s", c, want)
		}
	}
	must(t, e.Start(t.Context(), ran))
	if c := listed(t, e, ran); c.State != runtime.Running {
		t.Errorf("started again: %+v", c)
	}
}

// Where /run is no tmpfs, a reboot leaves Podman's state there, with the id of
// the boot that wrote it, and Podman then answers nothing.
func TestStateOfAnEarlierBoot(t *testing.T) {
	e := realPodman(t)
	if !e.local() {
		t.Skip("needs the machine's own Podman")
	}
	id := run(t, e, request(t))
	powerCut(t, e)
	must(t, os.MkdirAll("/run/libpod", 0o700))
	must(t, os.WriteFile("/run/libpod/alive", []byte("00000000-0000-0000-0000-000000000000\n"), 0o644))

	again := New(Config{Socket: e.socket})
	if c := listed(t, again, id); c.State != runtime.Lost {
		t.Errorf("%+v", c)
	}
	must(t, again.Start(t.Context(), id))
}

func TestStaleRunIsClearedOnlyWhenSure(t *testing.T) {
	const here, before = "11111111-0000-0000-0000-000000000000\n", "22222222-0000-0000-0000-000000000000\n"
	for _, c := range []struct {
		name, alive, mount string
		want, fails        bool
	}{
		{"another boot", before, "", true, false},
		{"this boot", here, "", false, false},
		{"no boot id", "", "", false, false},
		{"something is mounted", before, "containers/storage/x/shm", false, true},
		{"something else is mounted", before, "containersX", true, false},
	} {
		dir := t.TempDir()
		run := filepath.Join(dir, "run")
		for _, d := range append(runDirs, "other") {
			must(t, os.MkdirAll(filepath.Join(run, d), 0o755))
		}
		must(t, os.WriteFile(filepath.Join(run, "libpod", "alive"), []byte(c.alive), 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "boot_id"), []byte(here), 0o644))
		mounts := "22 1 0:1 / / rw - ext4 a rw\n"
		if c.mount != "" {
			mounts += "23 22 0:2 / " + filepath.Join(run, c.mount) + " rw - tmpfs shm rw\n"
		}
		must(t, os.WriteFile(filepath.Join(dir, "mountinfo"), []byte(mounts), 0o644))

		did, err := clearStaleRun(run, filepath.Join(dir, "boot_id"), filepath.Join(dir, "mountinfo"))
		if did != c.want || (err != nil) != c.fails {
			t.Errorf("%s: cleared %v, %v", c.name, did, err)
		}
		if _, err := os.Stat(filepath.Join(run, "libpod")); os.IsNotExist(err) != c.want {
			t.Errorf("%s: libpod: %v", c.name, err)
		}
		if _, err := os.Stat(filepath.Join(run, "other")); err != nil {
			t.Errorf("%s: other: %v", c.name, err)
		}
	}
}

func TestWatchEndsWithItsCaller(t *testing.T) {
	e := New(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Watch(ctx, func() {}) }()
	cancel()
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("still watching")
	}
}
