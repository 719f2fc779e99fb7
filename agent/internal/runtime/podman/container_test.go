package podman

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/containers"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

func bytesReader(b []byte) io.Reader { return bytes.NewReader(b) }

func TestLifeOfAContainer(t *testing.T) {
	e := realPodman(t)
	r := request(t)
	r.Spec.Labels = map[string]string{"mine": "yes", runtime.LabelReplica: "rep_stolen"}
	r.Spec.Env = map[string]string{"BOTH": "spec", "ASKED": "1"}
	r.Env = map[string]string{"UNCLOUD_REPLICA": r.Replica}
	id := create(t, e, r)

	c := listed(t, e, id)
	want := runtime.Container{
		ID: id, Name: r.Name, Cluster: r.Cluster, Project: r.Project, Service: r.Service, Replica: r.Replica,
		Revision: r.Revision, Spec: r.Spec.Hash(), Address: r.Address, Image: testImage, State: runtime.Created,
	}
	if c != want {
		t.Fatalf("created:\n got %+v\nwant %+v", c, want)
	}
	must(t, e.Start(t.Context(), id))
	must(t, e.Start(t.Context(), id)) // no error when it runs
	if c = listed(t, e, id); c.State != runtime.Running || time.Since(c.StartedAt) > time.Minute {
		t.Fatalf("started: %+v", c)
	}
	checkInside(t, e, id, r)

	must(t, e.Stop(t.Context(), id, 10*time.Second))
	must(t, e.Stop(t.Context(), id, 10*time.Second)) // no error when it is stopped
	c = listed(t, e, id)
	if c.State != runtime.Exited || c.ExitCode != 0 || c.FinishedAt.IsZero() {
		t.Fatalf("stopped: %+v", c)
	}
	must(t, e.Remove(t.Context(), id))
	must(t, e.Remove(t.Context(), id)) // no error when it is gone
	if _, err := e.Inspect(t.Context(), id); !errors.Is(err, runtime.ErrNoContainer) {
		t.Fatalf("inspect after removal: %v", err)
	}
}

func checkInside(t *testing.T, e *Engine, id string, r runtime.ContainerRequest) {
	t.Helper()
	resolv := output(t, e, id, "cat", "/etc/resolv.conf")
	for _, line := range []string{"search shop.internal internal", "nameserver 10.210.7.1", "options ndots:2"} {
		if !strings.Contains(resolv, line) {
			t.Errorf("resolv.conf lacks %q:\n%s", line, resolv)
		}
	}
	if strings.Count(resolv, "nameserver") != 1 {
		t.Errorf("resolv.conf has other servers:\n%s", resolv)
	}
	for name, want := range map[string]string{"FROM_IMAGE": "1", "BOTH": "spec", "ASKED": "1", "UNCLOUD_REPLICA": r.Replica} {
		if got := output(t, e, id, "env", name); got != want {
			t.Errorf("env %s = %q, want %q", name, got, want)
		}
	}
	if got := output(t, e, id, "host"); got != r.Name {
		t.Errorf("host name %q, want %q", got, r.Name)
	}
	// The image has a health check that fails; the engine must not run it.
	call, err := e.call(t.Context())
	must(t, err)
	d, err := containers.Inspect(call, id, nil)
	must(t, err)
	if d.State.Health != nil {
		t.Errorf("the engine runs a health check: %+v", d.State.Health)
	}
	if p := d.HostConfig.RestartPolicy.Name; p != "no" && p != "" {
		t.Errorf("restart policy %q", p)
	}
}

