package main

import (
	"testing"

	"uncloud/internal/build"
)

func TestVersionIsThatOfTheAgent(t *testing.T) {
	if got := process().Version; got != build.Version() {
		t.Errorf("uc is %s, and the agent of the same build %s", got, build.Version())
	}
}
