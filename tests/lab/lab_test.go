package lab_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uncloud/tests/lab"
)

// bare gives a lab of machines without a cluster, gone when the test ends.
func bare(t *testing.T, name string, machines int) *lab.Lab {
	t.Helper()
	if err := lab.Ready(); err != nil {
		lab.SkipOrFail(t, err)
	}
	opts := lab.Options{Name: name, Machines: machines, Bare: true, Bin: t.TempDir()}
	l, err := lab.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Down(t.Context()); err != nil { // of a test that was killed
		t.Fatal(err)
	}
	if l, err = lab.Up(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
		noTrace(t, name)
	})
	return l
}

// noTrace fails when anything of a lab is left on the host.
func noTrace(t *testing.T, name string) {
	t.Helper()
	for _, pattern := range []string{
		"/run/netns/uclab-" + name + "-*", "/run/uclab-" + name + "*", "/sys/fs/cgroup/uclab-" + name, "/sys/fs/cgroup/*/uclab-" + name, "/var/lib/uncloud-lab/" + name,
	} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil || strings.Contains(string(mounts), "/uncloud-lab/"+name+"/") {
		t.Errorf("mounts left behind, or unknown: %v", err)
	}
}

func reaches(ctx context.Context, from, to *lab.Machine) bool {
	r, err := from.Exec(ctx, "ping", "-c1", "-W1", to.Address().String())
	return err == nil && r.Code == 0
}

func TestCutStopsBothDirectionsAndHealRestores(t *testing.T) {
	l := bare(t, "test-cut", 3)
	ctx := t.Context()
	expect := func(step string, connected map[[2]int]bool) {
		t.Helper()
		for a := 1; a <= 3; a++ {
			for b := a + 1; b <= 3; b++ {
				want := connected[[2]int{a, b}]
				if got := reaches(ctx, l.M(a), l.M(b)); got != want {
					t.Errorf("%s: m%d reaches m%d: %v, want %v", step, a, b, got, want)
				}
				if got := reaches(ctx, l.M(b), l.M(a)); got != want {
					t.Errorf("%s: m%d reaches m%d: %v, want %v", step, b, a, got, want)
				}
			}
		}
	}
	all := map[[2]int]bool{{1, 2}: true, {1, 3}: true, {2, 3}: true}
	expect("at first", all)
	try(t, l.Cut(ctx, "m1"))
	expect("m1 cut off", map[[2]int]bool{{2, 3}: true})
	if !reaches(ctx, l.Outside(), l.M(1)) || !reaches(ctx, l.Outside(), l.M(2)) {
		t.Error("the outside must reach both sides")
	}
	try(t, l.Heal(ctx))
	expect("healed", all)
	try(t, l.CutPair(ctx, "m2", "m3"))
	expect("one pair", map[[2]int]bool{{1, 2}: true, {1, 3}: true})
	if cut, err := l.M(3).CutFrom(ctx); err != nil || len(cut) != 1 || cut[0] != "m2" {
		t.Errorf("m3 is cut from %v, %v", cut, err)
	}
}

func TestPowerCutKeepsTheDiskAndEndsEverythingElse(t *testing.T) {
	l := bare(t, "test-power", 1)
	ctx, m := t.Context(), l.M(1)
	try(t, m.WriteFile(ctx, "/srv/kept/file", "content"))
	if _, err := m.Shell(ctx, "touch /run/lost; systemd-run --unit worker sleep 1000"); err != nil {
		t.Fatal(err)
	}
	try(t, m.Kill(ctx))
	if m.Running() {
		t.Error("still running")
	}
	if _, err := m.Exec(ctx, "true"); err == nil || !strings.Contains(err.Error(), "lab start m1") {
		t.Errorf("exec on a machine without power: %v", err)
	}
	try(t, m.Start(ctx))
	got, err := m.Shell(ctx, "cat /srv/kept/file; test ! -e /run/lost; systemctl is-active worker || true")
	if err != nil || got != "contentinactive\n" {
		t.Errorf("after start: %q, %v", got, err)
	}
	try(t, m.Reboot(ctx))
	if got, err := m.Output(ctx, "cat", "/srv/kept/file"); err != nil || got != "content" {
		t.Errorf("after reboot: %q, %v", got, err)
	}
}

