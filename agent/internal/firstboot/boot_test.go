package firstboot

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	ticket   = "uncloud-ticket-v1.c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0.c2lnbmF0dXJl"
	password = "correct horse battery"
	pubkey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGTxWcNPjEEsrdFVyEzAhZ4P3pVbP5FFbNxOPGK6A0qQ"
	whole    = `# my first machine
name = pi-1
key = ` + pubkey + ` alice   # may be there several times
wifi = my network / ` + password + `
country = DE
address = 192.168.1.10/24
gateway = 192.168.1.1
dns = 192.168.1.1
timezone = Europe/Berlin
label = zone=home
role = worker
ticket = ` + ticket + `
`
)

// world is a machine with volumes, in memory.
type world struct {
	disk   *crashDisk
	labels []string
	member bool
	said   []string
	system System
	mount  map[string]error
	open   error
}

func newWorld(t *testing.T) *world {
	disk := newCrashDisk("/mnt")
	disk.lay("/var/lib/other", "")
	return &world{
		disk: disk, labels: []string{"FIRMWARE", "ESP", "UNCLOUD"}, mount: map[string]error{},
		system: System{
			Root:        t.TempDir(), // only what is applied
			SetHostname: func(string) error { return nil }, SetCountry: func(context.Context, string) error { return nil },
		},
	}
}

func (w *world) options() Options {
	return Options{
		Directory: "/var/lib/first", Volumes: w.labels, Disk: w.disk, System: w.system, Credentials: "/creds",
		Member: func() (bool, error) { return w.member, nil },
		Mount: func(label string) (*Volume, error) {
			at := "/mnt/" + label
			if err := w.mount[label]; err != nil {
				return nil, err
			}
			if w.disk.find(at) == nil {
				return nil, fs.ErrNotExist
			}
			v := folder(at)
			v.Name, v.Open = label, func() error { return w.open }
			return v, nil
		},
		Say: func(sentence string) { w.said = append(w.said, sentence) },
	}
}

// boot runs a boot, and tells whether it came to its end before the power went.
func (w *world) boot(t *testing.T) (ended bool) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			if _, cut := r.(powerCut); !cut {
				panic(r)
			}
		}
	}()
	w.said = nil
	// What is applied is memory, mostly: it is gone with the power.
	w.system.Root = path.Join("/", "applied")
	Run(t.Context(), w.options())
	return true
}

// kept is what matters after a boot: the directory and the volumes.
func (w *world) kept() map[string]string {
	all := w.disk.all()
	if freed := string(w.disk.freed); freed != "" && strings.Trim(freed, "\n") != "" {
		all["/mnt/freed"] = freed
	}
	delete(all, "/var/lib/other")
	maps.DeleteFunc(all, func(at, _ string) bool { return strings.HasPrefix(at, "/applied") })
	return all
}

func (w *world) file(name string) string {
	content, err := w.disk.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(content)
}

type reporter interface {
	Helper()
	Errorf(format string, args ...any)
}

func same(t reporter, got, want map[string]string, what string) {
	t.Helper()
	for at := range want {
		if got[at] != want[at] {
			t.Errorf("%s: %s is %q, want %q", what, at, got[at], want[at])
		}
	}
	for at := range got {
		if _, ok := want[at]; !ok {
			t.Errorf("%s: %s should not be there: %q", what, at, got[at])
		}
	}
}

func TestAFileIsTaken(t *testing.T) {
	w := newWorld(t)
	w.disk.lay("/mnt/FIRMWARE/uncloud.txt", whole)
	w.boot(t)
	same(t, w.kept(), map[string]string{
		"/var/lib/first/config.json": `644 {
  "name": "pi-1",
  "labels": {
    "zone": "home"
  },
  "roles": [
    "worker"
  ],
  "ticketFile": "/var/lib/first/ticket"
}
`,
		"/var/lib/first/ticket":              "600 " + ticket + "\n",
		"/var/lib/first/authorized_keys":     "644 " + pubkey + " alice\n",
		"/var/lib/first/hostname":            "644 pi-1\n",
		"/var/lib/first/timezone":            "644 Europe/Berlin\n",
		"/var/lib/first/country":             "644 DE\n",
		"/var/lib/first/wifi-given":          "600 my network.psk\n",
		"/var/lib/first/wifi/my network.psk": "600 [Security]\nPassphrase=" + password + "\n",
		"/var/lib/first/" + networkFile:      "644 # Written at boot from uncloud.txt.\n[Match]\nType=wlan\n\n[Network]\nAddress=192.168.1.10/24\nGateway=192.168.1.1\nDNS=192.168.1.1\n",
		"/mnt/FIRMWARE/uncloud.txt.read": "755 " + strings.NewReplacer("wifi = my network / "+password, "#wifi = my network /", "ticket = "+ticket, "#ticket").
			Replace("#read\n"+whole),
		"/var/lib/first/troubles": "644 the time zone Europe/Berlin could not be set: this machine has no such zone\n",
	}, "after the first boot")
	first := w.kept()
	w.boot(t)
	same(t, w.kept(), first, "after the second boot")
}

