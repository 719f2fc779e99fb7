package hostos

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const storeDir = "/nix/store/"

func (n NixOS) staged() string { return filepath.Join(n.Dir, "staged") }

// Stage builds a flake's system, or fetches a store path, and looks at it.
func (n NixOS) Stage(ctx context.Context, t Target) (system string, err error) {
	switch {
	case t.Generation != 0:
		if system, err = n.follow(generationLink(t.Generation)); err != nil {
			return "", fmt.Errorf("there is no generation %d on this machine", t.Generation)
		}
		err = n.realise(ctx, system)
	case t.System != "":
		if system, err = storePath(t.System); err == nil {
			err = n.realise(ctx, system)
		}
	default:
		system, err = n.build(ctx, Attribute(t.Flake, t.Name))
	}
	if err != nil {
		return "", err
	}
	return system, n.check(system)
}

// Release removes the link that made the staged system a root. Nix drops roots
// whose links are gone. By now the profile leads to a system that was kept.
func (n NixOS) Release(context.Context) error {
	err := os.Remove(n.staged())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Attribute is what is built of a flake: the system of the configuration that
// the reference names after "#", or of the one called name.
func Attribute(flake, name string) string {
	ref, given, _ := strings.Cut(flake, "#")
	if given != "" {
		name = given
	}
	return ref + `#nixosConfigurations."` + name + `".config.system.build.toplevel`
}

// withName is a reference of a flake with the name of a configuration, if any.
func withName(ref, name string) string {
	if name == "" {
		return ref
	}
	return ref + "#" + name
}

// Lock asks Nix what a reference is now. Nix believes for an hour what it was
// told about a branch, unless it is told to look again. A folder of this machine
// means nothing to others, though Nix has a locked form of it.
func (n NixOS) Lock(ctx context.Context, flake string) (string, error) {
	ref, name, _ := strings.Cut(flake, "#")
	if strings.HasPrefix(ref, "-") {
		return "", fmt.Errorf("%s is no reference of a flake", flake)
	}
	said := &bytes.Buffer{}
	err := n.into(ctx, said, ref+" cannot be read", "nix", "--extra-experimental-features", "nix-command flakes",
		"flake", "metadata", "--refresh", "--json", ref)
	if err != nil {
		return "", err
	}
	var metadata struct{ URL, LockedURL string }
	if err := json.Unmarshal(said.Bytes(), &metadata); err != nil {
		return "", fmt.Errorf("%s cannot be read: what nix flake metadata says of it: %w", ref, err)
	}
	locked := cmp.Or(metadata.LockedURL, metadata.URL)
	if locked == "" || strings.HasPrefix(locked, "path:") || strings.HasPrefix(locked, "/") || strings.Contains(locked, "file://") {
		return "", nil
	}
	return withName(locked, name), nil
}

func storePath(system string) (string, error) {
	clean := filepath.Clean(system)
	if rest, ok := strings.CutPrefix(clean, storeDir); !ok || rest == "" || strings.Contains(rest, "/") {
		return "", fmt.Errorf("%s is no path of a system in %s", system, strings.TrimSuffix(storeDir, "/"))
	}
	return clean, nil
}

func (n NixOS) realise(ctx context.Context, system string) error {
	return n.run(ctx, Name(system)+" cannot be had", "nix-store", "--realise", system, "--add-root", n.staged())
}

func (n NixOS) build(ctx context.Context, attribute string) (string, error) {
	if strings.HasPrefix(attribute, "-") {
		return "", fmt.Errorf("%s is no reference of a flake", attribute)
	}
	system, err := n.output(ctx, attribute+" does not build", "nix", "--extra-experimental-features", "nix-command flakes",
		"build", "--refresh", "--out-link", n.staged(), "--print-out-paths", attribute)
	if err != nil {
		return "", err
	}
	return storePath(system)
}

// check refuses a system that this machine could not come back from: one of
// another processor, one without a switch, one that does not start Uncloud, and
// one that shuts its owner out at the next boot.
func (n NixOS) check(system string) error {
	has := func(p string) bool {
		_, err := os.Lstat(n.path(p))
		return err == nil
	}
	if !has(filepath.Join(system, switchTo)) {
		return fmt.Errorf("%s is no NixOS system: it has no %s", Name(system), switchTo)
	}
	current, err := n.follow(currentLink)
	if err != nil {
		return err
	}
	mine, theirs := n.processor(current), n.processor(system)
	if mine != "" && theirs != "" && mine != theirs {
		return fmt.Errorf("%s is for %s, and this machine is %s", Name(system), theirs, mine)
	}
	if err := n.checkUnits(system, has); err != nil {
		return err
	}
	if n.told() && has(firstBootUnit(current)) && !has(firstBootUnit(system)) {
		return fmt.Errorf("%s does not read what uncloud.txt said: the keys, Wi-Fi and address of this machine would be lost; "+
			"let it have services.uncloud.firstBoot.enable, or remove %s", Name(system), firstBootDir)
	}
	return nil
}

// Units that a system must start by itself. Without the first the machine
// would be on its own for ever; without the others an attempt with a restart
// would never return, and no later one would begin.
var ownUnits = []string{"uncloud.service", "uncloud-host.service", "uncloud-host.path"}

const wantsDir = "multi-user.target.wants"

// checkUnits refuses a system that has no Uncloud in it, or has it and would
// not start it: a unit that nothing wants, or one that is masked.
func (n NixOS) checkUnits(system string, has func(string) bool) error {
	for _, unit := range ownUnits {
		at := filepath.Join(system, systemdUnits, unit)
		wanted := has(filepath.Join(system, systemdUnits, wantsDir, unit))
		switch masked := n.masked(at); {
		case !has(at):
			return fmt.Errorf("%s has no Uncloud in it (no %s): this machine would be lost to the cluster; "+
				"let it have services.uncloud.enable", Name(system), unit)
		case masked || !wanted:
			kind := map[bool]string{true: "masked", false: "not in " + wantsDir}[masked]
			return fmt.Errorf("%s would not start %s (%s): this machine would be lost to the cluster; "+
				"let its configuration leave enable and wantedBy of that unit alone", Name(system), unit, kind)
		}
	}
	return nil
}

// masked tells whether a unit is one that never starts: NixOS makes that of one
// that its configuration disables.
func (n NixOS) masked(unit string) bool {
	to, err := n.follow(unit)
	return err == nil && to == "/dev/null"
}

// firstBootDir is where a flashed machine keeps who gets in and how it is
// reached, which its generation does not say.
const firstBootDir = "/var/lib/uncloud-first-boot"

func firstBootUnit(system string) string {
	return filepath.Join(system, systemdUnits, "uncloud-first-boot.service")
}

// told tells whether this machine lives by what an uncloud.txt said.
func (n NixOS) told() bool {
	for _, name := range []string{"authorized_keys", "network", "wifi"} {
		if _, err := os.Lstat(n.path(filepath.Join(firstBootDir, name))); err == nil {
			return true
		}
	}
	return false
}

// processor is what a system was built for; empty where it does not say.
func (n NixOS) processor(system string) string {
	text, err := os.ReadFile(n.path(filepath.Join(system, "system")))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
