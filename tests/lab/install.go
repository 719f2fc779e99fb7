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

// limitContainers tells Podman which limits the host can enforce. Its default
// of 2048 processes fails every container where the pids controller is absent.
func (m *Machine) limitContainers() error {
	content := ""
	if !m.limitsPids() {
		content = "[containers]\npids_limit = 0\n"
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