func TestAFullVolumeIsEnough(t *testing.T) {
	w := newWorld(t)
	w.disk.lay("/mnt/FIRMWARE/uncloud.txt", whole)
	w.disk.fail = func(op, path string) error {
		if strings.HasPrefix(path, "/mnt") && (op == "write" || op == "mkdir") {
			return unix.ENOSPC
		}
		return nil
	}
	w.boot(t)
	noSecret(t, w.kept())
	if w.file("/mnt/FIRMWARE/uncloud.txt.read") == "" {
		t.Errorf("the file was not taken: %q", w.said)
	}
}

func TestWhatIsWrongIsSaidAndTheRestGoesOn(t *testing.T) {
	const onlyTicket, named = `600 {"ticket":"` + ticket + `"}` + "\n", `600 {"name":"pi-1","ticket":"` + ticket + `"}` + "\n"
	tests := map[string]struct {
		set  func(w *world)
		said string
		took bool
		told string // with what the cluster is told
	}{
		"an unknown key": {func(w *world) { w.disk.lay("/mnt/ESP/uncloud.txt", "naame = pi-1\nticket = "+ticket) },
			`uncloud.txt on ESP, line 1: there is no key "naame": did you mean name?`, false, onlyTicket},
		"an unknown key beside a bare ticket": {func(w *world) {
			w.disk.lay("/mnt/ESP/uncloud.txt", "name = pi-1\nwfii = a / b\n")
			w.disk.lay("/mnt/ESP/uncloud.ticket", "# a comment\n"+ticket+"\n")
		}, `uncloud.txt on ESP, line 2: there is no key "wfii"`, false, named},
		"an unknown key, and a member": {func(w *world) {
			w.member = true
			w.disk.lay("/mnt/ESP/uncloud.txt", "naame = pi-1\nticket = "+ticket)
		}, `there is no key "naame"`, false, ""},
		"a volume that cannot be mounted": {func(w *world) {
			w.mount["FIRMWARE"] = errors.New("it is broken")
			w.disk.lay("/mnt/UNCLOUD/uncloud.txt", "name = pi-1")
		}, "the volume FIRMWARE cannot be read: it is broken", true, ""},
		"a volume that cannot be written": {func(w *world) {
			w.open = unix.EROFS
			w.disk.lay("/mnt/UNCLOUD/uncloud.txt", "name = pi-1\nticket = "+ticket)
		}, "cannot be taken off, so remove the file: read-only file system", true, ""},
		"a file under another name": {func(w *world) { w.disk.lay("/mnt/UNCLOUD/uncloud.txt.txt", "name = pi-1") },
			"there is uncloud.txt.txt on UNCLOUD, which is not read: call it uncloud.txt", false, ""},
		"two tickets": {func(w *world) {
			w.disk.lay("/mnt/ESP/uncloud.txt", "name = pi-1\nticket = "+ticket)
			w.disk.lay("/mnt/ESP/uncloud.ticket", "uncloud-ticket-v1.other.one")
		}, "uncloud.ticket on ESP: there is another ticket in uncloud.txt", false, named},
		"settings in a ticket": {func(w *world) { w.disk.lay("/mnt/ESP/uncloud.ticket", "name = pi-1\n"+ticket) },
			"it may hold a ticket and nothing else", false, named},
		"a ticket in both, the same": {func(w *world) {
			w.disk.lay("/mnt/ESP/uncloud.txt", "name = pi-1\nticket = "+ticket)
			w.disk.lay("/mnt/ESP/uncloud.ticket", ticket)
		}, "uncloud.txt on ESP and uncloud.ticket on ESP was read: name pi-1, ticket", true, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tt.set(w)
			before := w.kept()
			w.boot(t)
			if all := strings.Join(w.said, "\n"); !strings.Contains(all, tt.said) {
				t.Errorf("said %q, want %q", all, tt.said)
			}
			if took := w.file("/var/lib/first/config.json") != ""; took != tt.took {
				t.Errorf("took it: %v", took)
			}
			if !tt.took {
				after := w.kept()
				if trouble := after["/var/lib/first/troubles"]; !strings.Contains(trouble, tt.said) {
					t.Errorf("the cluster is not told: %q", trouble)
				}
				delete(after, "/var/lib/first/troubles")
				if told := after["/var/lib/first/refused.json"]; told != tt.told {
					t.Errorf("the cluster is told with %q, want %q", told, tt.told)
				}
				delete(after, "/var/lib/first/refused.json")
				same(t, after, before, "a refused file changes nothing")
			}
			for _, s := range w.said {
				if strings.Contains(s, "c2Vjcm") || strings.Contains(s, "\n") {
					t.Errorf("no sentence for a console: %q", s)
				}
			}
		})
	}
}

