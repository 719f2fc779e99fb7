// Package fakeapi is a machine's API in memory, for tests of what talks to
// one: each call is a function field, and one that is not set answers that the
// call is not implemented. It owns the wire (HTTP/2 without TLS on a listener
// of the test) and no behaviour at all.
package fakeapi

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/api/uncloud/v1/uncloudv1connect"
	"uncloud/internal/faults"
	"uncloud/internal/wire"
)

// API is the services of a machine. A nil field is a call that is not there.
// The machine argument is the name or id that the request is addressed to,
// empty for the connected machine.
type API struct {
	ListMachines   func(*uncloudv1.ListMachinesRequest) (*uncloudv1.ListMachinesResponse, error)
	InspectMachine func(*uncloudv1.InspectMachineRequest) (*uncloudv1.Machine, error)
	RenameMachine  func(*uncloudv1.RenameMachineRequest) (*uncloudv1.Machine, error)
	LabelMachine   func(*uncloudv1.LabelMachineRequest) (*uncloudv1.Machine, error)
	RemoveMachine  func(context.Context, *uncloudv1.RemoveMachineRequest, Tell) error
	CreateTicket   func(*uncloudv1.CreateTicketRequest) (*uncloudv1.CreateTicketResponse, error)
	ListTickets    func(*uncloudv1.ListTicketsRequest) (*uncloudv1.ListTicketsResponse, error)
	RevokeTicket   func(*uncloudv1.RevokeTicketRequest) (*uncloudv1.Ticket, error)

	ListServices   func(*uncloudv1.ListServicesRequest) (*uncloudv1.ListServicesResponse, error)
	InspectService func(*uncloudv1.InspectServiceRequest) (*uncloudv1.Service, error)
	ListReplicas   func(*uncloudv1.ListReplicasRequest) (*uncloudv1.ListReplicasResponse, error)
	ListVolumes    func(*uncloudv1.ListVolumesRequest) (*uncloudv1.ListVolumesResponse, error)
	ListEvents     func(*uncloudv1.ListEventsRequest) (*uncloudv1.ListEventsResponse, error)

	PlanDeploy     func(*uncloudv1.DeployRequest) (*uncloudv1.Plan, error)
	Deploy         func(context.Context, *uncloudv1.DeployRequest, Tell) error
	Scale          func(context.Context, *uncloudv1.ScaleRequest, Tell) error
	StartServices  func(context.Context, *uncloudv1.ServicesRequest, Tell) error
	StopServices   func(context.Context, *uncloudv1.ServicesRequest, Tell) error
	PlanRemoval    func(*uncloudv1.ServicesRequest) (*uncloudv1.Plan, error)
	RemoveServices func(context.Context, *uncloudv1.ServicesRequest, Tell) error
	RemoveVolumes  func(context.Context, *uncloudv1.RemoveVolumesRequest, Tell) error
	Rollback       func(context.Context, *uncloudv1.RollbackRequest, Tell) error

	Info        func(machine string) (*uncloudv1.InfoResponse, error)
	Init        func(*uncloudv1.InitRequest) (*uncloudv1.InfoResponse, error)
	WireGuard   func(machine string) (*uncloudv1.WireGuardResponse, error)
	Authority   func(machine string) (*uncloudv1.AuthorityResponse, error)
	StoreStatus func(machine string) (*uncloudv1.StoreStatusResponse, error)
	CheckStore  func(machine string) (*uncloudv1.CheckStoreResponse, error)
	BackupStore func(machine string, send func(*uncloudv1.BackupStoreResponse) error) error
	// RestoreStore gets all messages at once.
	RestoreStore func(messages []*uncloudv1.RestoreStoreRequest) (*uncloudv1.RestoreStoreResponse, error)

	ListGenerations func(machine string, r *uncloudv1.ListGenerationsRequest) (*uncloudv1.ListGenerationsResponse, error)
	Upgrade         func(context.Context, *uncloudv1.UpgradeRequest, func(*uncloudv1.UpgradeStatus) error) error
	WatchUpgrade    func(context.Context, *uncloudv1.WatchUpgradeRequest, func(*uncloudv1.UpgradeStatus) error) error
	StopUpgrade     func(*uncloudv1.StopUpgradeRequest) (*uncloudv1.UpgradeStatus, error)

	ListImages func(machine string, r *uncloudv1.ListImagesRequest) (*uncloudv1.ListImagesResponse, error)
	HasBlobs   func(machine string, r *uncloudv1.HasBlobsRequest) (*uncloudv1.HasBlobsResponse, error)
	PushImage  func(machine string, receive func() (*uncloudv1.PushImageRequest, error)) (*uncloudv1.PushImageResponse, error)
	Logs       func(ctx context.Context, machine string, r *uncloudv1.LogsRequest, say func(*uncloudv1.LogLine) error) error
	Exec       func(ctx context.Context, machine string, stream *connect.BidiStream[uncloudv1.ExecRequest, uncloudv1.ExecResponse]) error
}

