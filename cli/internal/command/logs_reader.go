package command

import (
	"context"
	"maps"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

// reader follows one replica over the ends of its containers, and of its
// machine's answers.
type reader struct {
	logs    *logs
	replica *uncloudv1.Replica
	lines   chan *uncloudv1.LogLine // closed when it ends
	again   chan struct{}           // the replica is there: what ended is to be opened again
	gone    chan struct{}           // closed: the replica is not there any more
	at      position
	said    string // the last complaint
}

func newReader(l *logs, r *uncloudv1.Replica, request *uncloudv1.LogsRequest) *reader {
	return &reader{
		logs: l, replica: r, at: position{request: request}, lines: make(chan *uncloudv1.LogLine, mergeAhead),
		again: make(chan struct{}, 1), gone: make(chan struct{}),
	}
}

// wake tells that the replica is there.
func (r *reader) wake() {
	select {
	case r.again <- struct{}{}:
	default:
	}
}

// run reads until ctx ends, or until the replica is gone and its last stream
// has ended.
func (r *reader) run(ctx context.Context) {
	defer close(r.lines)
	for {
		began := r.logs.Now()
		err := r.logs.read(ctx, r.at.next(), r.replica, r.hand(ctx))
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			r.at.opened(began)
		}
		r.complain(err)
		select {
		case <-ctx.Done():
			return
		case <-r.gone:
			return
		case <-r.again:
		}
	}
}

func (r *reader) hand(ctx context.Context) func(*uncloudv1.LogLine) error {
	return func(line *uncloudv1.LogLine) error {
		if !r.at.news(line) {
			return nil
		}
		r.logs.answers(r.replica)
		r.said = ""
		return pass(ctx, r.lines, line)
	}
}

// complain tells once why nothing is read. A replica without a container is
// between two of them.
func (r *reader) complain(err error) {
	if err == nil || faults.CodeOf(err) == faults.NotFound {
		return
	}
	if why := faults.Of(err).Sentence; why != r.said {
		r.said = why
		r.logs.missing(r.replica, err)
	}
}

// position is how far the log of a replica was read. Podman tells times to the
// second only, and begins with all of that second: what was read of it is left
// out by what it says. Lines of another container are new, whatever their time.
type position struct {
	request   *uncloudv1.LogsRequest // what to ask for when nothing was read
	container string
	at        time.Time
	read      map[said]int // lines of the moment at
	skip      map[said]int // those of them that come once more
}

// said is what tells apart lines of one moment.
type said struct {
	stderr bool
	text   string
}

// next is what to ask for now.
func (p *position) next() *uncloudv1.LogsRequest {
	p.skip = maps.Clone(p.read)
	if p.at.IsZero() {
		return p.request
	}
	next := proto.CloneOf(p.request)
	next.Tail, next.Since, next.Container = -1, timestamppb.New(p.at), p.container
	return next
}

// opened notes that a stream that began at a time has ended and nothing is
// missing before it: what comes from now on is wanted whole.
func (p *position) opened(began time.Time) {
	if p.request.GetTail() < 0 {
		return
	}
	next := proto.CloneOf(p.request)
	if next.GetTail() == 0 {
		next.Since = timestamppb.New(began) // what was there before was not asked for
	}
	next.Tail = -1
	p.request = next
}

// news tells whether a line was not read before, and takes it as read.
func (p *position) news(line *uncloudv1.LogLine) bool {
	at, what := line.GetAt().AsTime(), said{line.GetStderr(), line.GetText()}
	if line.GetContainer() != p.container || p.at.IsZero() {
		p.container, p.at, p.read, p.skip = line.GetContainer(), at, map[said]int{what: 1}, nil
		return true
	}
	switch {
	case at.After(p.at):
		p.at, p.read, p.skip = at, map[said]int{}, nil
	case p.skip == nil: // a long line begins before others and is told after them
	case at.Before(p.at):
		return false
	case p.skip[what] > 0:
		p.skip[what]--
		return false
	}
	if at.Equal(p.at) {
		p.read[what]++
	}
	return true
}
