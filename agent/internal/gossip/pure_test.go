package gossip

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/serf/serf"

	"uncloud/internal/spec"
)

func TestSameCluster(t *testing.T) {
	member := func(cluster string) *serf.Member {
		return &serf.Member{Name: "m", Tags: map[string]string{tagCluster: cluster}}
	}
	ours := sameCluster("cls_a")
	if err := ours.NotifyMerge([]*serf.Member{member("cls_a"), member("cls_a")}); err != nil {
		t.Errorf("own cluster refused: %v", err)
	}
	if err := ours.NotifyMerge([]*serf.Member{member("cls_a"), member("cls_b")}); err == nil {
		t.Error("another cluster accepted")
	}
	if err := ours.NotifyMerge([]*serf.Member{{Name: "m"}}); err == nil {
		t.Error("a member without a cluster accepted")
	}
}

func TestSplitSeverity(t *testing.T) {
	for line, want := range map[string][2]string{
		"[WARN] memberlist: text here\n": {"WARN", "memberlist: text here"},
		"[DEBUG] serf: [x] y":            {"DEBUG", "serf: [x] y"},
		"no level\n":                     {"", "no level"},
		"[odd":                           {"", "[odd"},
		"":                               {"", ""},
	} {
		severity, text := splitSeverity([]byte(line))
		if got := [2]string{severity, text}; got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

func TestSerfLogIsDebug(t *testing.T) {
	var out bytes.Buffer
	for level, want := range map[slog.Level]bool{slog.LevelDebug: true, slog.LevelInfo: false} {
		out.Reset()
		logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))
		newSerfLog(logger).Printf("[ERR] memberlist: Failed %s", "ping")
		if got := strings.Contains(out.String(), "severity=ERR"); got != want {
			t.Errorf("at %v: %q", level, out.String())
		}
	}
}

func keep(int, func(i, j int)) {}

func TestSeekerRound(t *testing.T) {
	addr := netip.MustParseAddrPort("127.0.0.1:51001")
	s := newSeeker("self")
	now := time.Unix(1000, 0)
	if targets, _ := s.round(spec.Alive{"self": true}, now, keep); len(targets) > 0 {
		t.Errorf("without seeds: %v", targets)
	}
	seeds := map[string]netip.AddrPort{"self": addr, "a": addr, "b": addr, "c": addr, "d": addr, "e": addr}
	s.setSeeds(seeds)
	seeds["f"] = addr // the caller's map is the caller's

	targets, pause := s.round(spec.Alive{"self": true, "a": true}, now, keep)
	if len(targets) != seekWidth || pause != seekInterval {
		t.Errorf("first round: %v, %v", targets, pause)
	}
	for _, target := range targets {
		if slices.Contains([]string{"self", "a", "f"}, target.machine) {
			t.Errorf("sought %s", target.machine)
		}
	}

	later := now.Add(seekPatience)
	if _, pause := s.round(spec.Alive{"self": true, "a": true}, later, keep); pause != seekIdleInterval {
		t.Errorf("the long absent are sought every %v", pause)
	}
	if _, pause := s.round(spec.Alive{"self": true}, later, keep); pause != seekInterval {
		t.Errorf("a was just lost and is sought every %v", pause)
	}
	all := spec.Alive{"self": true, "a": true, "b": true, "c": true, "d": true, "e": true}
	if targets, _ := s.round(all, later, keep); len(targets) > 0 || len(s.since) > 0 {
		t.Errorf("all are alive: %v, %v", targets, s.since)
	}
}

func TestSetSeedsWakesOnlyOnChange(t *testing.T) {
	s := newSeeker("self")
	seeds := map[string]netip.AddrPort{"a": netip.MustParseAddrPort("127.0.0.1:1")}
	s.setSeeds(seeds)
	<-s.changed
	s.setSeeds(seeds)
	select {
	case <-s.changed:
		t.Error("equal seeds woke the seeker")
	default:
	}
}

func TestJitterStaysNear(t *testing.T) {
	for range 1000 {
		if d := jitter(time.Second); d < 750*time.Millisecond || d > 1250*time.Millisecond {
			t.Fatalf("jitter %v", d)
		}
	}
}

func TestViewCoalesces(t *testing.T) {
	v := newView("self")
	changes, cancel := v.subscribe()
	before := v.get()
	v.change(func(a spec.Alive) { a["a"] = true })
	v.change(func(a spec.Alive) { a["b"] = true })
	v.change(func(spec.Alive) {})
	<-changes
	select {
	case <-changes:
		t.Error("two changes woke twice")
	default:
	}
	if len(before) != 1 {
		t.Error("a published view changed")
	}
	cancel()
	v.change(func(a spec.Alive) { a["c"] = true })
	select {
	case <-changes:
		t.Error("woken after cancel")
	default:
	}
}

func TestTwins(t *testing.T) {
	n := NewNetwork()
	a, b, c := n.Member("a"), n.Member("b"), n.Member("c")
	ctx := t.Context()
	if _, err := a.Join(ctx, nil); err == nil {
		t.Error("joined nobody")
	}
	for _, m := range []*Twin{a, b, c} {
		if err := m.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	changes, cancel := a.Subscribe()
	defer cancel()
	check := func(who *Twin, want int) {
		t.Helper()
		if got := len(who.Alive()); got != want {
			t.Errorf("%s sees %d, want %d", who.machine, got, want)
		}
	}
	check(a, 3)
	n.SetRTT("a", "b", time.Millisecond)
	if rtt, ok := b.RTT("a"); !ok || rtt != time.Millisecond {
		t.Errorf("rtt %v %v", rtt, ok)
	}
	n.Cut("c")
	<-changes
	check(a, 2)
	check(c, 1)
	n.Cut("b")
	check(a, 1)
	n.Heal()
	check(c, 3)
	if err := b.Leave(ctx); err != nil {
		t.Error(err)
	}
	check(a, 2)
	check(b, 1)
	done, stop := context.WithCancel(ctx)
	stop()
	if err := a.Run(done); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
