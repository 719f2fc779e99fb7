package agent

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"uncloud/agent/internal/server"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

func TestTroublesAreTakenBackByWhoRaisedThem(t *testing.T) {
	var all troubles
	all.setError("mesh", "mesh", errors.New("no tun"))
	all.set("ingress", server.Note{Code: "ingress.route", Text: "b"}, server.Note{Code: "ingress.route", Text: "a"})
	want := []server.Note{{Code: "ingress.route", Text: "a"}, {Code: "ingress.route", Text: "b"}, {Code: "mesh", Text: "no tun"}}
	if got := all.all(); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if n := all.count(); n["ingress.route"] != 2 || n["mesh"] != 1 {
		t.Errorf("%v", n)
	}
	all.setError("mesh", "mesh", faults.New(faults.Internal, "no nft").WithHint("install it"))
	if got := all.all()[2]; got.Hint != "install it" {
		t.Errorf("%v has not the hint of its fault", got)
	}
	all.setError("mesh", "mesh", nil)
	all.set("ingress")
	if got := all.all(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestATroubleSaysWhatToDo(t *testing.T) {
	var all troubles
	all.setError("ingress", "ingress", fmt.Errorf("load ingress: %w", faults.New(faults.Conflict, "a port is taken").WithHint("see who has it: ss -ltnp")))
	if got := all.all(); len(got) != 1 || got[0].Text != "load ingress: a port is taken" || got[0].Hint != "see who has it: ss -ltnp" {
		t.Errorf("%v", got)
	}
}

// TestARemovedServiceSuffersFromNothing: the driver may hold on to its trouble
// for a moment longer than its row.
func TestARemovedServiceSuffersFromNothing(t *testing.T) {
	state := &spec.State{Services: map[string]spec.Service{"svc_w": {ID: "svc_w", Project: "shop", Name: "web"}}}
	if got := serviceNote(state, "svc_gone", "rollout", "too few"); got != nil {
		t.Error(got)
	}
	if got := serviceNote(state, "svc_w", "rollout", "too few"); len(got) != 1 || got[0].Text != "shop/web: too few" {
		t.Error(got)
	}
}