func TestExecPassesInputOutputAndExitCode(t *testing.T) {
	l := bare(t, "test-exec", 1)
	ctx, m := t.Context(), l.M(1)
	cmd := m.Command(ctx, "sh", "-c", `cat; echo "$HOME $(hostname)" >&2; exit 7`)
	var out, errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("in"), &out, &errs
	if code := lab.ExitCode(cmd.Run()); code != 7 || out.String() != "in" || errs.String() != "/root m1\n" {
		t.Errorf("code %d, stdout %q, stderr %q", code, &out, &errs)
	}
	if r, err := m.Exec(ctx, "sh", "-c", "kill -9 $$"); err != nil || r.Code != 137 {
		t.Errorf("killed command: %+v, %v", r, err)
	}
	if r, err := m.Exec(ctx, "no-such-program"); err != nil || r.Code != 127 {
		t.Errorf("missing command: %+v, %v", r, err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := m.Exec(short, "sleep", "1000"); err == nil {
		t.Error("a command outlived its context")
	}
	if r, _ := m.Exec(ctx, "pgrep", "-x", "sleep"); r.Code != 1 {
		t.Errorf("the command of an ended context still runs: %q", r.Stdout)
	}
}

func TestMachinesHaveWhatTheProductNeeds(t *testing.T) {
	l := bare(t, "test-needs", 2)
	ctx := t.Context()
	for name, script := range map[string]string{
		"systemd as PID 1, nothing failed":  `test "$(systemctl is-system-running)" = running`,
		"a pure cgroup v2 tree":             `test -e /sys/fs/cgroup/cgroup.procs`,
		"a tun device":                      `test -c /dev/net/tun`,
		"forwarding":                        `test "$(cat /proc/sys/net/ipv4/ip_forward)" = 1`,
		"the product's unit and group":      `systemctl is-enabled uncloud; getent group uncloud`,
		"Podman with systemd and cgroup v2": `test "$(podman info -f '{{.Host.CgroupManager}} {{.Host.CgroupsVersion}}')" = 'systemd v2'`,
		"login with the lab's key":          `ssh root@192.0.2.2 hostname | grep -x m2`,
		"no way to a registry":              `! timeout 2 curl -s http://203.0.113.1/`,
		"an internet that answers":          `ping -c1 -W1 198.51.100.1`,
		"a kernel it cannot harm":           `! date -s 2001-01-01; ! touch /proc/sys/kernel/panic_on_oops 2>/dev/null || ! echo 0 > /proc/sys/kernel/panic_on_oops`,
	} {
		if _, err := l.M(1).Shell(ctx, script); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestImageNeedsNoRegistry(t *testing.T) {
	l := bare(t, "test-image", 2)
	ctx := t.Context()
	dir := t.TempDir()
	source := "package main\nimport \"fmt\"\nfunc main() { fmt.Println(\"made here\") }\n"
	try(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644))
	try(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module made\n\ngo 1.26\n"), 0o644))
	try(t, l.Image(ctx, dir, "made:1"))
	for _, m := range []*lab.Machine{l.M(1), l.M(2)} {
		if out, err := m.Output(ctx, "podman", "run", "--rm", "--network=none", "made:1"); err != nil || out != "made here\n" {
			t.Errorf("%s: %q, %v", m.Name, out, err)
		}
	}
	first, err := m1ID(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	try(t, l.Image(ctx, dir, "made:1"))
	if again, err := m1ID(ctx, l); err != nil || again != first {
		t.Errorf("equal sources gave %s and %s, %v", first, again, err)
	}
}

func m1ID(ctx context.Context, l *lab.Lab) (string, error) {
	return l.M(1).Output(ctx, "podman", "images", "--no-trunc", "-q", "made:1")
}

func TestCopyActsLikeCp(t *testing.T) {
	l := bare(t, "test-copy", 2)
	ctx, dir := t.Context(), t.TempDir()
	try(t, os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o640))
	try(t, l.Copy(ctx, filepath.Join(dir, "file"), "m1:/srv/new/name"))
	try(t, l.Copy(ctx, "m1:/srv/new", "m2:/srv"))
	try(t, l.Copy(ctx, "m2:/srv/new/name", dir+"/back/"))
	got, err := os.ReadFile(filepath.Join(dir, "back/name"))
	if err != nil || string(got) != "content" {
		t.Errorf("after three copies: %q, %v", got, err)
	}
	if mode, err := l.M(2).Output(ctx, "stat", "-c", "%a", "/srv/new/name"); err != nil || mode != "640\n" {
		t.Errorf("mode %q, %v", mode, err)
	}
	for _, pair := range [][2]string{{"m1:/none", dir}, {"m9:/x", dir}, {dir, dir + "2"}} {
		if err := l.Copy(ctx, pair[0], pair[1]); err == nil {
			t.Errorf("copy %s %s gave no error", pair[0], pair[1])
		}
	}
}

func TestAddedMachineIsOnTheSameNetwork(t *testing.T) {
	l := bare(t, "test-add", 1)
	m, err := l.Add(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "m2" || !reaches(t.Context(), m, l.M(1)) {
		t.Errorf("%s does not reach m1", m.Name)
	}
	if _, err := lab.Up(t.Context(), lab.Options{Name: "test-add", Bare: true}); err == nil {
		t.Error("a second lab of the same name was made")
	}
}

func try(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