func TestATroubleIsOverWhenItIs(t *testing.T) {
	w := newWorld(t)
	w.disk.lay("/mnt/ESP/uncloud.txt", "naame = pi-1\nticket = "+ticket)
	w.boot(t)
	if w.file("/var/lib/first/troubles") == "" || w.file("/var/lib/first/refused.json") == "" {
		t.Fatal("no trouble")
	}
	w.disk.lay("/mnt/ESP/uncloud.txt", "name = pi-1\n")
	w.boot(t)
	if got := w.file("/var/lib/first/troubles"); got != "" {
		t.Errorf("it goes on: %q", got)
	}
	if got := w.file("/var/lib/first/refused.json"); got != "" {
		t.Errorf("the ticket is left: %q", got)
	}
}

func TestAMemberStaysWhoItIs(t *testing.T) {
	w := newWorld(t)
	w.disk.lay("/var/lib/first/config.json", `{"name":"pi-1"}`)
	w.disk.lay("/var/lib/first/hostname", "pi-1\n")
	w.disk.lay("/mnt/ESP/uncloud.txt", strings.ReplaceAll(whole, "pi-1", "other"))
	w.member = true
	w.boot(t)
	if w.file("/var/lib/first/config.json") != `{"name":"pi-1"}` || w.file("/var/lib/first/hostname") != "pi-1\n" || w.file("/var/lib/first/ticket") != "" {
		t.Errorf("%v", w.kept())
	}
	if w.file("/var/lib/first/authorized_keys") == "" || w.file("/var/lib/first/"+networkFile) == "" || w.file("/var/lib/first/timezone") == "" {
		t.Errorf("keys, address and time zone are not taken: %v", w.kept())
	}
	noSecret(t, w.kept())
	if !slices.ContainsFunc(w.said, func(s string) bool { return strings.Contains(s, "is a member already") }) {
		t.Errorf("%q", w.said)
	}
}

func TestWhoCannotTellKeepsWhoItIs(t *testing.T) {
	w := newWorld(t)
	w.disk.lay("/mnt/ESP/uncloud.txt", "name = other\nkey = "+pubkey)
	o := w.options()
	o.Member = func() (bool, error) { return false, errors.New("damaged") }
	Run(t.Context(), o)
	if w.file("/var/lib/first/config.json") != "" || w.file("/var/lib/first/authorized_keys") == "" {
		t.Errorf("%v", w.kept())
	}
}

// TestWhatAFileDoesNotNameStays: a machine whose keys were lost gets new ones,
// and keeps its network.
func TestWhatAFileDoesNotNameStays(t *testing.T) {
	w := newWorld(t)
	w.disk.lay("/mnt/ESP/uncloud.txt", whole)
	w.boot(t)
	was := w.kept()
	w.disk.lay("/mnt/ESP/uncloud.txt", "key = "+pubkey+" bob\n")
	w.boot(t)
	was["/var/lib/first/authorized_keys"] = "644 " + pubkey + " bob\n"
	was["/mnt/ESP/uncloud.txt.read"] = "755 key = " + pubkey + " bob\n"
	same(t, w.kept(), was, "after the second file")

	w.disk.lay("/applied/var/lib/iwd/my own.psk", "[Security]\nPassphrase=somebody else\n")
	if w.file("/applied/var/lib/iwd/my network.psk") == "" {
		t.Fatal("iwd was not given the network")
	}
	w.disk.lay("/mnt/ESP/uncloud.txt", "address = dhcp\nwifi = cafe/bar / 0123456789\n")
	w.boot(t)
	for name, there := range map[string]bool{"my network.psk": false, "=636166652f626172.psk": true, "my own.psk": true} {
		if got := w.file("/applied/var/lib/iwd/" + name); (got != "") != there {
			t.Errorf("iwd: %s is %q", name, got)
		}
	}
	if got := w.file("/var/lib/first/" + networkFile); !strings.Contains(got, "DHCP=yes") || strings.Contains(got, "Address") {
		t.Errorf("%q", got)
	}
	if got := w.file("/var/lib/first/wifi/=636166652f626172.psk"); got != "[Security]\nPassphrase=0123456789\n" || w.file("/var/lib/first/wifi/my network.psk") != "" {
		t.Errorf("%v", w.kept())
	}
}

