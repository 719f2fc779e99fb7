package firstboot

import (
	"os"
	"path/filepath"
	"strings"
)

// DriveComing tells whether a USB drive is plugged in whose volumes the machine
// does not know yet: it takes a second until the kernel has looked at a stick,
// and then udev names what is on it. root is in front of /sys and /run; empty on
// a real machine. A drive that the kernel has not found at all is not known
// here, and one that never gets a volume, for want of a driver, is always coming.
func DriveComing(root string) bool {
	const massStorage = "08"
	for _, class := range glob(root, "/sys/bus/usb/devices/*/bInterfaceClass") {
		if text, err := os.ReadFile(class); err != nil || strings.TrimSpace(string(text)) != massStorage { //nolint:gosec // of the kernel
			continue
		}
		disks := glob(filepath.Dir(class), "/host*/target*/*/block/*")
		if len(disks) == 0 {
			return true
		}
		for _, disk := range disks {
			for _, dev := range append(glob(disk, "/*/dev"), filepath.Join(disk, "dev")) {
				if !named(root, dev) {
					return true
				}
			}
		}
	}
	return false
}

// named tells whether udev is done with a device.
func named(root, dev string) bool {
	number, err := os.ReadFile(dev) //nolint:gosec // of the kernel
	if err != nil {
		return true // it is gone
	}
	_, err = os.Stat(filepath.Join("/", root, "run/udev/data", "b"+strings.TrimSpace(string(number))))
	return err == nil
}

func glob(dir, pattern string) []string {
	found, _ := filepath.Glob(filepath.Join("/", dir, pattern)) //nolint:errcheck // the pattern is a good one
	return found
}
