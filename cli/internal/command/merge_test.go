package command

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	uncloudv1 "uncloud/api/uncloud/v1"
)

func lineAt(second int) *uncloudv1.LogLine {
	return &uncloudv1.LogLine{At: timestamppb.New(time.Unix(int64(second), 0))}
}

func secondsOf(lines []*uncloudv1.LogLine) []int {
	seconds := []int{}
	for _, l := range lines {
		seconds = append(seconds, int(l.GetAt().GetSeconds()))
	}
	return seconds
}

// Streams that end are merged into one in order, and nothing is lost.
func TestMergeIsInOrderAndComplete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []int
		var streams []logStream
		for range rapid.IntRange(0, 5).Draw(t, "streams") {
			seconds := rapid.SliceOfN(rapid.IntRange(0, 50), 0, 20).Draw(t, "seconds")
			slices.Sort(seconds)
			all = append(all, seconds...)
			c := make(chan *uncloudv1.LogLine, rapid.IntRange(0, 3).Draw(t, "ahead"))
			streams = append(streams, c)
			go func() {
				defer close(c)
				for _, s := range seconds {
					c <- lineAt(s)
				}
			}()
		}
		var got []*uncloudv1.LogLine
		err := merge(context.Background(), streams, nil, 0, func(_ int, l *uncloudv1.LogLine) error {
			got = append(got, l)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(all)
		if !slices.Equal(secondsOf(got), append([]int{}, all...)) {
			t.Fatalf("merged %v, want %v", secondsOf(got), all)
		}
	})
}

// A silent stream is waited for once, and not again before each line.
func TestMergeDoesNotStallOnTheSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		busy, silent := make(chan *uncloudv1.LogLine), make(chan *uncloudv1.LogLine)
		go func() {
			for s := range 100 {
				busy <- lineAt(s)
			}
			silent <- lineAt(100)
			time.Sleep(time.Minute) // virtual
			cancel()
		}()
		began := time.Now()
		lines, took := 0, time.Duration(0)
		err := merge(ctx, []logStream{busy, silent}, nil, mergePatience, func(int, *uncloudv1.LogLine) error {
			lines++
			took = time.Since(began)
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if lines != 101 || took > 3*mergePatience {
			t.Errorf("%d lines in %v", lines, took)
		}
	})
}

// A line that comes within the patience is put where it belongs.
func TestMergeWaitsForLateLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		early, late := make(chan *uncloudv1.LogLine, 1), make(chan *uncloudv1.LogLine)
		early <- lineAt(2)
		close(early)
		go func() {
			time.Sleep(mergePatience / 2)
			late <- lineAt(1)
			close(late)
		}()
		var got []*uncloudv1.LogLine
		err := merge(context.Background(), []logStream{early, late}, nil, mergePatience, func(_ int, l *uncloudv1.LogLine) error {
			got = append(got, l)
			return nil
		})
		if err != nil || !slices.Equal(secondsOf(got), []int{1, 2}) {
			t.Errorf("merged %v, %v", secondsOf(got), err)
		}
	})
}

func TestMergeEndsWithItsReader(t *testing.T) {
	c := make(chan *uncloudv1.LogLine, 1)
	c <- lineAt(1)
	broken := errors.New("nobody reads")
	err := merge(context.Background(), []logStream{c}, nil, 0, func(int, *uncloudv1.LogLine) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("ended with %v", err)
	}
}
