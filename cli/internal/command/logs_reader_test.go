package command

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	uncloudv1 "uncloud/api/uncloud/v1"
)

// TestALogIsReadOnceOverManyEnds: a replica's containers write; a stream tells
// what is there, as the engine does, and ends anywhere. In the end every line of
// every container that a stream could see was told exactly once.
func TestALogIsReadOnceOverManyEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := position{request: &uncloudv1.LogsRequest{Tail: 1000}}
		var log, want, got []*uncloudv1.LogLine
		second, container := int64(0), "one"
		read := func(most int) {
			asked := p.next()
			for _, line := range log {
				if c := asked.GetContainer(); (c == "" || c == container) && line.GetAt().AsTime().Before(asked.GetSince().AsTime()) {
					continue
				}
				if most--; most < 0 {
					return
				}
				if p.news(line) {
					got = append(got, line)
				}
			}
			p.opened(time.Unix(0, 0))
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 8).Draw(t, "step") {
			case 0: // a new container, after all of the one before was read
				read(1000)
				log, container = nil, container+"+"
			case 1, 2, 3:
				read(rapid.IntRange(0, 10).Draw(t, "lines"))
			default:
				second += int64(rapid.IntRange(0, 1).Draw(t, "later"))
				line := &uncloudv1.LogLine{
					At: timestamppb.New(time.Unix(1e9+second, 0)), Container: container,
					Text: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "text"), Stderr: rapid.Bool().Draw(t, "stderr"),
				}
				log, want = append(log, line), append(want, line)
			}
		}
		read(1000)
		if !slices.EqualFunc(got, want, func(a, b *uncloudv1.LogLine) bool {
			return a.GetAt().AsTime().Equal(b.GetAt().AsTime()) && a.GetText() == b.GetText() && a.GetStderr() == b.GetStderr() && a.GetContainer() == b.GetContainer()
		}) {
			t.Fatalf("told %v, written was %v", got, want)
		}
	})
}

// TestWhatIsAskedForAfterAnEnd: the first lines may be limited, what comes later not.
func TestWhatIsAskedForAfterAnEnd(t *testing.T) {
	began := time.Unix(1e9, 0)
	for name, c := range map[string]struct {
		tail, want int32
		since      bool
	}{
		"all": {-1, -1, false}, "some": {10, -1, false}, "none of before": {0, -1, true},
	} {
		p := position{request: &uncloudv1.LogsRequest{Tail: c.tail, Follow: true}}
		if p.next().GetTail() != c.tail {
			t.Errorf("%s: %v", name, p.next())
		}
		p.opened(began)
		if next := p.next(); next.GetTail() != c.want || (next.GetSince() != nil) != c.since || !next.GetFollow() {
			t.Errorf("%s: %v", name, next)
		}
	}
}
