package gossip

import (
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/serf/serf"
)

// TestNewsThatAreNotTakenInAreSeen: who waits for news holds the view.
func TestNewsThatAreNotTakenInAreSeen(t *testing.T) {
	g := &Gossip{options: Options{Machine: "a"}, view: newView("a"), logger: slog.New(slog.DiscardHandler), drained: make(chan struct{})}
	events, down := make(chan serf.Event), make(chan struct{})
	go g.drain(events, down)
	g.view.mu.Lock()
	events <- serf.MemberEvent{Type: serf.EventMemberJoin, Members: []serf.Member{{Name: "b"}}}
	deadline := time.After(10 * time.Second)
	for want := range 2 { // seen, and growing
		for before := g.Stalled(); g.Stalled() <= before; {
			select {
			case <-deadline:
				t.Fatalf("news that nobody takes in are not seen (%d)", want)
			case <-time.After(time.Millisecond):
			}
		}
	}
	g.view.mu.Unlock()
	close(down)
	<-g.drained
	if took := g.Stalled(); took != 0 {
		t.Errorf("news that were taken in are said to wait for %s", took)
	}
}
