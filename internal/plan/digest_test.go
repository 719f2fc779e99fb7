package plan

import (
	"testing"
	"time"

	"uncloud/internal/spec"
)

// TestDigest: what would be done counts, and what would not does not.
func TestDigest(t *testing.T) {
	plan := func(change func(*bench)) string {
		t.Helper()
		b := newBench(t)
		b.done(named("old"), web("web:1"))
		change(b)
		in := b.input(web("web:2"))
		in.Prune = true
		p, err := Deploy(in)
		if err != nil {
			t.Fatal(err)
		}
		return p.Digest()
	}
	base := plan(func(*bench) {})
	for name, c := range map[string]struct {
		change func(*bench)
		same   bool
	}{
		"another time":       {func(b *bench) { b.now = b.now.Add(time.Hour) }, true},
		"another machine":    {func(b *bench) { b.State.Machines["m9"] = spec.Machine{ID: "m9", Name: "m9"} }, true},
		"another service":    {func(b *bench) { b.done(named("new")) }, false},
		"another number":     {func(b *bench) { b.done(named("web", func(sp *spec.ServiceSpec) { sp.Replicas = 2 })) }, false},
		"another revision":   {func(b *bench) { b.done(web("web:3")) }, false},
		"it is done already": {func(b *bench) { b.done(web("web:2")) }, false},
	} {
		if got := plan(c.change) == base; got != c.same {
			t.Errorf("%s: the same is %t", name, got)
		}
	}
}

// TestRemovingTogether: a volume that only the removed mount goes with the last.
func TestRemovingTogether(t *testing.T) {
	b := newBench(t)
	b.done(named("a", data), named("b", data))
	a, z := spec.ServiceID("shop", "a"), spec.ServiceID("shop", "b")
	p, err := RemovingAll(b.View, []string{a, z}, true)
	if err != nil || len(p.Services) != 2 || len(p.Services[0].Volumes) != 0 || len(p.Services[1].Volumes) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	one, err := RemovingAll(b.View, []string{a}, true)
	if err != nil || len(one.Services[0].Volumes) != 0 || len(b.State.Services) != 2 {
		t.Fatalf("%+v, %v", one, err)
	}
	if _, err := RemovingAll(b.View, []string{a, "svc_none"}, false); err == nil {
		t.Error("a service that is not there was planned")
	}
}
