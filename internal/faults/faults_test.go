package faults

import "testing"

func TestAHintSaysWhereToFollowIt(t *testing.T) {
	for hint, want := range map[string]string{
		"systemctl start podman.socket":         "on m2: systemctl start podman.socket",
		"on m2: systemctl start podman.socket":  "on m2: systemctl start podman.socket",
		"on the machine: journalctl -u uncloud": "on m2: journalctl -u uncloud",
		"uc logs shop/web":                      "uc logs shop/web",
		"":                                      "",
	} {
		if got := New(Engine, "x").WithHint("%s", hint).On("m2").Hint; got != want {
			t.Errorf("%q became %q", hint, got)
		}
	}
	if got := New(Engine, "x").WithHint("y").On("").Hint; got != "y" {
		t.Errorf("%q", got)
	}
}
