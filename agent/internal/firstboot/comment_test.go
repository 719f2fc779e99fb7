package firstboot

import (
	"strings"
	"testing"
)

// A line that somebody made a comment holds a secret all the same.
func TestSecretsInCommentsAreTakenOff(t *testing.T) {
	const text = "# ticket = uncloud-ticket-SeCrEt\n #uncloud-ticket-SeCrEt\n#wifi = old / SeCrEtSeCrEt\n# wifi is in the cellar\nname = pi-1\nwifi = new / SeCrEtSeCrEt\n"
	w := newWorld(t)
	w.disk.lay("/mnt/FIRMWARE/uncloud.txt", text)
	w.boot(t)
	if left := w.file("/mnt/FIRMWARE/uncloud.txt.read"); strings.Contains(left, "SeCrEt") || !strings.Contains(left, "name = pi-1\n") || !strings.Contains(left, "cellar") {
		t.Errorf("%q", left)
	}
}
