package agent

import (
	"testing"
	"time"
)

func TestSolitude(t *testing.T) {
	const (
		alone = iota
		inNetwork
		met
	)
	type seen struct {
		at   time.Duration
		what int
		over bool
	}
	for name, looks := range map[string][]seen{
		"others live":                   {{0, met, true}},
		"nobody lives":                  {{0, inNetwork, false}, {9 * time.Second, inNetwork, false}, {10 * time.Second, inNetwork, true}},
		"the network comes late":        {{0, alone, false}, {time.Minute, inNetwork, false}, {69 * time.Second, inNetwork, false}, {70 * time.Second, inNetwork, true}},
		"it comes, and goes, and comes": {{0, inNetwork, false}, {5 * time.Second, alone, false}, {12 * time.Second, inNetwork, false}, {22 * time.Second, inNetwork, true}},
		"it never comes":                {{0, alone, false}, {119 * time.Second, alone, false}, {2 * time.Minute, alone, true}},
		"others live before an address": {{0, alone, false}, {time.Second, met, true}},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			s := solitude{began: began}
			for _, l := range looks {
				if got := s.over(l.what == met, l.what == inNetwork, othersWithin, began.Add(l.at)); got != l.over {
					t.Errorf("after %s: over is %t", l.at, got)
				}
			}
		})
	}
	s := solitude{began: time.Now()}
	if !s.over(false, true, 0, time.Now()) {
		t.Error("who waits only for a network goes on waiting in one")
	}
}
