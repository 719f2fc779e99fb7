package lab

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What a package installs and what the module makes of a machine are written
// in two places. Where both speak of one thing, they must say the same.
func TestTheModuleAndThePackageAgree(t *testing.T) {
	packaging := mustReadTree(t, "packaging")
	golden := map[string]string{}
	for name, content := range mustReadTree(t, goldenMachine+"/etc") {
		golden["etc/"+name] = content
	}

	if of, module := settings(packaging["sysctl.conf"]), settings(golden["etc/sysctl.d/60-uncloud.conf"]); !maps.Equal(of, module) {
		t.Errorf("sysctls of the package are %v, of the module %v", of, module)
	}
	engine, _ := packaged("containers.conf")
	if packaging["containers.conf"] != golden[engine] {
		t.Errorf("the package tells Podman %q, the module %q", packaging["containers.conf"], golden[engine])
	}
	for name := range packaging {
		if _, ok := golden[unitsOfMachine+"/"+name]; ok {
			t.Errorf("the module writes %s whole, though the package ships it", name)
		}
	}
	// A person enables what [Install] says, the module what wantedBy says.
	units := map[string]string{}
	for name, content := range packaging {
		units[unitsOfMachine+"/"+name] = content
	}
	byPackage := slices.Sorted(maps.Keys(enabled(units)))
	byModule := slices.Sorted(maps.Keys(enabled(golden)))
	byModule = slices.DeleteFunc(byModule, func(link string) bool { return packaging[filepath.Base(link)] == "" })
	if !slices.Equal(byPackage, byModule) {
		t.Errorf("enabled by the package:\n%s\nby the module:\n%s", strings.Join(byPackage, "\n"), strings.Join(byModule, "\n"))
	}
}

// What install.sh places is what a machine of the lab has.
func TestTheLabInstallsWhatTheScriptDoes(t *testing.T) {
	if _, err := os.Stat(filepath.Join(Repository(), "bin/uncloudd")); err != nil {
		t.Skipf("bin/uncloudd is not built; ./dev build does: %v", err)
	}
	root := t.TempDir()
	script := exec.CommandContext(t.Context(), filepath.Join(Repository(), "packaging/install.sh"))
	script.Env = append(os.Environ(), "DESTDIR="+root)
	if out, err := script.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	placed, err := readTree(root)
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(placed, func(name, _ string) bool { return strings.HasPrefix(name, "usr/bin/") })
	wanted := map[string]string{}
	for name, content := range mustReadTree(t, "packaging") {
		if place, _ := packaged(name); place != "" {
			wanted[place] = content
		}
	}
	if !maps.Equal(placed, wanted) {
		t.Errorf("the script places %v, the lab %v", slices.Sorted(maps.Keys(placed)), slices.Sorted(maps.Keys(wanted)))
	}
}

// Programs that a unit of the module starts are where the package puts them.
func TestUnitsOfTheModuleStartWhatThePackageHas(t *testing.T) {
	has := map[string]bool{"/usr/bin/uc": true, "/usr/bin/uncloudd": true}
	for name := range mustReadTree(t, "packaging") {
		place, _ := packaged(name)
		has["/"+place] = true
	}
	for name, content := range mustReadTree(t, "nix/golden") {
		for line := range strings.Lines(content) {
			key, command, _ := strings.Cut(strings.TrimSpace(line), "=")
			if !strings.HasPrefix(key, "Exec") || !strings.Contains(name, "/systemd/system/") || strings.Contains(name, "/specialisation/") {
				continue
			}
			if program, _, _ := strings.Cut(command, " "); program != "" && !has[program] {
				t.Errorf("%s starts %s", name, program)
			}
		}
	}
}

// settings are the lines NAME = VALUE of a sysctl.d file.
func settings(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			out[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return out
}

func mustReadTree(t *testing.T, name string) map[string]string {
	t.Helper()
	files, err := readTree(filepath.Join(Repository(), name))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files in %s: %v", len(files), name, err)
	}
	return files
}

// What an agent writes of a race is found on the disk of its machine, whether
// that runs or not.
func TestRacesAreFoundOnTheDisk(t *testing.T) {
	t.Setenv(envState, t.TempDir())
	l, err := Open(Options{Name: "races"})
	if err != nil {
		t.Fatal(err)
	}
	m := l.M(1)
	if report, err := m.Races(); err != nil || report != "" {
		t.Errorf("of a machine without any: %q, %v", report, err)
	}
	_, path, ok := strings.Cut(labDropIn, "GORACE=log_path=")
	if !ok {
		t.Fatal("the agent is not told where to write")
	}
	if err := m.writeFiles(map[string]string{strings.TrimSpace(path) + ".123": "WARNING: DATA RACE\n"}, 0o644); err != nil {
		t.Fatal(err)
	}
	if report, err := m.Races(); err != nil || report != "WARNING: DATA RACE\n" {
		t.Errorf("found %q, %v", report, err)
	}
}
