package crdt

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
)

// SiteID names one database file that writes: a machine's store has one, and
// takes another when it is restored from a copy. The zero SiteID is no site.
type SiteID [16]byte

// NewSiteID reads a site id from random.
func NewSiteID(random io.Reader) (SiteID, error) {
	var s SiteID
	for s.IsZero() {
		if _, err := io.ReadFull(random, s[:]); err != nil {
			return SiteID{}, fmt.Errorf("draw a site id: %w", err)
		}
	}
	return s, nil
}

// ParseSiteID reads the 32 hexadecimal digits that String writes.
func ParseSiteID(text string) (SiteID, error) {
	var s SiteID
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(s) {
		return s, fmt.Errorf("site id %q is not %d hexadecimal digits", text, 2*len(s))
	}
	copy(s[:], b)
	return s, nil
}

func (s SiteID) String() string { return hex.EncodeToString(s[:]) }

// IsZero tells whether s names no site.
func (s SiteID) IsZero() bool { return s == SiteID{} }

// Compare orders sites by their bytes.
func (s SiteID) Compare(t SiteID) int { return bytes.Compare(s[:], t[:]) }

func (s SiteID) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s *SiteID) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSiteID(string(text))
	return err
}

// Version names one committed write transaction: the Seq-th of its site,
// counted from 1. Seq 0 is before the first, and every replica covers it.
type Version struct {
	Site SiteID `json:"site"`
	Seq  uint64 `json:"seq"`
}

func (v Version) String() string { return fmt.Sprintf("%s@%d", v.Site, v.Seq) }
