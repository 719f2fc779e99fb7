package fleet

import (
	"path"
	"strings"
	"unicode"

	"uncloud/internal/faults"
)

// checkTarget refuses what no machine can be taken to, while somebody is there
// to be told. Each machine fetches for itself, so a folder of the person who
// asks means nothing to it; and what begins with a dash would be an option.
func checkTarget(r Request) error {
	ref, name, _ := strings.Cut(r.Flake, "#")
	system := strings.TrimSuffix(r.System, "/")
	switch {
	case r.Flake != "" && (ref == "" || strings.HasPrefix(ref, "-") || strings.ContainsFunc(r.Flake, unprintable) || strings.ContainsAny(name, `"\$`)):
		return faults.New(faults.Invalid, "%q is no reference of a flake", r.Flake).WithHint("name one such as github:you/machines, or github:you/machines#pi")
	case strings.HasPrefix(ref, ".") || strings.HasPrefix(ref, "~"):
		return faults.New(faults.Invalid, "the flake %s is a folder here, and each machine fetches what it builds", r.Flake).
			WithHint("name it so that the machines can fetch it, such as github:you/machines; or by a folder that each machine has: /etc/nixos")
	case r.System != "" && (path.Dir(system) != "/nix/store" || path.Clean(system) != system || strings.ContainsFunc(r.System, unprintable)):
		return faults.New(faults.Invalid, "%q is no path of a system in /nix/store", r.System).WithHint("a system that was built: readlink -f result")
	case r.Generation < 0:
		return faults.New(faults.Invalid, "there is no generation %d", r.Generation).WithHint("see what a machine has: uc machine generations MACHINE")
	}
	return nil
}

func unprintable(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }
