package agent

import (
	"net"
	"strings"
	"testing"

	"uncloud/internal/faults"
)

// On NixOS the configuration is a file that nobody can write, so a hint names
// the option as well.
func TestAPortThatIsTakenSaysWhereToChooseAnother(t *testing.T) {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a := &Agent{cfg: Config{ListenPort: uint16(conn.LocalAddr().(*net.UDPAddr).Port)}}
	hint := faults.Of(a.checkPort()).Hint
	for _, want := range []string{"ss -lunp", "listenPort in /etc/uncloud/config.json", "services.uncloud.network.port"} {
		if !strings.Contains(hint, want) {
			t.Errorf("%q says nothing of %s", hint, want)
		}
	}
}
