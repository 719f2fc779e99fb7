package main

import (
	"context"
	"strings"
	"testing"

	uncloudv1 "uncloud/api/uncloud/v1"
)

func TestStatusSaysWhoTheMachineIsAndWhatItSuffersFrom(t *testing.T) {
	for want, info := range map[string]*uncloudv1.InfoResponse{
		"this machine belongs to no cluster\njoin: ticket tkt_a expired on 2026-01-01\n": {
			Phase: "new", Health: []*uncloudv1.HealthNote{{Code: "join", Text: "ticket tkt_a expired on 2026-01-01"}},
		},
		"pi-1 (mch_a) of cluster cls_a is ready, at 10.210.7.1\n": {
			Phase: "ready", MachineId: "mch_a", ClusterId: "cls_a", Name: "pi-1", Address: "10.210.7.1",
		},
	} {
		var out strings.Builder
		printStatus(&out, info)
		if out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
}

// TestFirstBootNeverFails: a boot goes on whatever is wrong. Nothing is
// applied here, since the volume is not there.
func TestFirstBootNeverFails(t *testing.T) {
	var out strings.Builder
	cmd := root()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"first-boot", "--config", "/nonexistent/config.json", "--directory", t.TempDir(), "--volume", "/nonexistent"})
	if err := cmd.ExecuteContext(ended()); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if !strings.Contains(out.String(), "uncloud: read configuration") {
		t.Errorf("a wrong configuration is not said: %q", out.String())
	}
}

// ended is a context that waits for no stick.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