// Tell sends one message of a long-running call.
type Tell func(*uncloudv1.Progress) error

// Serve answers on the listener until it is closed. Only what ends it
// otherwise is an error.
func (a *API) Serve(l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle(uncloudv1connect.NewClusterServiceHandler(cluster{api: a}))
	mux.Handle(uncloudv1connect.NewMachineServiceHandler(machine{api: a}))
	mux.Handle(uncloudv1connect.NewUpgradeServiceHandler(upgrades{api: a}))
	if err := wire.NewServer(mux).Serve(l); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// unary answers a call by a function that may be nil.
func unary[Q, A any](answer func(*Q) (*A, error), request *connect.Request[Q]) (*connect.Response[A], error) {
	if answer == nil {
		return nil, missing()
	}
	message, err := answer(request.Msg)
	if err != nil {
		return nil, wire.Encode(err)
	}
	return connect.NewResponse(message), nil
}

// addressed is unary for a call that may be meant for another machine.
func addressed[Q, A any](answer func(string, *Q) (*A, error), request *connect.Request[Q]) (*connect.Response[A], error) {
	if answer == nil {
		return nil, missing()
	}
	return unary(func(q *Q) (*A, error) { return answer(request.Header().Get(wire.MachineHeader), q) }, request)
}

// upgraded answers a call that follows an upgrade.
func upgraded[Q any](ctx context.Context, do func(context.Context, *Q, func(*uncloudv1.UpgradeStatus) error) error, request *connect.Request[Q], stream *connect.ServerStream[uncloudv1.UpgradeStatus]) error {
	if do == nil {
		return missing()
	}
	return wire.Encode(do(ctx, request.Msg, stream.Send))
}

// told answers a call whose answer is its progress.
func told[Q any](ctx context.Context, do func(context.Context, *Q, Tell) error, request *connect.Request[Q], stream *connect.ServerStream[uncloudv1.Progress]) error {
	if do == nil {
		return missing()
	}
	return wire.Encode(do(ctx, request.Msg, stream.Send))
}

func missing() error {
	return wire.Encode(faults.New(faults.Internal, "the fake API does not answer this call"))
}

type cluster struct {
	uncloudv1connect.UnimplementedClusterServiceHandler
	api *API
}

type machine struct {
	uncloudv1connect.UnimplementedMachineServiceHandler
	api *API
}

func (m machine) Logs(ctx context.Context, request *connect.Request[uncloudv1.LogsRequest], stream *connect.ServerStream[uncloudv1.LogLine]) error {
	if m.api.Logs == nil {
		return missing()
	}
	return wire.Encode(m.api.Logs(ctx, request.Header().Get(wire.MachineHeader), request.Msg, stream.Send))
}

func (m machine) Exec(ctx context.Context, stream *connect.BidiStream[uncloudv1.ExecRequest, uncloudv1.ExecResponse]) error {
	if m.api.Exec == nil {
		return missing()
	}
	return wire.Encode(m.api.Exec(ctx, stream.RequestHeader().Get(wire.MachineHeader), stream))
}

func (m machine) PushImage(_ context.Context, stream *connect.ClientStream[uncloudv1.PushImageRequest]) (*connect.Response[uncloudv1.PushImageResponse], error) {
	if m.api.PushImage == nil {
		return nil, missing()
	}
	answer, err := m.api.PushImage(stream.RequestHeader().Get(wire.MachineHeader), func() (*uncloudv1.PushImageRequest, error) {
		if stream.Receive() {
			return stream.Msg(), nil
		}
		if err := stream.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	})
	if err != nil {
		return nil, wire.Encode(err)
	}
	return connect.NewResponse(answer), nil
}

func (m machine) BackupStore(_ context.Context, request *connect.Request[uncloudv1.BackupStoreRequest], stream *connect.ServerStream[uncloudv1.BackupStoreResponse]) error {
	if m.api.BackupStore == nil {
		return missing()
	}
	return wire.Encode(m.api.BackupStore(request.Header().Get(wire.MachineHeader), stream.Send))
}

func (m machine) RestoreStore(_ context.Context, stream *connect.ClientStream[uncloudv1.RestoreStoreRequest]) (*connect.Response[uncloudv1.RestoreStoreResponse], error) {
	if m.api.RestoreStore == nil {
		return nil, missing()
	}
	var messages []*uncloudv1.RestoreStoreRequest
	for stream.Receive() {
		messages = append(messages, proto.Clone(stream.Msg()).(*uncloudv1.RestoreStoreRequest))
	}
	answer, err := m.api.RestoreStore(messages)
	if err := errors.Join(stream.Err(), err); err != nil {
		return nil, wire.Encode(err)
	}
	return connect.NewResponse(answer), nil
}
