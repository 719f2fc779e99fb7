package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// goldenMachine is what the NixOS module makes of a machine that says no more
// than that it is one, as files. Machines of the lab are given the same.
const goldenMachine = "nix/golden/alone"

const (
	unitsOfPackages = "usr/lib/systemd/system"
	unitsOfMachine  = "etc/systemd/system"
)

// packaged says where packaging/install.sh puts a file of its directory, and
// how. Programs are apart: machines of a lab have those that were built last.
func packaged(name string) (place string, mode os.FileMode) {
	switch name {
	case "sysusers.conf":
		return "usr/lib/sysusers.d/uncloud.conf", 0o644
	case "sysctl.conf":
		return "usr/lib/sysctl.d/60-uncloud.conf", 0o644
	case "containers.conf":
		return "etc/containers/containers.conf.d/60-uncloud.conf", 0o644
	case "podman.conf":
		return "usr/lib/systemd/system/podman.service.d/60-uncloud.conf", 0o644
	case "uncloud-names":
		return "usr/libexec/uncloud/uncloud-names", 0o755
	}
	switch filepath.Ext(name) {
	case ".service", ".path":
		return filepath.Join(unitsOfPackages, name), 0o644
	}
	return "", 0
}

// A machine of a bare lab may have no product yet. An agent that was built with
// the race detector writes its reports to the disk, where Races finds them.
const labDropIn = `[Unit]
ConditionFileIsExecutable=/usr/bin/uncloudd

[Service]
Environment=GORACE=log_path=` + raceReports + `
`

// raceReports is followed by a dot and the id of the process.
const raceReports = "/var/log/uncloudd.race"

// Races are the reports of data races that agents of this machine wrote, on or
// off. Only programs that were built with the race detector write any.
func (m *Machine) Races() (string, error) {
	files, err := filepath.Glob(filepath.Join(m.Disk(), "up", raceReports) + ".*")
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		all.Write(text)
	}
	return all.String(), err
}

// install puts the product on the disk of a new machine: the package, over it
// what the module adds, and the links that enable units.
func (m *Machine) install() error {
	err := m.installPackage()
	if err != nil {
		return err
	}
	golden, err := readTree(filepath.Join(Repository(), goldenMachine, "etc"))
	if err != nil {
		return err
	}
	files := map[string]string{unitsOfMachine + "/uncloud.service.d/lab.conf": labDropIn}
	for name, content := range golden {
		files["etc/"+name] = content
	}
	if err := m.writeFiles(files, 0o644); err != nil {
		return err
	}
	for link, target := range enabled(files) {
		link = filepath.Join(m.Disk(), "up", link)
		if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o755), os.Symlink(target, link)); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) installPackage() error {
	files, err := readTree(filepath.Join(Repository(), "packaging"))
	if err != nil {
		return err
	}
	for name, content := range files {
		place, mode := packaged(name)
		if place == "" {
			continue
		}
		if err := m.writeFiles(map[string]string{place: content}, mode); err != nil {
			return err
		}
	}
	return nil
}

// enabled are the links that the [Install] sections of a machine's units ask
// for, with their targets. NixOS makes them when it builds a system, and takes
// no notice of those in packages.
func enabled(files map[string]string) map[string]string {
	links := map[string]string{}
	for name, content := range files {
		rest, ok := strings.CutPrefix(name, unitsOfMachine+"/")
		if !ok {
			continue
		}
		target := "/" + name
		unit, _, changed := strings.Cut(rest, ".d/")
		if changed {
			target = "/" + unitsOfPackages + "/" + unit
		}
		for line := range strings.Lines(content) {
			wants, ok := strings.CutPrefix(strings.TrimSpace(line), "WantedBy=")
			for _, by := range strings.Fields(wants) {
				if ok {
					links[fmt.Sprintf("%s/%s.wants/%s", unitsOfMachine, by, unit)] = target
				}
			}
		}
	}
	return links
}

// readTree reads the files below a directory, by their paths in it.
func readTree(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files[name] = string(content)
		return err
	})
	return files, err
}
