package server

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/api/uncloud/v1/uncloudv1connect"
)

// What a machine suffers from is a fact about now and lies in no store, so
// the living are asked. One that does not answer soon has no troubles to show:
// a list of machines may not wait for the worst of them.
const (
	sufferingWithin = time.Second
	sufferingAtOnce = 32
)

// suffering fills in what other machines suffer from, as they say it.
func (s *Server) suffering(ctx context.Context, v view, machines ...*uncloudv1.Machine) {
	ctx, cancel := context.WithTimeout(ctx, sufferingWithin)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(sufferingAtOnce)
	for _, m := range machines {
		if m.GetId() == v.member.Self || !v.alive[m.GetId()] {
			continue
		}
		group.Go(func() error {
			client := uncloudv1connect.NewMachineServiceClient(&http.Client{Transport: s.roads.toMachine(m.GetId())}, peerHost(m.GetId()))
			info, err := client.Info(ctx, connect.NewRequest(&uncloudv1.InfoRequest{}))
			if err != nil {
				s.log.Debug("ask what it suffers from", "machine", m.GetId(), "err", err)
				return nil
			}
			m.Health = append(info.Msg.GetHealth(), m.GetHealth()...) // what the rows tell stays
			return nil
		})
	}
	group.Wait() //nolint:errcheck,gosec // each logs its own
}
