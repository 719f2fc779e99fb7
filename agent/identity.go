package agent

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"uncloud/internal/atomicfile"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Identity is what makes this machine a member. It is made once, by init or
// join, and never overwritten: a machine that has one must be reset first.
type Identity struct {
	MachineID  string `json:"machineId"`
	ClusterID  string `json:"clusterId"`
	PrivateKey string `json:"privateKey"` // WireGuard, base64
	SigningKey []byte `json:"signingKey"` // Ed25519 seed and public key
	// What the machine was told when it joined. It is enough to reach the
	// others until the store has arrived; afterwards the store is believed.
	Network netip.Prefix   `json:"network"`
	Self    spec.Machine   `json:"self"`
	Members []spec.Machine `json:"members,omitempty"`
	// Endpoints are what a person said when the machine became a member.
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
	// The machine is ready once its store holds ReadyVersion of ReadySite.
	ReadySite    string `json:"readySite,omitempty"`
	ReadyVersion uint64 `json:"readyVersion,omitempty"`
	// Founded is set on the first machine of a cluster: it writes the cluster's row.
	Founded *Founding `json:"founded,omitempty"`
}

// Founding is what was decided when the cluster was made.
type Founding struct {
	Domain string `json:"domain,omitempty"`
}

// Signer is the key that signs tickets.
func (id Identity) Signer() ed25519.PrivateKey { return ed25519.PrivateKey(id.SigningKey) }

const identityFile = "identity.json"

// loadIdentity reads the identity; ok is false where the machine has none yet.
func loadIdentity(dir string) (Identity, bool, error) { return readIdentity(dir, identityFile) }

func readIdentity(dir, file string) (id Identity, ok bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	if err != nil {
		return id, false, fmt.Errorf("read identity: %w", err)
	}
	if err := json.Unmarshal(text, &id); err != nil || len(id.SigningKey) != ed25519.PrivateKeySize {
		return id, false, faults.New(faults.Internal, "the identity in %s cannot be read", filepath.Join(dir, file)).
			WithHint("restore it from a backup; or give the machine up: rm -r %s, and on another one: uc machine rm --force NAME", dir).Because(err)
	}
	return id, true, nil
}

// save makes the machine the one that it asked to be.
func (id Identity) save(dir string) error {
	if err := id.write(dir, identityFile); err != nil {
		return err
	}
	os.Remove(filepath.Join(dir, candidateFile)) //nolint:errcheck,gosec // it is read by machines without an identity only
	return nil
}

// write writes the identity so that a power cut leaves the old file, or the
// new one, and never half of one.
func (id Identity) write(dir, file string) error {
	text, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	if err := atomicfile.Replace(filepath.Join(dir, file), text, 0o600); err != nil {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return faults.New(faults.DiskFull, "no space left for the identity of this machine").
				WithHint("free some, then try again: df -h %s", dir).Because(err)
		}
		return fmt.Errorf("write identity: %w", err)
	}
	return nil
}
