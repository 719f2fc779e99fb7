package podman

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"uncloud/agent/internal/runtime/podman/podmantest"
)

func TestMain(m *testing.M) { os.Exit(podmantest.Run(m, buildApp)) }

// buildApp builds what containers of these tests run.
func buildApp(dir string) error {
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "app"), "./testdata/app")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build testdata/app: %w\n%s", err, out)
	}
	return nil
}
