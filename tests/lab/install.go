package lab

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

// installed says where a package puts the files of packaging/.
var installed = map[string]string{
	"uncloud.service":       "usr/lib/systemd/system/uncloud.service",
	"uncloud-names.service": "usr/lib/systemd/system/uncloud-names.service",
	"sysusers.conf":         "usr/lib/sysusers.d/uncloud.conf",
	"sysctl.conf":           "usr/lib/sysctl.d/60-uncloud.conf",
}

// A machine of a bare lab may have no product yet.
const labDropIn = `[Unit]
ConditionFileIsExecutable=/usr/bin/uncloudd
`

// install puts the product on the disk of a new machine and enables it.
func (m *Machine) install() error {
	files := map[string]string{"etc/systemd/system/uncloud.service.d/lab.conf": labDropIn}
	for name, place := range installed {
		content, err := os.ReadFile(filepath.Join(Repository(), "packaging", name))
		if err != nil {
			return err
		}
		files[place] = string(content)
	}
	if err := m.writeFiles(files, 0o644); err != nil {
		return err
	}
	names, err := os.ReadFile(filepath.Join(Repository(), "packaging/uncloud-names"))
	if err != nil {
		return err
	}
	if err := m.writeFiles(map[string]string{"usr/libexec/uncloud/uncloud-names": string(names)}, 0o755); err != nil {
		return err
	}
	wants := filepath.Join(m.Disk(), "up/etc/systemd/system/multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	for _, unit := range []string{"uncloud.service", "uncloud-names.service"} {
		if err := os.Symlink("/usr/lib/systemd/system/"+unit, filepath.Join(wants, unit)); err != nil {
			return err
		}
	}
	return nil
}

// limitContainers tells Podman which limits the host can enforce. Its default
// of 2048 processes fails every container where the pids controller is absent.
func (m *Machine) limitContainers() error {
	content := "[network]\nfirewall_driver = \"nftables\"\n"
	if !m.limitsPids() {
		content = "[containers]\npids_limit = 0\n" + content
	}
	return m.writeFiles(map[string]string{"etc/containers/containers.conf.d/lab.conf": content}, 0o644)
}

// makeKey makes the lab's SSH key: each machine and the outside may log in to
// every machine as root with it.
func (l *Lab) makeKey() error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "lab "+l.Name)
	if err != nil {
		return err
	}
	authorized, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(l.keyFile(), pem.EncodeToMemory(block), 0o600),
		os.WriteFile(l.keyFile()+".pub", ssh.MarshalAuthorizedKey(authorized), 0o644))
}

func (l *Lab) keyFile() string { return filepath.Join(l.dir, "ssh_key") }

func (m *Machine) installKey() error {
	private, err := os.ReadFile(m.lab.keyFile())
	if err != nil {
		return fmt.Errorf("read key of the lab: %w", err)
	}
	public, err := os.ReadFile(m.lab.keyFile() + ".pub")
	if err != nil {
		return fmt.Errorf("read key of the lab: %w", err)
	}
	return errors.Join(
		m.writeFiles(map[string]string{"root/.ssh/id_ed25519": string(private)}, 0o600),
		m.writeFiles(map[string]string{
			"root/.ssh/authorized_keys": string(public),
			"root/.ssh/config":          "Host 192.0.2.*\n  StrictHostKeyChecking accept-new\n  BatchMode yes\n",
		}, 0o644))
}
