package lab

import "os"

// Required tells whether a missing lab is a failure: on CI, and where
// UNCLOUD_LAB=require says so.
func Required() bool { return os.Getenv("CI") == "true" || os.Getenv("UNCLOUD_LAB") == "require" }

// skipper is the part of testing.TB that SkipOrFail needs.
type skipper interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// SkipOrFail ends a test on a host that can run no lab, aloud either way.
func SkipOrFail(t skipper, err error) {
	t.Helper()
	if Required() {
		t.Fatalf("no lab on this host, and it is required: %v", err)
	}
	t.Skipf("no lab on this host: %v", err)
}
