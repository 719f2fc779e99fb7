package firstboot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheKernelsListOfMounts(t *testing.T) {
	const list = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 254:1 /sub /mnt/part rw - vfat /dev/vda1 rw
31 22 254:1 / /boot/my\040firmware\134x rw,relatime shared:9 - vfat /dev/vda1 rw
`
	if at, ok := mountPoint(strings.NewReader(list), "254:1"); !ok || at != `/boot/my firmware\x` {
		t.Errorf("%q, %v", at, ok)
	}
	if at, ok := mountPoint(strings.NewReader(list), "254:2"); ok {
		t.Errorf("%q", at)
	}
}

func TestALabelIsWrittenAsUdevDoes(t *testing.T) {
	for label, want := range map[string]string{"UNCLOUD": "UNCLOUD", "my stick": `my\x20stick`, "a-b_c.d": "a-b_c.d", `x"y`: `x\x22y`} {
		if got := escapeLabel(label); got != want {
			t.Errorf("%q: %q, want %q", label, got, want)
		}
	}
}

func TestAVolumeThatIsNotThere(t *testing.T) {
	for _, label := range []string{"NO-SUCH-LABEL", "/no/such/folder"} {
		if _, err := MountVolume(label); !os.IsNotExist(err) {
			t.Errorf("%s: %v", label, err)
		}
	}
}

// run is a program of the host.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput() //nolint:gosec // a test's
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// stick is a device with a file system: FAT where this kernel has it.
func stick(t *testing.T) (device string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	kinds, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Skip(err)
	}
	mkfs := []string{"mkfs.ext4", "-q", "-F"}
	if _, err := exec.LookPath("mkfs.vfat"); err == nil && strings.Contains(string(kinds), "\tvfat\n") {
		mkfs = []string{"mkfs.vfat"}
	}
	for _, program := range []string{mkfs[0], "losetup"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 4<<20); err != nil {
		t.Fatal(err)
	}
	run(t, append(mkfs, image)...)
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", image).CombinedOutput() //nolint:gosec // a test's
	if err != nil {
		t.Skipf("this host has no loop devices: %s", out)
	}
	device = strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "--detach", device).Run() }) //nolint:errcheck,gosec,noctx // the image goes with the test
	return device
}

func mountFor(t *testing.T, device, options string) string {
	t.Helper()
	at := t.TempDir()
	run(t, "mount", "-o", options, device, at)
	t.Cleanup(func() { unix.Unmount(at, 0) }) //nolint:errcheck // gone already, or with the host
	return at
}

// TestAVolumeIsLeftAsItWasFound: not mounted, mounted to be read only, or
// mounted. It is writable only between Open and Close.
func TestAVolumeIsLeftAsItWasFound(t *testing.T) {
	for name, options := range map[string]string{"not mounted": "", "mounted read-only": "ro,noexec", "mounted": "rw"} {
		t.Run(name, func(t *testing.T) {
			device := stick(t)
			at := filepath.Join(t.TempDir(), "new")
			mounted := at
			if options != "" {
				mounted = mountFor(t, device, options)
			}
			v, err := openVolume("UNCLOUD", device, at)
			if err != nil || v.Path != mounted {
				t.Fatalf("%+v, %v", v, err)
			}
			file := filepath.Join(v.Path, "file")
			if err := os.WriteFile(file, []byte("x"), 0o600); (err == nil) != (options == "rw") {
				t.Errorf("before it is opened: %v", err)
			}
			if err := v.Open(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
				t.Error(err)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			where, still := mountedAt(device)
			if options == "" {
				if _, err := os.Stat(at); still || !os.IsNotExist(err) {
					t.Errorf("it is still mounted at %q, %v", where, err)
				}
				return
			}
			if readOnly, err := isReadOnly(mounted); err != nil || readOnly != strings.HasPrefix(options, "ro") {
				t.Errorf("read-only %v, %v", readOnly, err)
			}
		})
	}
}

func TestABrokenVolumeIsSaid(t *testing.T) {
	device := stick(t)
	run(t, "dd", "if=/dev/zero", "of="+device, "bs=1M", "count=4", "conv=fsync")
	if v, err := openVolume("UNCLOUD", device, filepath.Join(t.TempDir(), "at")); err == nil || !strings.Contains(err.Error(), device+" cannot be mounted") {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestAFullVolumeIsTakenFrom: the secret goes, though nothing can be added.
func TestAFullVolumeIsTakenFrom(t *testing.T) {
	device := stick(t)
	at := mountFor(t, device, "rw")
	if err := os.WriteFile(filepath.Join(at, "uncloud.txt"), []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	exec.CommandContext(t.Context(), "dd", "if=/dev/zero", "of="+at+"/fill", "bs=512").Run() //nolint:errcheck,gosec // it ends when nothing more fits
	if err := os.WriteFile(filepath.Join(at, "more"), make([]byte, 8192), 0o600); err == nil {
		t.Fatal("there is room")
	}
	run(t, "umount", at)

	w := newWorld(t)
	o := w.options()
	o.Disk, o.Directory, o.Credentials = OS{}, filepath.Join(t.TempDir(), "first"), ""
	o.Volumes = []string{"UNCLOUD"}
	o.Mount = func(label string) (*Volume, error) {
		return openVolume(label, device, filepath.Join(t.TempDir(), "at"))
	}
	Run(t.Context(), o)
	raw, err := os.ReadFile(device) //nolint:gosec // the test's own
	if err != nil {
		t.Fatal(err)
	}
	if text := string(raw); strings.Contains(text, ticket) || strings.Contains(text, password) || !strings.Contains(text, "#wifi = my network /") {
		t.Errorf("a secret is on the device: ticket %v, password %v; said %q", strings.Contains(text, ticket), strings.Contains(text, password), w.said)
	}
	if _, err := os.Stat(filepath.Join(o.Directory, TicketFile)); err != nil {
		t.Error(err)
	}
}
