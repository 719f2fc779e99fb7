package compose

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Whatever is written, ParsePort gives a port in its bounds or a Fault.
func TestParsePortTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-z0-9.:/\[\]@*-]{0,24}`).Draw(t, "text")
		p, err := ParsePort(text)
		if err != nil {
			if faults.CodeOf(err) != faults.Invalid {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if p.Container == 0 || p.Mode == spec.HostPort && (p.Published == 0 || p.Hostname != "") {
			t.Fatalf("%q: %+v", text, p)
		}
	})
}

// What is written in the documented form is read back in each part.
func TestParsePortParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		port := rapid.Uint16Range(1, 65535)
		want := spec.Port{
			Mode: spec.HostPort, Published: port.Draw(t, "published"), Container: port.Draw(t, "container"),
			HostIP:   rapid.SampledFrom([]string{"", "10.1.2.3", "10.0.0.0/8"}).Draw(t, "ip"),
			Protocol: rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "protocol"),
		}
		ip := want.HostIP
		if ip != "" {
			ip = "[" + ip + "]:"
		}
		text := fmt.Sprintf("%s%d:%d/%s@host", ip, want.Published, want.Container, want.Protocol)
		if got, err := ParsePort(text); err != nil || got != want {
			t.Fatalf("%q: %+v %v", text, got, err)
		}
		want = spec.Port{
			Mode: spec.IngressPort, Published: want.Published, Container: want.Container,
			Hostname: rapid.SampledFrom([]string{"", "a.example.com", "x.y"}).Draw(t, "host"),
			Protocol: rapid.SampledFrom([]string{"http", "https"}).Draw(t, "ingress protocol"),
		}
		host := want.Hostname
		if host != "" {
			host += ":"
		}
		text = fmt.Sprintf("%s%d:%d/%s", host, want.Published, want.Container, want.Protocol)
		if got, err := ParsePort(text); err != nil || got != want {
			t.Fatalf("%q: %+v %v", text, got, err)
		}
	})
}
