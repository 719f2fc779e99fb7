// Package build tells which version of the product a program is.
package build

import "runtime/debug"

// Number is set when a release is linked: -X uncloud/internal/build.Number=0.1.0.
var Number = "0.1.0-dev"

// Version is the number, with the revision of the source where it is known.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Number
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return Number + "+" + s.Value[:12]
		}
	}
	return Number
}
