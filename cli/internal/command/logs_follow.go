package command

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

// followPoll is how often following asks which replicas there are. A machine's
// stream ends with the container, and nothing tells of a new one.
const followPoll = 2 * time.Second

// following is one uc logs -f: a reader for every replica that the names mean,
// those that come and go included.
type following struct {
	*logs
	request *uncloudv1.LogsRequest
	names   []string // those that are not gone
	readers map[string]*reader
	more    chan logStream
	deaf    bool // it was told that nobody says which replicas there are
}

// followAll writes lines until ctx ends, or until all that was named is gone.
func (l *logs) followAll(ctx context.Context, request *uncloudv1.LogsRequest, names []string, replicas []*uncloudv1.Replica) error {
	f := &following{logs: l, request: request, names: names, readers: map[string]*reader{}, more: make(chan logStream)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var streams []logStream
	for _, r := range replicas {
		streams = append(streams, f.begin(ctx, r, request))
	}
	go f.keep(ctx)
	err := merge(ctx, streams, f.more, mergePatience, l.write)
	if ctx.Err() != nil {
		return nil // that is how following ends
	}
	return err
}

func (f *following) begin(ctx context.Context, r *uncloudv1.Replica, request *uncloudv1.LogsRequest) logStream {
	f.addSource(r)
	reader := newReader(f.logs, r, request)
	f.readers[r.GetId()] = reader
	go reader.run(ctx)
	return reader.lines
}

// keep looks again and again which replicas there are, until none can come.
func (f *following) keep(ctx context.Context) {
	defer close(f.more)
	tick := time.NewTicker(followPoll)
	defer tick.Stop()
	for len(f.names) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		replicas, err := f.look(ctx)
		switch {
		case err == nil:
			f.deaf = false
			f.update(ctx, f.onMachines(replicas))
		case ctx.Err() == nil && !f.deaf:
			f.deaf = true
			f.ui.Warn("new replicas are not seen for now: %s", faults.Of(err).Sentence)
		}
	}
	f.update(ctx, nil)
}

// look is the replicas that the names mean now. A name that means nothing any
// more is told of and forgotten.
func (f *following) look(ctx context.Context) ([]*uncloudv1.Replica, error) {
	answer, err := f.client.Cluster.ListReplicas(ctx, connect.NewRequest(&uncloudv1.ListReplicasRequest{}))
	if err != nil {
		return nil, err
	}
	var found []*uncloudv1.Replica
	var left []string
	for _, name := range f.names {
		replicas := meant(answer.Msg.GetReplicas(), name)
		if len(replicas) == 0 {
			// A service between two replicas has none, and is there all the same.
			_, err := f.client.Cluster.InspectService(ctx, connect.NewRequest(&uncloudv1.InspectServiceRequest{Service: name}))
			switch {
			case faults.CodeOf(err) == faults.NotFound:
				f.ui.Note("%s is gone, and nothing more is to come of it", name)
				continue
			case err != nil:
				return nil, err
			}
		}
		left, found = append(left, name), append(found, replicas...)
	}
	f.names = left
	return found, nil
}

// update has every replica read that there is, and no other.
func (f *following) update(ctx context.Context, replicas []*uncloudv1.Replica) {
	there := map[string]bool{}
	for _, r := range replicas {
		there[r.GetId()] = true
		if reader := f.readers[r.GetId()]; reader != nil {
			reader.wake()
			continue
		}
		all := proto.CloneOf(f.request)
		all.Tail = -1 // it is new, and so is all that it wrote
		select {
		case f.more <- f.begin(ctx, r, all):
		case <-ctx.Done():
			return
		}
	}
	for id, reader := range f.readers {
		if !there[id] {
			close(reader.gone)
			delete(f.readers, id)
		}
	}
}
