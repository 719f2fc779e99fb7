package connect

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uncloud/internal/faults"
)

func TestSocketFaults(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for path, want := range map[string]string{
		dead:                       "does not run",
		filepath.Join(dir, "none"): "there is no agent",
	} {
		_, err := Open(context.Background(), []Target{{Socket: path}})
		if f := faults.Of(err); f == nil || f.Code != faults.Unreachable || !strings.Contains(f.Sentence, want) || !strings.Contains(f.Hint, "systemctl status uncloud") {
			t.Errorf("%s: %+v", path, f)
		}
	}
}

func TestSocketOfOthers(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may use every socket")
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	_, err = dialUnix(context.Background(), path)
	if f := faults.Of(err); f == nil || !strings.Contains(f.Hint, "usermod -aG uncloud") {
		t.Errorf("got %+v", f)
	}
}
