package fakeapi

import (
	"context"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/api/uncloud/v1/uncloudv1connect"
)

type upgrades struct {
	uncloudv1connect.UnimplementedUpgradeServiceHandler
	api *API
}

func (u upgrades) ListGenerations(_ context.Context, r *connect.Request[uncloudv1.ListGenerationsRequest]) (*connect.Response[uncloudv1.ListGenerationsResponse], error) {
	return addressed(u.api.ListGenerations, r)
}

func (u upgrades) Upgrade(ctx context.Context, r *connect.Request[uncloudv1.UpgradeRequest], stream *connect.ServerStream[uncloudv1.UpgradeStatus]) error {
	return upgraded(ctx, u.api.Upgrade, r, stream)
}

func (u upgrades) WatchUpgrade(ctx context.Context, r *connect.Request[uncloudv1.WatchUpgradeRequest], stream *connect.ServerStream[uncloudv1.UpgradeStatus]) error {
	return upgraded(ctx, u.api.WatchUpgrade, r, stream)
}

func (u upgrades) StopUpgrade(_ context.Context, r *connect.Request[uncloudv1.StopUpgradeRequest]) (*connect.Response[uncloudv1.UpgradeStatus], error) {
	return unary(u.api.StopUpgrade, r)
}