func TestTheFirstVolumeWithAFileCounts(t *testing.T) {
	w := newWorld(t)
	w.disk.lay("/mnt/UNCLOUD/uncloud.txt", "name = stick")
	w.disk.lay("/mnt/ESP/uncloud.txt", "name = disk")
	w.disk.lay("/creds/uncloud.txt", "name = cloud")
	w.boot(t)
	if got := w.file("/var/lib/first/hostname"); got != "disk\n" {
		t.Errorf("%q", got)
	}
}

// TestACredentialIsTakenOnce: it is there at every boot, and a file that came
// since is newer.
func TestACredentialIsTakenOnce(t *testing.T) {
	w := newWorld(t)
	w.disk.lay("/creds/uncloud.txt", "name = cloud")
	w.boot(t)
	if got := w.file("/var/lib/first/hostname"); got != "cloud\n" {
		t.Fatalf("%q", got)
	}
	w.disk.lay("/mnt/ESP/uncloud.txt", "name = disk")
	w.boot(t)
	w.boot(t)
	if got := w.file("/var/lib/first/hostname"); got != "disk\n" {
		t.Errorf("%q", got)
	}
}

// TestAStickMayComeLate where the machine was never told anything.
func TestAStickMayComeLate(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	o.Patience = time.Minute
	mount, asked := o.Mount, 0
	o.Mount = func(label string) (*Volume, error) {
		if asked++; asked == 5 {
			w.disk.lay("/mnt/UNCLOUD/uncloud.txt", "name = pi-1")
		}
		return mount(label)
	}
	Run(t.Context(), o)
	if got := w.file("/var/lib/first/hostname"); got != "pi-1\n" {
		t.Errorf("%q", got)
	}
	// Now it knows, and waits for nothing.
	asked = 100
	Run(t.Context(), o)
	if asked != 103 {
		t.Errorf("it asked %d times more", asked-100)
	}
}

// TestADriveIsAwaited also where the machine was told something: it may be all
// that lets its owner in.
func TestADriveIsAwaited(t *testing.T) {
	w := newWorld(t)
	w.disk.lay("/var/lib/first/config.json", `{"name":"pi-1"}`)
	o := w.options()
	o.Patience = time.Minute
	asked := 0
	o.Coming = func() bool {
		if asked++; asked == 3 {
			w.disk.lay("/mnt/UNCLOUD/uncloud.txt", "key = "+pubkey)
		}
		return asked < 3
	}
	Run(t.Context(), o)
	if w.file("/var/lib/first/authorized_keys") == "" || asked != 3 {
		t.Errorf("asked %d times, %q", asked, w.said)
	}
}

// TestAVolumeThatFailsOnceIsTriedAgain: and nothing is said of it.
func TestAVolumeThatFailsOnceIsTriedAgain(t *testing.T) {
	for _, fails := range []int{1, 1000} {
		w := newWorld(t)
		w.disk.lay("/var/lib/first/config.json", `{"name":"pi-1"}`)
		w.disk.lay("/mnt/UNCLOUD/uncloud.txt", "key = "+pubkey)
		o := w.options()
		o.Patience = map[bool]time.Duration{true: time.Minute, false: time.Millisecond}[fails == 1]
		mount, tried := o.Mount, 0
		o.Mount = func(label string) (*Volume, error) {
			if label == "UNCLOUD" {
				if tried++; tried <= fails {
					return nil, unix.EBUSY
				}
			}
			return mount(label)
		}
		Run(t.Context(), o)
		said := slices.Contains(w.said, "the volume UNCLOUD cannot be read: device or resource busy")
		if took := w.file("/var/lib/first/authorized_keys") != ""; took != (fails == 1) || said == took {
			t.Errorf("fails %d times: took it: %t, said %q", fails, took, w.said)
		}
	}
}

