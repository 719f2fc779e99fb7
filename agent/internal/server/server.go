// Package server is the API of a machine: on the unix socket for people, on
// the management address for the other machines, and on the admission port
// for holders of a ticket.
//
// It owns the translation between messages and the product's own types, and
// passing a request on to the machine it is meant for. It decides nothing: it
// asks the organs that agent.go gives it through Host and Member.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"uncloud/api/uncloud/v1/uncloudv1connect"
	"uncloud/internal/wire"
)

// Server answers the API.
type Server struct {
	host  Host
	log   *slog.Logger
	roads roads
}

// New makes a Server for a machine.
func New(host Host, log *slog.Logger) *Server {
	return &Server{host: host, log: log, roads: roads{host: host, to: map[string]http.RoundTripper{}}}
}

// Local is the handler of the unix socket: everything that people may ask.
func (s *Server) Local() http.Handler {
	mux := http.NewServeMux()
	opts := s.options()
	mux.Handle(uncloudv1connect.NewClusterServiceHandler(clusterService{s}, opts))
	path, machine := uncloudv1connect.NewMachineServiceHandler(machineService{s}, opts)
	mux.Handle(path, s.forward(machine))
	path, upgrades := uncloudv1connect.NewUpgradeServiceHandler(upgradeService{s}, opts)
	mux.Handle(path, s.forward(upgrades))
	return mux
}

// Mesh is the handler of the management address: what machines ask of each
// other, and what they pass on for people.
func (s *Server) Mesh() http.Handler {
	mux := http.NewServeMux()
	opts := s.options()
	mux.Handle(uncloudv1connect.NewClusterServiceHandler(clusterService{s}, opts))
	mux.Handle(uncloudv1connect.NewMachineServiceHandler(machineService{s}, opts))
	mux.Handle(uncloudv1connect.NewPeerServiceHandler(peerService{s}, opts))
	mux.Handle(uncloudv1connect.NewUpgradeServiceHandler(upgradeService{s}, opts))
	mux.Handle(uncloudv1connect.NewUpgradePeerServiceHandler(upgradePeerService{s}, opts))
	return mux
}

// Admission is the handler of the one port that a ticket holder can reach.
func (s *Server) Admission() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(uncloudv1connect.NewJoinServiceHandler(joinService{s}, s.options(), connect.WithReadMaxBytes(1<<20)))
	return mux
}

// How long running calls may go on when the server ends: calls have until
// callGrace, and then their contexts end too, since a stream that follows
// something never ends by itself.
const (
	callGrace  = 2 * time.Second
	closeGrace = 3 * time.Second
)

// Serve answers on a listener until the context ends, then lets running calls
// finish for a moment. It returns when no call is running any more.
func (s *Server) Serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	srv := wire.NewServer(handler)
	srv.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	srv.BaseContext = func(net.Listener) context.Context { return base }
	finished := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(finished)
		defer time.AfterFunc(callGrace, cut).Stop()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
		defer cancel()
		if err := srv.Shutdown(grace); err != nil {
			srv.Close() //nolint:errcheck,gosec // the listener is closed already and the rest is given up
		}
	})
	err := srv.Serve(l)
	if !stop() {
		<-finished
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) options() connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithInterceptors(faultInterceptor{log: s.log, host: s.host}),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, v any) error {
			s.log.Error("call panicked", "call", spec.Procedure, "err", v)
			return wire.Encode(errPanic)
		}),
	)
}
