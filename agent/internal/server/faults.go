package server

import (
	"context"
	"log/slog"
	"time"

	"connectrpc.com/connect"

	"uncloud/internal/faults"
	"uncloud/internal/wire"
)

// otherVersion is what to do about messages that no uc of this version sends.
const otherVersion = "compare the versions: uc version"

var errPanic = faults.New(faults.Internal, "the agent met a bug while answering").
	WithHint("its journal has the trace: journalctl -u uncloud")

// faultInterceptor turns every error of a handler into one that carries its
// fault, and logs those that people did not cause.
type faultInterceptor struct {
	log  *slog.Logger
	host Host
}

func (f faultInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		began := time.Now()
		res, err := next(ctx, req)
		return res, f.encode(req.Spec().Procedure, began, err)
	}
}

func (f faultInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		began := time.Now()
		return f.encode(conn.Spec().Procedure, began, next(ctx, conn))
	}
}

func (f faultInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (f faultInterceptor) encode(call string, began time.Time, err error) error {
	if err == nil {
		return nil
	}
	level := slog.LevelDebug
	if faults.CodeOf(err) == faults.Internal {
		level = slog.LevelWarn
	}
	fault := faults.Of(err)
	f.log.Log(context.Background(), level, "call refused", "call", call, "took", time.Since(began), "err", fault.Sentence, "cause", fault.Err)
	return wire.Encode(f.placed(err))
}

// placed says of a fault of this machine's engine or disk where its hint is to
// be followed: who asked may sit at another machine.
func (f faultInterceptor) placed(err error) error {
	if code := faults.CodeOf(err); code != faults.Engine && code != faults.DiskFull {
		return err
	}
	m, notMember := f.host.Member()
	if notMember != nil {
		return err
	}
	return faults.Of(err).On(machineName(m.State(), m.Self))
}
