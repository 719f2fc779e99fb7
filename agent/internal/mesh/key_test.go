package mesh

import (
	"bytes"
	"crypto/rand"
	"testing"
)

// testKey is a public key that follows from a name.
func testKey(name string) Key {
	var k Key
	copy(k[:], name)
	return k
}

func TestKey(t *testing.T) {
	// From RFC 7748, section 6.1, already clamped.
	private := Key{0x70, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
		0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x6a}
	public, err := private.Public()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := public.String(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="; got != want {
		t.Errorf("public key %s, want %s", got, want)
	}
	back, err := ParseKey(public.String())
	if err != nil || back != public {
		t.Errorf("parsed %v, %v", back, err)
	}
	for _, text := range []string{"", "hSDwCYkwp1R0", "not base64 at all !!", public.String() + "AA"} {
		if _, err := ParseKey(text); err == nil {
			t.Errorf("%q parsed", text)
		}
	}
	if _, err := (Key{}).Public(); err == nil {
		t.Error("no key has a public key")
	}
}

func TestNewPrivateKey(t *testing.T) {
	k, err := NewPrivateKey(bytes.NewReader(bytes.Repeat([]byte{0xff}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	if k[0] != 0xf8 || k[31] != 0x7f {
		t.Errorf("not clamped: %x", k)
	}
	if _, err := NewPrivateKey(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("31 bytes made a key")
	}
	other, err := NewPrivateKey(rand.Reader)
	if err != nil || other == k || other.IsZero() {
		t.Errorf("%v, %v", other, err)
	}
}

func TestManagementAddress(t *testing.T) {
	// SHA-256 of 32 zero bytes is 66687aadf862bd776c8fc18b8e9f8e20...
	if got, want := ManagementAddress(Key{}).String(), "fd66:687a:adf8:62bd:776c:8fc1:8b8e:9f8e"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if a, b := ManagementAddress(testKey("a")), ManagementAddress(testKey("b")); a == b {
		t.Error("two keys, one address")
	}
}

func TestTunnelMTU(t *testing.T) {
	for egress, want := range map[int]int{0: 1420, 1500: 1420, 9000: 1420, 1492: 1412, 1400: 1320, 1300: 1280, 576: 1280} {
		if got := TunnelMTU(egress); got != want {
			t.Errorf("egress %d: %d, want %d", egress, got, want)
		}
	}
}
