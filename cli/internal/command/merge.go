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
// of time. It ends when all streams have. A line is due when every stream that
// has not ended has shown its next line. With patience 0 that is waited for;
// otherwise a stream that stays silent for so long is not waited for again
// until it has said something.
//
//	a  1 . . 4 .        hands on 1, 2, 3; then 4 when b shows
//	b  . 2 3 . . . .    a later line, ends, or stays silent
func merge(ctx context.Context, streams []<-chan *uncloudv1.LogLine, patience time.Duration, hand func(n int, line *uncloudv1.LogLine) error) error {
	m := &merger{streams: streams, heads: make([]head, len(streams)), arrived: make(chan arrival), open: len(streams)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for n := range streams {
		m.heads[n].taken = make(chan struct{}, 1)
		go m.pump(ctx, n)
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

// merger is the next line of each stream.
type merger struct {
	streams []<-chan *uncloudv1.LogLine
	heads   []head
	arrived chan arrival
	open    int // streams that have not ended
}

type head struct {
	line  *uncloudv1.LogLine // nil: not there yet, or the stream ended
	quiet bool               // ended, or silent for longer than patience
	taken chan struct{}
}

type arrival struct {
	n    int
	line *uncloudv1.LogLine // nil: the stream ended
}

// pump shows a stream's next line each time the one before was taken.
func (m *merger) pump(ctx context.Context, n int) {
	for {
		var next arrival
		select {
		case line := <-m.streams[n]: // nil once it is closed
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
		case <-m.heads[n].taken:
		case <-ctx.Done():
			return
		}
	}
}

// due waits for a line that is due and is its stream; -1 when all have ended.
func (m *merger) due(ctx context.Context, patience time.Duration) (int, error) {
	var late <-chan time.Time
	for m.open > 0 {
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