func TestRichSpec(t *testing.T) {
	e := realPodman(t)
	const volume = "shop_data"
	must(t, e.EnsureVolume(t.Context(), runtime.Volume{Name: volume, Labels: map[string]string{"a": "b"}}))
	t.Cleanup(func() { must(t, e.RemoveVolume(context.Background(), volume)) })
	r := request(t)
	r.Volumes = map[string]string{"data": volume}
	r.Spec.Hostname, r.Spec.ReadOnly, r.Spec.User = "told", true, "1000:1000"
	r.Spec.ExtraHosts = []string{"db:10.1.2.3"}
	r.Spec.Ulimits = []spec.Ulimit{{Name: "core", Soft: 100, Hard: 200}}
	r.Spec.CapAdd, r.Spec.CapDrop, r.Spec.GroupAdd = []string{"NET_ADMIN"}, []string{"MKNOD"}, []string{"44"}
	r.Spec.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "80"}
	r.Spec.SecurityOpt = []string{"no-new-privileges:true", "seccomp=unconfined"}
	r.Spec.StopSignal, r.Spec.ShmSize = "usr1", 1<<20
	r.Spec.Mounts = []spec.Mount{
		{Type: spec.MountVolume, Source: "data", Target: "/data"},
		{Type: spec.MountBind, Source: "/etc/hostname", Target: "/machine-name", ReadOnly: true},
		{Type: spec.MountTmpfs, Target: "/scratch", Size: 1 << 20},
	}
	r.Spec.Files = []spec.File{
		{Target: "/etc/app/deep/conf.txt", Content: []byte("hello"), Mode: 0o640, UID: 1000, GID: 1001},
		{Target: "/plain.txt", Content: []byte("plain")},
	}
	id := run(t, e, r)

	for _, c := range []struct {
		verb []string
		want string
	}{
		{[]string{"host"}, "told"},
		{[]string{"cat", "/etc/app/deep/conf.txt"}, "hello"},
		{[]string{"stat", "/etc/app/deep/conf.txt"}, "640 1000 1001"},
		{[]string{"stat", "/plain.txt"}, "444 0 0"},
		{[]string{"cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"}, "80"},
	} {
		if got := output(t, e, id, c.verb...); got != c.want {
			t.Errorf("%v = %q, want %q", c.verb, got, c.want)
		}
	}
	output(t, e, id, "cat", "/machine-name")
	if hosts := output(t, e, id, "cat", "/etc/hosts"); !strings.Contains(hosts, "10.1.2.3") {
		t.Errorf("hosts lacks the extra host:\n%s", hosts)
	}
	limits := output(t, e, id, "cat", "/proc/self/limits")
	if !regexp.MustCompile(`Max core file size +100 +200`).MatchString(limits) {
		t.Errorf("limits:\n%s", limits)
	}
	status := output(t, e, id, "cat", "/proc/self/status")
	for _, want := range []string{"NoNewPrivs:\t1", "Groups:\t44"} {
		if !strings.Contains(status, want) {
			t.Errorf("status lacks %q", want)
		}
	}
	mounts := output(t, e, id, "cat", "/proc/mounts")
	if !strings.Contains(mounts, " /scratch tmpfs rw") || !strings.Contains(mounts, "size=1024k") || !strings.Contains(mounts, " /data ") {
		t.Errorf("mounts:\n%s", mounts)
	}
	must(t, e.Stop(t.Context(), id, 10*time.Second))
	if got := logText(t, e, id); !strings.Contains(got, "stopped by user defined signal 1") {
		t.Errorf("the stop signal was another:\n%s", got)
	}
}

func TestVolumeOutlivesItsContainer(t *testing.T) {
	e := realPodman(t)
	const volume = "shop_keep"
	must(t, e.EnsureVolume(t.Context(), runtime.Volume{Name: volume}))
	must(t, e.EnsureVolume(t.Context(), runtime.Volume{Name: volume}))
	withVolume := func() string {
		r := request(t)
		r.Volumes = map[string]string{"keep": volume}
		r.Spec.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "keep", Target: "/data"}}
		return run(t, e, r)
	}
	id := withVolume()
	output(t, e, id, "write", "/data/f", "kept")
	if err := e.RemoveVolume(t.Context(), volume); err == nil {
		t.Fatal("a volume in use was removed")
	}
	must(t, e.Remove(t.Context(), id))
	id = withVolume()
	if got := output(t, e, id, "cat", "/data/f"); got != "kept" {
		t.Errorf("content %q", got)
	}
	must(t, e.Remove(t.Context(), id))
	must(t, e.RemoveVolume(t.Context(), volume))
	must(t, e.RemoveVolume(t.Context(), volume))
	if has, err := e.HasVolume(t.Context(), volume); err != nil || has {
		t.Errorf("volume is still there: %v, %v", has, err)
	}
}

func TestCreateNeverPulls(t *testing.T) {
	e := realPodman(t)
	r := request(t)
	r.Spec.Image = "192.0.2.250/absent:1"
	began := time.Now()
	_, err := e.Create(t.Context(), r)
	fault := faults.Of(err)
	if fault == nil || fault.Code != faults.NoImage || fault.Hint != "uc image push 192.0.2.250/absent:1" {
		t.Fatalf("fault %+v", fault)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s: a registry was asked", took)
	}
}

func TestMistakesAreToldBriefly(t *testing.T) {
	e := realPodman(t)
	for want, spoil := range map[string]func(*spec.ContainerSpec){
		"not a directory":             func(c *spec.ContainerSpec) { c.Files = []spec.File{{Target: "/app/x", Content: []byte("x")}} },
		"unable to find user nobody":  func(c *spec.ContainerSpec) { c.User = "nobody" },
		"/proc/sys/net/absent":        func(c *spec.ContainerSpec) { c.Sysctls = map[string]string{"net.absent": "1"} },
		"executable file `/absent`":   func(c *spec.ContainerSpec) { c.Entrypoint = []string{"/absent"} },
		`"CAP_FLY": unknown`:          func(c *spec.ContainerSpec) { c.CapAdd = []string{"FLY"} },
		"/dev/absent":                 func(c *spec.ContainerSpec) { c.Devices = []string{"/dev/absent"} },
		"stop signal SIGFLY does not": func(c *spec.ContainerSpec) { c.StopSignal = "FLY" },
		`security option "fly=yes"`:   func(c *spec.ContainerSpec) { c.SecurityOpt = []string{"fly=yes"} },
		"volume gone of": func(c *spec.ContainerSpec) {
			c.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "gone", Target: "/x"}}
		},
	} {
		r := request(t)
		spoil(&r.Spec)
		id, err := e.Create(t.Context(), r)
		if err == nil {
			err = e.Start(t.Context(), id)
			must(t, e.Remove(t.Context(), id))
		}
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 || strings.Contains(err.Error(), "OCI runtime") {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if list, err := e.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("left behind: %+v, %v", list, err)
	}
}

