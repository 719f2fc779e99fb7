package mesh

import (
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
)

// Key is a Curve25519 key of WireGuard, private or public. The zero Key is
// neither.
type Key [32]byte

// NewPrivateKey makes a private key from 32 bytes of random.
func NewPrivateKey(random io.Reader) (Key, error) {
	var k Key
	if _, err := io.ReadFull(random, k[:]); err != nil {
		return Key{}, fmt.Errorf("make private key: %w", err)
	}
	// Clamped as the protocol demands, so that tools which show or compare
	// private keys see the bits that are used.
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k, nil
}

// ParseKey reads the base64 of String.
func ParseKey(text string) (Key, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return Key{}, fmt.Errorf("parse key: %w", err)
	}
	if len(b) != len(Key{}) {
		return Key{}, fmt.Errorf("parse key: %d bytes, want %d", len(b), len(Key{}))
	}
	return Key(b), nil
}

// Public is the public key of a private one. It is an error for the zero Key.
func (k Key) Public() (Key, error) {
	if k.IsZero() {
		return Key{}, errors.New("no private key")
	}
	private, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		return Key{}, fmt.Errorf("derive public key: %w", err)
	}
	return Key(private.PublicKey().Bytes()), nil
}

// IsZero tells whether k is no key.
func (k Key) IsZero() bool { return k == Key{} }

// String is the base64 of the key, as `wg` shows it. Mind what you log: it
// shows private keys too.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }
