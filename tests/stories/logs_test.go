package stories

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"uncloud/tests/lab"
)

// TestLogsAreFollowedOverACrashAndAnUpdate: whoever follows a service sees each
// start of it once, whichever container it is in, until the service is gone.
func TestLogsAreFollowedOverACrashAndAnUpdate(t *testing.T) {
	c := together(t)
	one := web{project: project(t), version: "one", replicas: 1}
	c.deployed(c.M(1), one)
	replica := c.healthy(c.M(1), one.name(), 1)[0]

	said, err := os.Create(t.TempDir() + "/said")
	try(t, err)
	defer said.Close()
	follow := c.M(2).Command(context.WithoutCancel(t.Context()), "uc", "logs", "-f", one.name())
	follow.Stdout, follow.Stderr = said, said
	try(t, follow.Start())
	t.Cleanup(func() { whereFollowingHangs(t, follow.Cmd, said.Name()) })
	starts := func(what string, want map[string]int) {
		t.Helper()
		eventually(t, long, what, func(context.Context) error {
			text, err := os.ReadFile(said.Name())
			got := map[string]int{}
			for version := range want {
				got[version] = strings.Count(string(text), "version "+version+" starts")
			}
			if err == nil && !maps.Equal(got, want) {
				err = fmt.Errorf("saw starts of %v, want %v", got, want)
			}
			return err
		})
	}

	starts("the first start", map[string]int{"one": 1, "two": 0})
	for _, m := range []*lab.Machine{c.M(1), c.M(2), c.M(3)} {
		if m.Name == replica.GetMachine() {
			must(t, m, "podman", "kill", one.project+"-"+replica.GetName())
		}
	}
	starts("the start after the crash", map[string]int{"one": 2, "two": 0})
	c.deployed(c.M(3), one.with("two"))
	starts("the start of the update", map[string]int{"one": 2, "two": 1})

	must(t, c.M(1), "uc", "rm", "-y", one.name())
	code := lab.ExitCode(follow.Wait())
	text, err := os.ReadFile(said.Name())
	try(t, err)
	if code != 0 || !strings.Contains(string(text), one.name()+" is gone") {
		t.Errorf("exit code %d after the service was removed; it said\n%s", code, text)
	}
	starts("no line came twice", map[string]int{"one": 2, "two": 1})
}

// whereFollowingHangs ends whoever still follows after a failure, and shows
// what it read and where it waits.
func whereFollowingHangs(t *testing.T, follow *exec.Cmd, said string) {
	t.Helper()
	if follow.ProcessState != nil {
		return // it was waited for
	}
	if err := follow.Process.Signal(syscall.SIGQUIT); err == nil {
		_ = follow.Wait() // it was told to die
	}
	text, err := os.ReadFile(said)
	t.Logf("--- uc logs -f (%v)\n%s", err, text)
}
