package agent

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestANetworkThatStaysAwayIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration // that the address comes
		want  []string
	}{
		"there":  {0, nil},
		"slow":   {50 * time.Second, nil},
		"late":   {10 * time.Minute, []string{noAddress, "this machine has an address now"}},
		"absent": {24 * time.Hour, []string{noAddress}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, said, looks := time.Now(), []string(nil), 0
				w := networkWatch{
					there: func() bool { looks++; return time.Since(began) >= c.after },
					say:   func(s, _ string) { said = append(said, s) },
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				w.run(ctx)
				if !slices.Equal(said, c.want) {
					t.Errorf("%q", said)
				}
				if c.want == nil && looks != 1 {
					t.Error("looked", looks, "times")
				}
			})
		})
	}
}
