package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"uncloud/agent/internal/crdt"
)

func TestLoadedStateIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l loadedState
		site := crdt.SiteID{1}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan error, 2)
		for range 2 {
			go func() { done <- l.await(ctx, crdt.Version{Site: site, Seq: 2}) }()
		}
		l.set(crdt.Known{site: crdt.Ranges{{First: 1, Last: 1}}})
		synctest.Wait()
		if len(done) != 0 {
			t.Error("an older state was enough")
		}
		l.set(crdt.Known{site: crdt.Ranges{{First: 1, Last: 2}}})
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := l.await(ctx, crdt.Version{}); err != nil {
			t.Errorf("nothing in particular: %v", err)
		}
		if err := l.await(ctx, crdt.Version{Site: site, Seq: 3}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("what never comes: %v", err)
		}
	})
}
