package server

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/wire"
)

// machineService is what this machine says of itself.
type machineService struct{ *Server }

func (s machineService) Info(context.Context, *connect.Request[uncloudv1.InfoRequest]) (*connect.Response[uncloudv1.InfoResponse], error) {
	return connect.NewResponse(s.host.Info()), nil
}

func (s machineService) Init(ctx context.Context, req *connect.Request[uncloudv1.InitRequest]) (*connect.Response[uncloudv1.InfoResponse], error) {
	opts := InitOptions{Name: req.Msg.GetName(), Domain: req.Msg.GetDomain()}
	if text := req.Msg.GetNetwork(); text != "" {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, faults.New(faults.Invalid, "%q is no network", text).WithHint("give an IPv4 network such as 10.210.0.0/16")
		}
		opts.Network = network
	}
	var err error
	if opts.Endpoints, err = parseEndpoints(req.Msg.GetEndpoints()); err != nil {
		return nil, err
	}
	if err := s.host.Init(ctx, opts); err != nil {
		return nil, err
	}
	return connect.NewResponse(s.host.Info()), nil
}

func (s machineService) Join(ctx context.Context, req *connect.Request[uncloudv1.JoinRequest], stream *connect.ServerStream[uncloudv1.JoinProgress]) error {
	endpoints, err := parseEndpoints(req.Msg.GetEndpoints())
	if err != nil {
		return err
	}
	opts := JoinOptions{Ticket: req.Msg.GetTicket(), Name: req.Msg.GetName(), Labels: req.Msg.GetLabels(), Endpoints: endpoints}
	err = s.host.Join(ctx, opts, func(text string) {
		stream.Send(&uncloudv1.JoinProgress{Text: text}) //nolint:errcheck,gosec // joining goes on when nobody watches
	})
	if err != nil {
		return err
	}
	return stream.Send(&uncloudv1.JoinProgress{Done: true, Info: s.host.Info()})
}

func (s machineService) Reset(ctx context.Context, _ *connect.Request[uncloudv1.ResetRequest]) (*connect.Response[uncloudv1.ResetResponse], error) {
	untold, err := s.host.Reset(ctx)
	if err != nil {
		return nil, err
	}
	res := &uncloudv1.ResetResponse{}
	if untold != nil {
		res.Untold = wire.FaultMessage(faults.Of(untold))
	}
	return connect.NewResponse(res), nil
}

func parseEndpoints(texts []string) ([]netip.AddrPort, error) {
	out := make([]netip.AddrPort, 0, len(texts))
	for _, text := range texts {
		ep, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, faults.New(faults.Invalid, "%q is no endpoint", text).WithHint("write it as 203.0.113.5:51820 or [2001:db8::5]:51820")
		}
		out = append(out, ep)
	}
	return out, nil
}

func (s machineService) WireGuard(context.Context, *connect.Request[uncloudv1.WireGuardRequest]) (*connect.Response[uncloudv1.WireGuardResponse], error) {
	m, err := s.host.Arriving()
	if err != nil {
		return nil, err
	}
	res, err := m.WireGuard()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

func (s machineService) Authority(ctx context.Context, _ *connect.Request[uncloudv1.AuthorityRequest]) (*connect.Response[uncloudv1.AuthorityResponse], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	pem, err := m.Authority(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&uncloudv1.AuthorityResponse{Pem: pem}), nil
}

func (s machineService) ListImages(ctx context.Context, req *connect.Request[uncloudv1.ListImagesRequest]) (*connect.Response[uncloudv1.ListImagesResponse], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	all, err := m.Engine.ListImages(ctx)
	if err != nil {
		return nil, err
	}
	name := machineName(m.State(), m.Self)
	res := &uncloudv1.ListImagesResponse{}
	for _, img := range all {
		if want := req.Msg.GetName(); want != "" && !slices.Contains(img.Names, want) {
			continue
		}
		img.Machine = name
		res.Images = append(res.Images, img)
	}
	return connect.NewResponse(res), nil
}

func (s machineService) HasBlobs(ctx context.Context, req *connect.Request[uncloudv1.HasBlobsRequest]) (*connect.Response[uncloudv1.HasBlobsResponse], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	present, err := m.Images.Present(ctx, req.Msg.GetDigests())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&uncloudv1.HasBlobsResponse{Present: present}), nil
}

func (s machineService) PushImage(ctx context.Context, stream *connect.ClientStream[uncloudv1.PushImageRequest]) (*connect.Response[uncloudv1.PushImageResponse], error) {
	m, err := s.host.Member()
	if err != nil {
		return nil, err
	}
	if !stream.Receive() {
		return nil, errors.Join(stream.Err(), faults.New(faults.Invalid, "the push ended before it began").WithHint("push again: uc image push IMAGE"))
	}
	start := stream.Msg().GetStart()
	if start == nil {
		return nil, faults.New(faults.Invalid, "the first message of a push must announce the image").WithHint(otherVersion)
	}
	id, received, err := m.Images.Receive(ctx, ImageStart{Name: start.GetName(), Manifest: start.GetManifest(), Config: start.GetConfig()},
		func() (string, []byte, error) {
			if stream.Receive() {
				return stream.Msg().GetDigest(), stream.Msg().GetChunk(), nil
			}
			if err := stream.Err(); err != nil {
				return "", nil, err
			}
			return "", nil, io.EOF
		})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&uncloudv1.PushImageResponse{Id: id, Received: received}), nil
}

// Logs streams the lines of one or more replicas of this machine as they come.
func (s machineService) Logs(ctx context.Context, req *connect.Request[uncloudv1.LogsRequest], stream *connect.ServerStream[uncloudv1.LogLine]) error {
	m, err := s.host.Member()
	if err != nil {
		return err
	}
	opts := LogOptions{Follow: req.Msg.GetFollow(), Tail: int(req.Msg.GetTail()), Container: req.Msg.GetContainer()}
	if t := req.Msg.GetSince(); t != nil {
		opts.Since = t.AsTime()
	}
	if t := req.Msg.GetUntil(); t != nil {
		opts.Until = t.AsTime()
	}
	var sending sync.Mutex
	return eachReplica(ctx, m, req.Msg.GetReplicas(), func(ctx context.Context, id string) error {
		return m.Engine.Logs(ctx, id, opts, func(line LogLine) error {
			sending.Lock()
			defer sending.Unlock()
			return stream.Send(&uncloudv1.LogLine{Replica: id, At: timestamppb.New(line.At), Stderr: line.Stderr, Text: line.Text, Container: line.Container})
		})
	})
}

// eachReplica runs fn for each replica of this machine that refs name, all at
// once. All are found before the first begins, and it returns when the last
// has ended: nothing may be sent once the call has.
func eachReplica(ctx context.Context, m *Member, refs []string, fn func(context.Context, string) error) error {
	ids := make([]string, 0, len(refs))
	for _, ref := range refs {
		r, err := findReplica(m.State(), ref)
		if err != nil {
			return err
		}
		ids = append(ids, r.ID)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, len(ids))
	for _, id := range ids {
		go func() { results <- fn(ctx, id) }()
	}
	var first error
	for range ids {
		if err := <-results; err != nil && first == nil {
			first = err
			cancel()
		}
	}
	return first
}
