package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"uncloud/internal/spec"
)

// Digest is equal for plans that do the same, on every machine and at any time:
// a person who saw one of them has seen the other. It says nothing of reasons
// and warnings, nor of what only waits or of the order of steps, which follows
// from the health of the moment.
func (p Plan) Digest() string {
	var lines []string
	for _, sp := range p.Services {
		lines = append(lines, sp.line())
		for _, s := range sp.Steps {
			if s.Kind != KindStart {
				lines = append(lines, s.line())
			}
		}
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:16])
}

// line is what happens to the service's row. When the row was made is left
// out: for a new one that is when it was planned.
func (p ServicePlan) line() string {
	row := func(s *spec.Service) []string {
		if s == nil {
			return nil
		}
		return []string{s.ID, s.Revision, string(s.Mode), fmt.Sprint(s.Replicas), string(s.Wanted)}
	}
	return fmt.Sprintf("%q %q %q", p.Change, row(p.Before), row(p.After))
}

func (s Step) line() string {
	return fmt.Sprintf("%q", []string{s.Key, s.From, s.Revision, string(s.Order), s.Text})
}
