package agent

import (
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"uncloud/internal/faults"
)

func TestIdentitySurvivesTheFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, known, err := loadIdentity(dir); known || err != nil {
		t.Fatalf("a new machine: %v, %v", known, err)
	}
	id, err := newIdentity()
	must(t, err)
	id.ClusterID = "cls_a"
	must(t, id.save(dir))
	got, known, err := loadIdentity(dir)
	if err != nil || !known || !reflect.DeepEqual(got, id) {
		t.Errorf("read back %+v, %v, %v", got, known, err)
	}
	info, err := os.Stat(filepath.Join(dir, identityFile))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the keys may be read by others: %s", info.Mode())
	}
}

func TestADamagedIdentityIsNotANewMachine(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "half": `{"machineId":"mch_`, "no key": `{"machineId":"mch_a"}`} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, identityFile), []byte(text), 0o600))
		_, known, err := loadIdentity(dir)
		if known {
			t.Errorf("%s: taken for good", name)
		}
		refusedAs(t, err, faults.Internal, identityFile)
	}
}

// TestAnIdentityThatDoesNotFitIsSaid, and the one that is there stays.
func TestAnIdentityThatDoesNotFitIsSaid(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("small", dir, "tmpfs", 0, "size=8k"); err != nil {
		t.Skipf("needs a file system that can be filled: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
	id, err := newIdentity()
	must(t, err)
	must(t, id.write(dir, identityFile))
	must(t, os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 4096), 0o600))
	other, err := newIdentity()
	must(t, err)
	refusedAs(t, other.write(dir, identityFile), faults.DiskFull, "no space left")
	if got, known, err := loadIdentity(dir); !known || err != nil || !reflect.DeepEqual(got, id) {
		t.Errorf("read back %+v, %v, %v", got, known, err)
	}
}
