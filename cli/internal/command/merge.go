package command

import (
	"context"
	"time"

	uncloudv1 "uncloud/api/uncloud/v1"
)

const (
	// mergeAhead is how many lines of a stream are read before they are due.
	mergeAhead = 64
	// mergePatience is how long a line that is next by time waits for streams
	// that have said nothing: they may have an earlier one on its way. More
	// makes the order truer over slow links, less makes following livelier.
	mergePatience = 300 * time.Millisecond
)

// merge hands on the lines of streams, each in order of time, as one in order
// of time. It ends when all streams have, also those that more brings until it
// is closed; nil brings none. A line is due when every stream that
// has not ended has shown its next line. With patience 0 that is waited for;
// otherwise a stream that stays silent for so long is not waited for again
// until it has said something.
//
//	a  1 . . 4 .        hands on 1, 2, 3; then 4 when b shows
//	b  . 2 3 . . . .    a later line, ends, or stays silent
func merge(ctx context.Context, streams []logStream, more <-chan logStream, patience time.Duration, hand func(n int, line *uncloudv1.LogLine) error) error {
	m := &merger{more: more, arrived: make(chan arrival)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, s := range streams {
		m.join(ctx, s)
	}
	for {
		n, err := m.due(ctx, patience)
		if n < 0 || err != nil {
			return err
		}
		if err := hand(n, m.heads[n].line); err != nil {
			return err
		}
		m.heads[n].line = nil
		m.heads[n].taken <- struct{}{}
	}
}

// logStream is closed when it ends.
type logStream = <-chan *uncloudv1.LogLine

// merger is the next line of each stream.
type merger struct {
	heads   []head
	more    <-chan logStream // nil: no other joins
	arrived chan arrival
	open    int // streams that have not ended
}

type head struct {
	line  *uncloudv1.LogLine // nil: not there yet, or the stream ended
	quiet bool               // ended, or silent for longer than patience
	taken chan<- struct{}
}

type arrival struct {
	n    int
	line *uncloudv1.LogLine // nil: the stream ended
}

func (m *merger) join(ctx context.Context, stream logStream) {
	taken := make(chan struct{}, 1)
	m.heads = append(m.heads, head{taken: taken})
	m.open++
	go m.pump(ctx, len(m.heads)-1, stream, taken)
}

// pump shows a stream's next line each time the one before was taken.
func (m *merger) pump(ctx context.Context, n int, stream logStream, taken <-chan struct{}) {
	for {
		var next arrival
		select {
		case line := <-stream: // nil once it is closed
			next = arrival{n, line}
		case <-ctx.Done():
			return
		}
		select {
		case m.arrived <- next:
		case <-ctx.Done():
			return
		}
		if next.line == nil {
			return
		}
		select {
		case <-taken:
		case <-ctx.Done():
			return
		}
	}
}

// due waits for a line that is due and is its stream; -1 when all have ended.
func (m *merger) due(ctx context.Context, patience time.Duration) (int, error) {
	var late <-chan time.Time
	for m.open > 0 || m.more != nil {
		first, complete := m.first()
		if complete {
			return first, nil
		}
		if late == nil && patience > 0 && first >= 0 {
			timer := time.NewTimer(patience)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case a := <-m.arrived:
			m.arrive(a)
		case stream, ok := <-m.more:
			if ok {
				m.join(ctx, stream)
			} else {
				m.more = nil
			}
		case <-late:
			m.stopWaiting()
			return first, nil
		case <-ctx.Done():
			return -1, ctx.Err()
		}
	}
	return -1, nil
}

func (m *merger) arrive(a arrival) {
	m.heads[a.n].line = a.line
	m.heads[a.n].quiet = a.line == nil
	if a.line == nil {
		m.open--
	}
}

func (m *merger) stopWaiting() {
	for n := range m.heads {
		m.heads[n].quiet = m.heads[n].quiet || m.heads[n].line == nil
	}
}

// first is the stream whose next line is earliest, or -1, and whether no
// stream that is waited for could have an earlier one. Lines of one moment
// come in the order of their streams.
func (m *merger) first() (n int, complete bool) {
	n, complete = -1, true
	for i, h := range m.heads {
		if h.line == nil {
			complete = complete && h.quiet
			continue
		}
		if n < 0 || h.line.GetAt().AsTime().Before(m.heads[n].line.GetAt().AsTime()) {
			n = i
		}
	}
	return n, complete && n >= 0
}