// TestADriveIsComing until udev has named all that is on it.
func TestADriveIsComing(t *testing.T) {
	root := t.TempDir()
	lay := func(at, content string) {
		at = path.Join(root, at)
		if err := errors.Join(os.MkdirAll(path.Dir(at), 0o755), os.WriteFile(at, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	const usb, disk = "/sys/bus/usb/devices/", "/host0/target0:0:0/0:0:0:0/block/sda/"
	for _, step := range []struct {
		what   string
		lay    map[string]string
		coming bool
	}{
		{"no USB", nil, false},
		{"a keyboard", map[string]string{usb + "1-1/bDeviceClass": "00\n", usb + "1-1:1.0/bInterfaceClass": "03\n"}, false},
		{"a stick", map[string]string{usb + "1-2:1.0/bInterfaceClass": "08\n"}, true},
		{"its disk", map[string]string{usb + "1-2:1.0" + disk + "dev": "8:0\n", usb + "1-2:1.0" + disk + "queue/rotational": "0\n"}, true},
		{"is named", map[string]string{"/run/udev/data/b8:0": "S:disk/by-id/x\n"}, false},
		{"its volume", map[string]string{usb + "1-2:1.0" + disk + "sda1/dev": "8:1\n"}, true},
		{"is named as well", map[string]string{"/run/udev/data/b8:1": "S:disk/by-label/UNCLOUD\n"}, false},
	} {
		for at, content := range step.lay {
			lay(at, content)
		}
		if got := DriveComing(root); got != step.coming {
			t.Errorf("%s: coming %t", step.what, got)
		}
	}
}

// TestANameOfTheGenerationStays: /etc/hostname is a link then.
func TestANameOfTheGenerationStays(t *testing.T) {
	w := newWorld(t)
	dir := directory{OS{}, path.Join(w.system.Root, "first")}
	etc := path.Join(w.system.Root, "etc")
	if err := errors.Join(os.MkdirAll(etc, 0o755), os.Symlink("static/hostname", path.Join(etc, "hostname")),
		dir.put(file{hostnameFile, "pi-1\n", 0o644})); err != nil {
		t.Fatal(err)
	}
	w.system.SetHostname = func(name string) error {
		t.Errorf("it is called %s", name)
		return nil
	}
	if troubles := w.system.Apply(t.Context(), dir); len(troubles) > 0 {
		t.Errorf("%q", troubles)
	}
}

// TestItWorksOnARealFolder: the same on files, as root or not.
func TestItWorksOnARealFolder(t *testing.T) {
	dir, stick := path.Join(t.TempDir(), "first"), t.TempDir()
	if err := os.WriteFile(path.Join(stick, "uncloud.txt"), []byte("\xef\xbb\xbf"+strings.ReplaceAll(whole, "\n", "\r\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	o := w.options()
	o.Disk, o.Directory, o.Volumes, o.Mount, o.Credentials = OS{}, dir, []string{"NONE-SUCH", stick}, MountVolume, ""
	root := w.system.Root
	for _, d := range []string{"etc", "usr/share/zoneinfo/Europe"} {
		if err := os.MkdirAll(path.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path.Join(root, "usr/share/zoneinfo/Europe/Berlin"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var host, country string
	o.System.SetHostname = func(name string) error { host = name; return nil }
	o.System.SetCountry = func(_ context.Context, c string) error { country = c; return nil }
	Run(t.Context(), o)
	read := func(at string) string {
		content, err := os.ReadFile(at) //nolint:gosec // a test's
		if err != nil {
			t.Error(err)
		}
		return string(content)
	}
	if host != "pi-1" || country != "DE" || read(path.Join(root, "etc/hostname")) != "pi-1\n" {
		t.Errorf("host name %q, country %q", host, country)
	}
	if got := read(path.Join(root, "run/systemd", networkFile)); got != read(path.Join(dir, networkFile)) {
		t.Errorf("%q", got)
	}
	if got := read(path.Join(root, "var/lib/iwd/my network.psk")); !strings.Contains(got, password) {
		t.Errorf("%q", got)
	}
	if to, err := os.Readlink(path.Join(root, "etc/localtime")); err != nil || to != "/usr/share/zoneinfo/Europe/Berlin" {
		t.Errorf("%q, %v", to, err)
	}
	if got := read(path.Join(stick, "uncloud.txt.read")); strings.Contains(got, password) || strings.Contains(got, ticket) || !strings.Contains(got, "name = pi-1") {
		t.Errorf("%q", got)
	}
	for name, mode := range map[string]fs.FileMode{"": 0o755, "ticket": 0o600, "wifi": 0o700, "wifi/my network.psk": 0o600, "authorized_keys": 0o644} {
		if info, err := os.Stat(path.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if _, err := os.Stat(path.Join(dir, TroublesFile)); err == nil {
		t.Errorf("troubles: %s", read(path.Join(dir, TroublesFile)))
	}
}
