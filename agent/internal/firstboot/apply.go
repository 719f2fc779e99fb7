package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// System is the machine to which the directory is applied. It is done at every
// boot: part of it lives in memory only.
type System struct {
	Root string // in front of /etc, /run and /var/lib; empty on a real machine
	// SetHostname tells the kernel.
	SetHostname func(name string) error
	// SetCountry tells the Wi-Fi whose rules hold.
	SetCountry func(ctx context.Context, country string) error
}

// Apply makes the machine what the directory says, and returns a sentence for
// each thing that it could not do.
func (s System) Apply(ctx context.Context, d directory) []string {
	var out []string
	for _, step := range []func(context.Context, directory) error{s.hostname, s.network, s.wifi, s.country, s.zone} {
		if err := step(ctx, d); err != nil {
			out = append(out, err.Error())
		}
	}
	return out
}

func (s System) at(d directory, dir string) directory {
	return directory{d.disk, path.Join("/", s.Root, dir)}
}

func (s System) hostname(_ context.Context, d directory) error {
	text, ok := d.read(hostnameFile)
	name := strings.TrimSpace(text)
	if !ok || name == "" {
		return nil
	}
	etc := s.at(d, "etc")
	if info, err := os.Lstat(path.Join(etc.path, hostnameFile)); err == nil && !info.Mode().IsRegular() {
		return nil // a link is the name that the generation has: that one is not ours
	}
	if err := s.SetHostname(name); err != nil {
		return fmt.Errorf("the host name %s could not be set: %w", name, err)
	}
	// Written down it is not replaced by what a DHCP server says.
	if err := etc.put(file{hostnameFile, name + "\n", 0o644}); err != nil {
		return fmt.Errorf("the host name %s could not be kept: %w", name, err)
	}
	return nil
}

func (s System) network(_ context.Context, d directory) error {
	text, ok := d.read(networkFile)
	if !ok {
		return nil
	}
	if err := s.at(d, "run").put(file{path.Join("systemd", networkFile), text, 0o644}); err != nil {
		return fmt.Errorf("the address could not be set: %w", err)
	}
	return nil
}

// wifi gives iwd the networks, and takes away those that it was given at an
// earlier boot and that are no longer wanted. What iwd wrote beside a password
// stays, and so do networks that it has from others.
func (s System) wifi(_ context.Context, d directory) error {
	wanted, err := d.wifis()
	if err != nil {
		return fmt.Errorf("the networks of the Wi-Fi cannot be read: %w", err)
	}
	given, err := d.given(wanted)
	iwd := s.at(d, "var/lib")
	if err = errors.Join(giveWiFi(d, iwd, wanted), err); err != nil {
		return err
	}
	for _, name := range given {
		if slices.Contains(wanted, path.Join(wifiDir, name)) {
			continue
		}
		if err := iwd.remove(path.Join("iwd", name)); err != nil {
			return fmt.Errorf("the former Wi-Fi %s could not be forgotten: %w", strings.TrimSuffix(name, ".psk"), err)
		}
	}
	return d.give(wanted)
}

func giveWiFi(d, iwd directory, wanted []string) error {
	for _, name := range wanted {
		text, ok := d.read(name)
		at := path.Join("iwd", path.Base(name))
		if was, _ := iwd.read(at); !ok || hasLines(was, text) {
			continue
		}
		if err := iwd.put(file{at, text, 0o600}); err != nil {
			return fmt.Errorf("the Wi-Fi %s could not be set: %w", strings.TrimSuffix(path.Base(name), ".psk"), err)
		}
	}
	return nil
}

func hasLines(text, lines string) bool {
	have := strings.Split(text, "\n")
	for _, l := range strings.Split(strings.TrimSpace(lines), "\n") {
		if !slices.Contains(have, l) {
			return false
		}
	}
	return true
}

func (s System) country(ctx context.Context, d directory) error {
	text, ok := d.read(countryFile)
	country := strings.TrimSpace(text)
	if !ok || country == "" {
		return nil
	}
	// For a driver that is loaded later; and now, for one that is there.
	rule := "options cfg80211 ieee80211_regdom=" + country + "\n"
	err := s.at(d, "run").put(file{"modprobe.d/uncloud-first-boot.conf", rule, 0o644})
	if err = errors.Join(err, s.SetCountry(ctx, country)); err != nil {
		return fmt.Errorf("the country %s of the Wi-Fi could not be set: %w", country, err)
	}
	return nil
}

// zoneDirs are where systems keep the time zones.
var zoneDirs = []string{"/etc/zoneinfo", "/usr/share/zoneinfo"}

// HasZone tells whether the machine has a time zone. A machine that has none
// at all cannot tell, and takes any.
func (s System) HasZone(name string) bool {
	dir := s.zoneDir()
	if dir == "" {
		return true
	}
	info, err := os.Stat(filepath.Join("/", s.Root, dir, name))
	return err == nil && info.Mode().IsRegular()
}

func (s System) zoneDir() string {
	for _, dir := range zoneDirs {
		if _, err := os.Stat(path.Join("/", s.Root, dir)); err == nil {
			return dir
		}
	}
	return ""
}

func (s System) zone(_ context.Context, d directory) error {
	text, ok := d.read(zoneFile)
	name := strings.TrimSpace(text)
	if !ok || name == "" {
		return nil
	}
	fail := func(err error) error { return fmt.Errorf("the time zone %s could not be set: %w", name, err) }
	dir := s.zoneDir()
	if dir == "" || !s.HasZone(name) {
		return fail(errors.New("this machine has no such zone"))
	}
	target, at := path.Join(dir, name), path.Join("/", s.Root, "etc/localtime")
	if was, err := os.Readlink(at); err == nil && was == target {
		return nil
	}
	fresh := at + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	if err := os.Symlink(target, fresh); err != nil {
		return fail(err)
	}
	if err := os.Rename(fresh, at); err != nil {
		return fail(err)
	}
	return nil
}
