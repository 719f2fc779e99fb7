package connect

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"uncloud/internal/faults"
)

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]Target{
		"ssh://pi-1":               {Host: "pi-1"},
		"pi-1":                     {Host: "pi-1"},
		"root@pi-1:2222":           {User: "root", Host: "pi-1", Port: "2222"},
		"ssh://root@[2001:db8::1]": {User: "root", Host: "2001:db8::1"},
		"ssh://[2001:db8::1]:22/":  {Host: "2001:db8::1", Port: "22"},
		"unix:///run/x.sock":       {Socket: "/run/x.sock"},
	} {
		if got, err := ParseTarget(text); err != nil || got != want {
			t.Errorf("%q is %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "ssh://", "unix://relative", "unix://", "tcp://1.2.3.4:5", "https://host", "ssh://host/path", "ssh://u:secret@host",
		"ssh://-oProxyCommand=reboot", "-oProxyCommand=reboot", "ssh://-l@host", "ssh://host?x=y", "ssh://host:port", "::1", "ssh://[:]",
	} {
		if got, err := ParseTarget(text); faults.CodeOf(err) != faults.Invalid || faults.Of(err).Hint == "" {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
}

// Whatever is accepted is written so that it is read as the same, and no part
// of it can be an option to ssh.
func TestTargetSurvivesWriting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`(ssh://|unix://)?([a-z-]{0,4}@)?[a-z/.:\[\]0-9-]{0,12}(:[0-9]{1,5})?`).Draw(t, "text")
		target, err := ParseTarget(text)
		if err != nil {
			return
		}
		again, err := ParseTarget(target.String())
		if err != nil || again != target {
			t.Fatalf("%q is %+v, which is written %q and then %+v, %v", text, target, target, again, err)
		}
		back, err := ConnectionTo(target).Target()
		if err != nil || back != target {
			t.Fatalf("%+v kept in a context is %+v, %v", target, back, err)
		}
		if strings.HasPrefix(target.Host, "-") || strings.HasPrefix(target.User, "-") {
			t.Fatalf("%q makes an option of %+v", text, target)
		}
	})
}
