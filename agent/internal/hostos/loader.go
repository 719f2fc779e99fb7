package hostos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MakeDefault changes the profile and then the boot loader.
func (n NixOS) MakeDefault(ctx context.Context, g Generation, failed Made) error {
	if g.System == "" {
		return nil // there was no default
	}
	if err := n.setProfile(ctx, g); err != nil {
		return err
	}
	if failed.After == 0 || failed.System == g.System {
		return n.tellLoader(ctx, g)
	}
	deleting := n.delete(ctx, failed)
	err := n.tellLoader(ctx, g)
	if err != nil {
		err = errors.Join(err, n.keep(failed))
	}
	return errors.Join(deleting, err)
}

func (n NixOS) setProfile(ctx context.Context, g Generation) error {
	now, err := n.defaultGeneration()
	if err != nil || now.System == g.System {
		return err
	}
	if at, err := n.follow(generationLink(g.Number)); err == nil && g.Number != 0 && at == g.System {
		return n.nixEnv(ctx, g.System, "--switch-generation", strconv.Itoa(g.Number))
	}
	return n.nixEnv(ctx, g.System, "--set", g.System)
}

func (n NixOS) nixEnv(ctx context.Context, system string, change ...string) error {
	return n.run(ctx, "the profile cannot be set to "+Name(system), "nix-env", append([]string{"--profile", n.path(profile)}, change...)...)
}

// of are the generations that an attempt made, by their numbers.
func (n NixOS) of(m Made) ([]string, error) {
	numbers, err := n.numbers()
	if err != nil {
		return nil, err
	}
	var made []string
	for _, number := range numbers {
		if system, err := n.follow(generationLink(number)); err == nil && number > m.After && system == m.System {
			made = append(made, strconv.Itoa(number))
		}
	}
	return made, nil
}

// delete takes out of the profile what an attempt made. A boot loader has room
// for the newest few, and what failed would push out what works.
func (n NixOS) delete(ctx context.Context, failed Made) error {
	made, err := n.of(failed)
	if err != nil || len(made) == 0 {
		return err
	}
	args := append([]string{"--profile", n.path(profile), "--delete-generations"}, made...)
	return n.run(ctx, "generation "+strings.Join(made, ", ")+" cannot be deleted", "nix-env", args...)
}

// keep makes what failed a generation again. Where the boot loader cannot be
// told it may name that system, which the garbage collector must leave then.
func (n NixOS) keep(failed Made) error {
	made, err := n.of(failed)
	if err != nil || len(made) > 0 {
		return err
	}
	newest, err := n.newest()
	if err != nil {
		return err
	}
	if err := os.Symlink(failed.System, n.path(generationLink(newest+1))); err != nil {
		return err
	}
	return n.sync()
}

// tellLoader has the boot loader boot the default generation of the profile. A
// boot loader that keeps only the newest few leaves everything as it was for an
// older one, so that becomes the newest.
func (n NixOS) tellLoader(ctx context.Context, g Generation) error {
	if err := n.installLoader(ctx, g); err != nil {
		return err
	}
	boots, known := n.boots()
	if !known || boots == g.System {
		return nil
	}
	newest, err := n.newest()
	if err != nil {
		return err
	}
	if system, err := n.follow(generationLink(newest)); err != nil || system == g.System {
		return err
	}
	if err := n.nixEnv(ctx, g.System, "--set", g.System); err != nil {
		return err
	}
	return n.installLoader(ctx, g)
}

// installLoader writes what the next boot boots. That must not be durable before
// the system is: what Nix has fetched is not on the disk by itself.
func (n NixOS) installLoader(ctx context.Context, g Generation) error {
	if err := n.sync(); err != nil {
		return err
	}
	if err := n.run(ctx, "the boot loader cannot be set to "+Name(g.System), n.path(filepath.Join(g.System, switchTo)), "boot"); err != nil {
		return err
	}
	return n.sync()
}

// sync makes the store and the links of the profile survive a power cut.
func (n NixOS) sync() error {
	syncfs := n.syncfs
	if syncfs == nil {
		syncfs = syncFileSystem
	}
	for _, dir := range []string{storeDir, filepath.Dir(profile)} {
		if err := syncfs(n.path(dir)); err != nil {
			return fmt.Errorf("sync %s: %w", dir, err)
		}
	}
	return nil
}

func syncFileSystem(dir string) error {
	at, err := os.Open(dir) //nolint:gosec // one of two
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(at.Fd())), at.Close()) //nolint:gosec // a file descriptor
}

// loaderInfo is the name of the boot loader that booted this machine, in UTF-16
// after four bytes. What another left behind on a disk means nothing.
const loaderInfo = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// loaderConfigs are where the configuration of systemd-boot may lie.
var loaderConfigs = []string{"/boot/loader/loader.conf", "/efi/loader/loader.conf", "/boot/efi/loader/loader.conf"}

// loaderDefault is the line of a generation in it; a boot loader that counts
// boots adds how many are left.
var loaderDefault = regexp.MustCompile(`(?m)^default\s+nixos-generation-([0-9]+)(?:\+[0-9-]+)?\.conf\s*$`)

// boots is the system that systemd-boot boots by default, where that is what
// this machine has and can be read. It is known and empty where that
// generation was deleted.
func (n NixOS) boots() (system string, known bool) {
	name, err := os.ReadFile(n.path(loaderInfo))
	if err != nil || !strings.Contains(strings.ReplaceAll(string(name), "\x00", ""), "systemd-boot") {
		return "", false
	}
	var configs []string
	for _, at := range loaderConfigs {
		if text, err := os.ReadFile(n.path(at)); err == nil && !slices.Contains(configs, string(text)) {
			configs = append(configs, string(text))
		}
	}
	if len(configs) != 1 {
		return "", false
	}
	line := loaderDefault.FindStringSubmatch(configs[0])
	if line == nil {
		return "", false
	}
	number, err := strconv.Atoi(line[1])
	if err != nil {
		return "", false
	}
	system, _ = n.follow(generationLink(number)) //nolint:errcheck // see above
	return system, true
}
