package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
)

// TestWhatWasStartedEndsFirst: whoever returns closes what it stood on.
func TestWhatWasStartedEndsFirst(t *testing.T) {
	broken, worse := errors.New("the port is taken"), errors.New("the rules are gone")
	for name, c := range map[string]struct {
		start func(cancel func()) error // what comes after the first loop
		loop  error                     // what that one ends with, when it is told to
		want  error
	}{
		"all went well, and the member is told to end": {start: func(cancel func()) error { cancel(); return nil }},
		"told to end halfway":                          {start: func(cancel func()) error { cancel(); return context.Canceled }},
		"halfway it failed":                            {start: func(func()) error { return broken }, want: broken},
		"what ran failed too":                          {start: func(func()) error { return broken }, loop: worse, want: worse},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var over atomic.Bool
		err := together(ctx, func(_ context.Context, run runner) error {
			run("firewall", func(ctx context.Context) error {
				<-ctx.Done()
				over.Store(true)
				if c.loop != nil {
					return c.loop
				}
				return ctx.Err()
			})
			return c.start(cancel)
		})
		if !over.Load() || !errors.Is(err, c.want) {
			t.Errorf("%s: %v; what was started is over: %v", name, err, over.Load())
		}
		cancel()
	}
}

// TestTheFirstFailureIsTheOneToTell, also where it ends a start under way.
func TestTheFirstFailureIsTheOneToTell(t *testing.T) {
	gone := errors.New("the rules are gone")
	err := together(t.Context(), func(ctx context.Context, run runner) error {
		run("firewall", func(context.Context) error { return gone })
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, gone) || errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