func TestTakenNamesAndAddresses(t *testing.T) {
	e := realPodman(t)
	first := request(t)
	run(t, e, first)

	same := request(t)
	same.Name = first.Name
	if _, err := e.Create(t.Context(), same); !errors.Is(err, runtime.ErrNameTaken) {
		t.Errorf("second container of a name: %v", err)
	}
	twin := request(t)
	twin.Address = first.Address
	if err := e.Start(t.Context(), create(t, e, twin)); !errors.Is(err, runtime.ErrAddressTaken) {
		t.Errorf("second container with an address: %v", err)
	}
	outside := request(t)
	outside.Address = netip.MustParseAddr("10.99.99.9")
	if err := e.Start(t.Context(), create(t, e, outside)); err == nil {
		t.Error("an address outside of the subnet was accepted")
	}
}

func TestBridgeIsNeeded(t *testing.T) {
	e := realPodman(t)
	command(t, "ip", "link", "del", testNetwork.Bridge)
	t.Cleanup(func() { bridge(t, testNetwork) })
	id := create(t, e, request(t))
	if err := e.Start(t.Context(), id); !errors.Is(err, runtime.ErrNoBridge) {
		t.Fatalf("start without bridge: %v", err)
	}
	bridge(t, testNetwork)
	must(t, e.Start(t.Context(), id))
}

func TestExitIsSeenWithItsCode(t *testing.T) {
	e := realPodman(t)
	wakes := watcher(t, e)
	id := run(t, e, request(t, "lines", "1", "300ms", "7"))
	inspect(t, e, id)
	began := time.Now()
	c := awaitState(t, e, wakes, id, runtime.Exited)
	if c.ExitCode != 7 || c.FinishedAt.IsZero() {
		t.Errorf("%+v", c)
	}
	t.Logf("known %s after the process was to end", time.Since(began)-300*time.Millisecond)
}

func TestStubbornContainerIsKilledAfterGrace(t *testing.T) {
	e := realPodman(t)
	id := run(t, e, request(t, "stubborn"))
	awaitLine(t, e, id, "ready") // it is stubborn from then on
	began := time.Now()
	must(t, e.Stop(t.Context(), id, time.Second))
	if took := time.Since(began); took < time.Second || took > 8*time.Second {
		t.Errorf("took %s", took)
	}
	if c := listed(t, e, id); c.State != runtime.Exited || c.ExitCode != 137 {
		t.Errorf("%+v", c)
	}
}

func TestDeadMonitor(t *testing.T) {
	for _, withProcess := range []bool{false, true} {
		e := realPodman(t)
		wakes := watcher(t, e)
		id := run(t, e, request(t))
		conmon, process := pids(t, e, id)
		inspect(t, e, id)
		must(t, syscall.Kill(conmon, syscall.SIGKILL))
		if withProcess {
			must(t, syscall.Kill(process, syscall.SIGKILL))
		}
		c := awaitState(t, e, wakes, id, runtime.Orphaned)
		if !c.State.Alive() {
			t.Error("an orphaned container may still have a process")
		}
		must(t, e.Stop(t.Context(), id, 2*time.Second))
		must(t, e.Start(t.Context(), id))
		if c := listed(t, e, id); c.State != runtime.Running {
			t.Errorf("with process %v: after stop and start: %+v", withProcess, c)
		}
		output(t, e, id, "host")
	}
}

func TestRemoveWithDeadMonitor(t *testing.T) {
	e := realPodman(t)
	id := run(t, e, request(t))
	conmon, _ := pids(t, e, id)
	must(t, syscall.Kill(conmon, syscall.SIGKILL))
	must(t, e.Remove(t.Context(), id))
	if _, err := e.Inspect(t.Context(), id); !errors.Is(err, runtime.ErrNoContainer) {
		t.Fatal(err)
	}
}

func TestRemovalByHandIsSeen(t *testing.T) {
	e := realPodman(t)
	wakes := watcher(t, e)
	id := run(t, e, request(t))
	inspect(t, e, id)
	command(t, "podman", "rm", "-f", "-t", "0", id)
	select {
	case <-wakes:
	case <-time.After(patience):
		t.Fatal("nobody was woken")
	}
	if _, err := e.Inspect(t.Context(), id); !errors.Is(err, runtime.ErrNoContainer) {
		t.Fatal(err)
	}
}

func pids(t *testing.T, e *Engine, id string) (conmon, process int) {
	t.Helper()
	out, err := exec.Command("podman", "inspect", "-f", "{{.State.ConmonPid}} {{.State.Pid}}", id).Output()
	must(t, err)
	a, b, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	conmon, err = strconv.Atoi(a)
	must(t, err)
	process, err = strconv.Atoi(b)
	must(t, err)
	return conmon, process
}
