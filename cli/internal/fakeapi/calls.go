package fakeapi

import (
	"context"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
)

func (c cluster) ListMachines(_ context.Context, r *connect.Request[uncloudv1.ListMachinesRequest]) (*connect.Response[uncloudv1.ListMachinesResponse], error) {
	return unary(c.api.ListMachines, r)
}

func (c cluster) InspectMachine(_ context.Context, r *connect.Request[uncloudv1.InspectMachineRequest]) (*connect.Response[uncloudv1.Machine], error) {
	return unary(c.api.InspectMachine, r)
}

func (c cluster) RenameMachine(_ context.Context, r *connect.Request[uncloudv1.RenameMachineRequest]) (*connect.Response[uncloudv1.Machine], error) {
	return unary(c.api.RenameMachine, r)
}

func (c cluster) LabelMachine(_ context.Context, r *connect.Request[uncloudv1.LabelMachineRequest]) (*connect.Response[uncloudv1.Machine], error) {
	return unary(c.api.LabelMachine, r)
}

func (c cluster) CreateTicket(_ context.Context, r *connect.Request[uncloudv1.CreateTicketRequest]) (*connect.Response[uncloudv1.CreateTicketResponse], error) {
	return unary(c.api.CreateTicket, r)
}

func (c cluster) ListTickets(_ context.Context, r *connect.Request[uncloudv1.ListTicketsRequest]) (*connect.Response[uncloudv1.ListTicketsResponse], error) {
	return unary(c.api.ListTickets, r)
}

func (c cluster) RevokeTicket(_ context.Context, r *connect.Request[uncloudv1.RevokeTicketRequest]) (*connect.Response[uncloudv1.Ticket], error) {
	return unary(c.api.RevokeTicket, r)
}

func (c cluster) ListServices(_ context.Context, r *connect.Request[uncloudv1.ListServicesRequest]) (*connect.Response[uncloudv1.ListServicesResponse], error) {
	return unary(c.api.ListServices, r)
}

func (c cluster) InspectService(_ context.Context, r *connect.Request[uncloudv1.InspectServiceRequest]) (*connect.Response[uncloudv1.Service], error) {
	return unary(c.api.InspectService, r)
}

func (c cluster) ListReplicas(_ context.Context, r *connect.Request[uncloudv1.ListReplicasRequest]) (*connect.Response[uncloudv1.ListReplicasResponse], error) {
	return unary(c.api.ListReplicas, r)
}

func (c cluster) ListVolumes(_ context.Context, r *connect.Request[uncloudv1.ListVolumesRequest]) (*connect.Response[uncloudv1.ListVolumesResponse], error) {
	return unary(c.api.ListVolumes, r)
}

func (c cluster) ListEvents(_ context.Context, r *connect.Request[uncloudv1.ListEventsRequest]) (*connect.Response[uncloudv1.ListEventsResponse], error) {
	return unary(c.api.ListEvents, r)
}

func (c cluster) PlanDeploy(_ context.Context, r *connect.Request[uncloudv1.DeployRequest]) (*connect.Response[uncloudv1.Plan], error) {
	return unary(c.api.PlanDeploy, r)
}

func (c cluster) RemoveMachine(ctx context.Context, r *connect.Request[uncloudv1.RemoveMachineRequest], s *connect.ServerStream[uncloudv1.Progress]) error {
	return told(ctx, c.api.RemoveMachine, r, s)
}

func (c cluster) Deploy(ctx context.Context, r *connect.Request[uncloudv1.DeployRequest], s *connect.ServerStream[uncloudv1.Progress]) error {
	return told(ctx, c.api.Deploy, r, s)
}

func (c cluster) Scale(ctx context.Context, r *connect.Request[uncloudv1.ScaleRequest], s *connect.ServerStream[uncloudv1.Progress]) error {
	return told(ctx, c.api.Scale, r, s)
}

func (c cluster) StartServices(ctx context.Context, r *connect.Request[uncloudv1.ServicesRequest], s *connect.ServerStream[uncloudv1.Progress]) error {
	return told(ctx, c.api.StartServices, r, s)
}

func (c cluster) StopServices(ctx context.Context, r *connect.Request[uncloudv1.ServicesRequest], s *connect.ServerStream[uncloudv1.Progress]) error {
	return told(ctx, c.api.StopServices, r, s)
}

func (c cluster) PlanRemoval(_ context.Context, r *connect.Request[uncloudv1.ServicesRequest]) (*connect.Response[uncloudv1.Plan], error) {
	return unary(c.api.PlanRemoval, r)
}

func (c cluster) RemoveServices(ctx context.Context, r *connect.Request[uncloudv1.ServicesRequest], s *connect.ServerStream[uncloudv1.Progress]) error {
	return told(ctx, c.api.RemoveServices, r, s)
}

func (c cluster) RemoveVolumes(ctx context.Context, r *connect.Request[uncloudv1.RemoveVolumesRequest], s *connect.ServerStream[uncloudv1.Progress]) error {
	return told(ctx, c.api.RemoveVolumes, r, s)
}

func (c cluster) Rollback(ctx context.Context, r *connect.Request[uncloudv1.RollbackRequest], s *connect.ServerStream[uncloudv1.Progress]) error {
	return told(ctx, c.api.Rollback, r, s)
}

func (m machine) Init(_ context.Context, r *connect.Request[uncloudv1.InitRequest]) (*connect.Response[uncloudv1.InfoResponse], error) {
	return unary(m.api.Init, r)
}

func (m machine) ListImages(_ context.Context, r *connect.Request[uncloudv1.ListImagesRequest]) (*connect.Response[uncloudv1.ListImagesResponse], error) {
	return addressed(m.api.ListImages, r)
}

func (m machine) HasBlobs(_ context.Context, r *connect.Request[uncloudv1.HasBlobsRequest]) (*connect.Response[uncloudv1.HasBlobsResponse], error) {
	return addressed(m.api.HasBlobs, r)
}

func (m machine) Info(_ context.Context, r *connect.Request[uncloudv1.InfoRequest]) (*connect.Response[uncloudv1.InfoResponse], error) {
	return addressed(without[uncloudv1.InfoRequest](m.api.Info), r)
}

func (m machine) WireGuard(_ context.Context, r *connect.Request[uncloudv1.WireGuardRequest]) (*connect.Response[uncloudv1.WireGuardResponse], error) {
	return addressed(without[uncloudv1.WireGuardRequest](m.api.WireGuard), r)
}

func (m machine) Authority(_ context.Context, r *connect.Request[uncloudv1.AuthorityRequest]) (*connect.Response[uncloudv1.AuthorityResponse], error) {
	return addressed(without[uncloudv1.AuthorityRequest](m.api.Authority), r)
}

func (m machine) StoreStatus(_ context.Context, r *connect.Request[uncloudv1.StoreStatusRequest]) (*connect.Response[uncloudv1.StoreStatusResponse], error) {
	return addressed(without[uncloudv1.StoreStatusRequest](m.api.StoreStatus), r)
}

func (m machine) CheckStore(_ context.Context, r *connect.Request[uncloudv1.CheckStoreRequest]) (*connect.Response[uncloudv1.CheckStoreResponse], error) {
	return addressed(without[uncloudv1.CheckStoreRequest](m.api.CheckStore), r)
}

// without makes an addressed call of one whose request says nothing.
func without[Q, A any](answer func(string) (*A, error)) func(string, *Q) (*A, error) {
	if answer == nil {
		return nil
	}
	return func(machine string, _ *Q) (*A, error) { return answer(machine) }
}
