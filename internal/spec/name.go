package spec

import (
	"fmt"
	"regexp"
)

// nameRule is the rule for names of machines, projects, services and volumes:
// a DNS label, because each of them is one.
var nameRule = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// CheckName returns an error that says what is wrong with the name of a kind
// of thing, or nil.
func CheckName(kind, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the %s needs a name", kind)
	case !nameRule.MatchString(name):
		return fmt.Errorf("%q cannot name a %s: use 1-63 of a-z, 0-9 and -, not at the ends", name, kind)
	}
	return nil
}

// CheckMachineName is CheckName for machines.
func CheckMachineName(name string) error { return CheckName("machine", name) }
