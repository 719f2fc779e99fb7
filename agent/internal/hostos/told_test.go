package hostos

import (
	"strings"
	"testing"
)

// A flashed machine's keys and network are not in its generation. A flake that
// does not read them would shut its owner out at the next boot.
func TestASystemThatForgetsWhatTheMachineWasToldIsRefused(t *testing.T) {
	const unit = "etc/systemd/system/uncloud-first-boot.service"
	for _, c := range []struct {
		told, old, next, refused bool
	}{
		{told: true, old: true, refused: true},
		{told: true, old: true, next: true},
		{old: true},
		{told: true},
	} {
		d := newDouble(t)
		if c.told {
			d.write("var/lib/uncloud-first-boot/authorized_keys", "ssh-ed25519 x")
		}
		if c.old {
			d.write(oldSystem+"/"+unit, "")
		}
		if c.next {
			d.write(newSystem+"/"+unit, "")
		}
		_, err := d.os.Stage(t.Context(), Target{System: newSystem})
		if refused := err != nil && strings.HasPrefix(err.Error(), "bbb-nixos-2 does not read what uncloud.txt said"); refused != c.refused || err != nil && !refused {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAReferenceIsNoOption(t *testing.T) {
	d := newDouble(t)
	if _, err := d.os.Stage(t.Context(), Target{Flake: "--impure", Name: "a"}); err == nil || len(d.calls()) > 0 {
		t.Error(err, d.calls())
	}
}
