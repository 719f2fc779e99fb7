package crdt

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestClockRises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Clock
		now := time.UnixMilli(1_000_000)
		last := Stamp(0)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "ms")) * time.Millisecond)
			if rapid.Bool().Draw(t, "observe") {
				seen := StampAt(now.Add(time.Duration(rapid.IntRange(-900, 900).Draw(t, "skew")) * time.Millisecond))
				if c.Observe(seen, now) {
					last = max(last, seen)
				}
			}
			next := c.Next(now)
			if next <= last {
				t.Fatalf("%d after %d", next, last)
			}
			if ahead := next.Time().Sub(now); ahead > MaxDrift+time.Millisecond {
				t.Fatalf("%v ahead of the wall clock", ahead)
			}
			last = next
		}
	})
}

func TestClockComesBackFromAWrongTime(t *testing.T) {
	var c Clock
	c.Next(time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if got := c.Next(now).Time(); !got.Equal(now) {
		t.Fatalf("stamped %v after the clock was set right", got)
	}
	if c.Observe(StampAt(now.Add(time.Hour)), now) {
		t.Fatal("followed a stamp an hour ahead")
	}
	if got := StampAt(time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)); got != 0 {
		t.Fatalf("a time before 1970 gave %d", got)
	}
}
